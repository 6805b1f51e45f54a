#pragma once

// The number formats of weights, decoded exactly as GGUF defines them (ggml's block layouts).

#include <cstddef>
#include <cstdint>
#include <span>

#include "common/dtype.h"

namespace baton::kernels {

// out[i] = element i of `data`, which holds out.size() elements: a multiple of the dtype's block.
void Dequantize(DType dtype, std::span<const std::byte> data, std::span<float> out);

// True for the GGUF block formats: all but F32, F16 and BF16.
bool IsBlockFormat(DType dtype);

// One block of a block format, unpacked. Element i is
//   d * quants[i] + m                                         when group == 0
//   (d * scales[i / group]) * quants[i] - m * mins[i / group]   otherwise
// with float arithmetic in that order; the second term only when has_min.
struct QuantBlock {
  int32_t elements = 0;
  int32_t group = 0;  // elements that share a sub-scale; 0: none
  bool has_min = false;
  uint16_t d = 0;  // half precision, as in the file
  uint16_t m = 0;
  int8_t quants[256 + 16] = {};  // the last 16 are padding
  int8_t scales[16] = {};
  int8_t mins[8] = {};
};

// Unpacks the block that begins at `block`, which holds the whole of it.
void UnpackBlock(DType dtype, const std::byte* block, QuantBlock& out);

}  // namespace baton::kernels
