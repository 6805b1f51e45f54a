#pragma once

// How the kernels of one instruction set read the block formats of panel_format.h.

#include "kernels/cpu/simd.h"

namespace baton::kernels::BATON_ISA {

// Quads 2 * pair and 2 * pair + 1 of a group's weights as unsigned bytes.
template <int kBits>
BATON_INLINE void LoadQuadPair(const uint8_t* quants, int pair, int vector, Ints& first,
                               Ints& second) {
  constexpr int kQuadBytes = 4 * kPanelColumns;
  const uint8_t* from = quants + vector * 4 * kLanes;
  if (kBits == 8) {
    first = LoadInts(from + 2 * pair * kQuadBytes);
    second = LoadInts(from + (2 * pair + 1) * kQuadBytes);
  } else {
    const Ints both = LoadInts(from + pair * kQuadBytes);
    first = LowNibbles(both);
    second = HighNibbles(both);
  }
}

// One group's weights in a panel, packed as in memory.
template <BlockFormat kFormat>
struct PackedGroups {
  static constexpr int kBits = kFormat.bits;

  BATON_INLINE const uint8_t* Super(const uint8_t* weights, int64_t group) {
    return weights + group / kFormat.groups_per_super * kFormat.super_bytes();
  }
  BATON_INLINE const uint8_t* Group(const uint8_t* weights, int64_t group) {
    return Super(weights, group) + kFormat.header_bytes() +
           group % kFormat.groups_per_super * kFormat.group_bytes();
  }
  BATON_INLINE const uint8_t* Quants(const uint8_t* weights, int64_t group) {
    return Group(weights, group) + kFormat.sub_bytes();
  }
  BATON_INLINE Floats Scale(const uint8_t* weights, int64_t group, int vector) {
    const Floats d = LoadHalves(Super(weights, group) + vector * 2 * kLanes);
    if (!kFormat.sub_scales) return d;
    const uint8_t* scales = Group(weights, group) + vector * kLanes;
    return Mul(d, ToFloats(LoadBytes(scales, kFormat.signed_scales)));
  }
  // -kShift * scale, for ScaleDot.
  BATON_INLINE Floats Unshift(const uint8_t*, int64_t, int, Floats scale) {
    return Mul(scale, Set1(-kShift));
  }
  BATON_INLINE Floats Offset(const uint8_t* weights, int64_t group, int vector) {
    const Floats m = LoadHalves(Super(weights, group) + 2 * kPanelColumns + vector * 2 * kLanes);
    if (!kFormat.sub_scales) return m;
    const uint8_t* mins = Group(weights, group) + kPanelColumns + vector * kLanes;
    return Mul(Sub(Zero(), m), ToFloats(LoadBytes(mins, false)));
  }
  BATON_INLINE void Prefetch(const uint8_t* weights, int64_t group) {
#if defined(__AVX2__)
    constexpr int kAheadBytes = 2048;
    const char* from = reinterpret_cast<const char*>(Quants(weights, group)) + kAheadBytes;
    constexpr int kBytes = kFormat.super_bytes() / kFormat.groups_per_super;
    for (int i = 0; i < kBytes; i += 64) _mm_prefetch(from + i, _MM_HINT_T1);
#else
    static_cast<void>(weights);
    static_cast<void>(group);
#endif
  }
};

}  // namespace baton::kernels::BATON_ISA
