#pragma once

// How weights lie in memory for the cpu kernels.
//
// A matrix of N outputs and K inputs is cut into panels of kPanelColumns outputs ("columns" of
// y = x W^T); the columns that the last panel lacks are zero bytes, computed and not stored. A
// panel is read once from its begin to its end.
//
// Float formats, `c` counting the panel's columns:
//   F32, F16: [k][c]            BF16: [k / 2][c][k % 2], zeros up to PaddedBf16(K)
//
// Block formats: the value is scale * (stored - zero) (+ offset), in groups of `group` inputs, in
// super-blocks of `groups_per_super` groups. A super-block is
//   u16 d[c]                         half precision
//   u16 m[c]                         only with has_min
//   then for each group:
//     u8 or i8 scales[c]             only with sub_scales: scale = d * scales; else scale = d
//     u8 mins[c]                     only with sub_scales and has_min: offset = -(m * mins);
//                                    else offset = m
//     the quants, 8 bits: [k / 4][c][k % 4]; 4 bits: [k / 8][c][k % 4], of which the low nibble
//     has k % 8 < 4 and the high one the rest
// All parts are multiples of 64 bytes. This header has no functions that could be emitted: it is
// compiled for several instruction sets.

#include <cstdint>

namespace baton::kernels {

inline constexpr int kPanelColumns = 32;
inline constexpr int kActivationGroup = 32;  // inputs that share an activation scale

// The inputs of one AMX tile of BF16; other kernels need an even number.
static constexpr int64_t PaddedBf16(int64_t inputs) { return (inputs + 31) / 32 * 32; }

struct BlockFormat {
  int bits;  // of a stored quant: 4 or 8
  int zero;  // 0 or a power of two
  bool has_min;
  bool sub_scales;
  bool signed_scales;  // sub-scales are i8
  int group;           // 16 or 32
  int groups_per_super;

  constexpr int quant_bytes() const { return group * kPanelColumns * bits / 8; }
  constexpr int header_bytes() const { return kPanelColumns * (has_min ? 4 : 2); }
  constexpr int sub_bytes() const { return sub_scales ? kPanelColumns * (has_min ? 2 : 1) : 0; }
  constexpr int group_bytes() const { return sub_bytes() + quant_bytes(); }
  constexpr int super_bytes() const { return header_bytes() + groups_per_super * group_bytes(); }
  constexpr int super_inputs() const { return group * groups_per_super; }
};

inline constexpr BlockFormat kFormatQ8_0 = {8, 128, false, false, false, 32, 1};
inline constexpr BlockFormat kFormatQ4_0 = {4, 8, false, false, false, 32, 1};
inline constexpr BlockFormat kFormatQ4_1 = {4, 0, true, false, false, 32, 1};
inline constexpr BlockFormat kFormatQ5_0 = {8, 16, false, false, false, 32, 1};
inline constexpr BlockFormat kFormatQ5_1 = {8, 0, true, false, false, 32, 1};
inline constexpr BlockFormat kFormatQ4_K = {4, 0, true, true, false, 32, 8};
inline constexpr BlockFormat kFormatQ5_K = {8, 0, true, true, false, 32, 8};
inline constexpr BlockFormat kFormatQ6_K = {8, 32, false, true, true, 16, 16};

}  // namespace baton::kernels
