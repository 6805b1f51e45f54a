#pragma once

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/launch.h"

namespace baton::kernels::cuda {

// With the roundings of Dequantize: the compiler may not fuse.
inline __device__ float Scaled(int quant, Scale scale) {
  return __fadd_rn(__fmul_rn(scale.x, static_cast<float>(quant)), scale.y);
}

// One element of any format.
inline __device__ float WeightValue(const Weights& w, int64_t row, int32_t col) {
  const int64_t at = row * w.padded_cols + col;
  switch (w.format) {
    case WeightFormat::kF32:
      return static_cast<const float*>(w.values)[at];
    case WeightFormat::kF16:
      return ToFloat(BitsTo<Half>(static_cast<const uint16_t*>(w.values)[at]));
    case WeightFormat::kBF16:
      return ToFloat(BitsTo<BFloat16>(static_cast<const uint16_t*>(w.values)[at]));
    case WeightFormat::kNibbles: {
      const int byte = static_cast<const uint8_t*>(w.values)[at / 2];
      return Scaled(at % 2 == 0 ? byte & 15 : byte >> 4, w.scales[at / w.group]);
    }
    case WeightFormat::kBytes:
      return Scaled(static_cast<const int8_t*>(w.values)[at], w.scales[at / w.group]);
  }
  return 0;
}

}  // namespace baton::kernels::cuda
