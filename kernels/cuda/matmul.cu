// Matrix products on the tensor cores, for one row and for hundreds by the same arithmetic: tiles of
// 64 weight rows, k in steps of 64, segments of k added in order.

#include "kernels/cuda/weight_value.cuh"

namespace baton::kernels::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kColumns = kWeightRows;   // weight rows of a tile are columns of the output
constexpr int kDepth = kWeightCols;
constexpr int kStride = kDepth + 8;     // 144 bytes: rows shift by 4 banks
constexpr int kOutStride = kColumns + 4;

struct MatMulArguments {
  Weights weights;
  MatMulPlan plan;
  const void* x;
  const float* row_scales;
  int32_t rows;
  float* out;
  bool add;
  float* partials;
};

__device__ void Copy16Bytes(void* to, const void* from) {
  *static_cast<uint4*>(to) = *static_cast<const uint4*>(from);
}

// A tile of 16-bit elements as they are.
__device__ void LoadPlain(const void* values, int64_t first_row, int32_t rows, int32_t padded_cols,
                          int32_t first_col, uint16_t* to) {
  const auto* from = static_cast<const uint16_t*>(values);
  for (int32_t i = threadIdx.x; i < rows * (kDepth / 8); i += kThreads) {
    const int32_t row = i / (kDepth / 8);
    const int32_t col = i % (kDepth / 8) * 8;
    Copy16Bytes(to + row * kStride + col,
                from + (first_row + row) * padded_cols + first_col + col);
  }
}

// A tile of weights as T.
template <WeightFormat kFormat, typename T>
__device__ void LoadWeights(const Weights& w, int64_t first_row, int32_t first_col, T* to) {
  if constexpr (kFormat == WeightFormat::kF16 || kFormat == WeightFormat::kBF16) {
    LoadPlain(w.values, first_row, kColumns, w.padded_cols, first_col,
              reinterpret_cast<uint16_t*>(to));
  } else if constexpr (kFormat == WeightFormat::kNibbles) {
    for (int32_t i = threadIdx.x; i < kColumns * (kDepth / 32); i += kThreads) {
      const int32_t row = i / (kDepth / 32);
      const int32_t col = i % (kDepth / 32) * 32;
      const int64_t group = ((first_row + row) * w.padded_cols + first_col + col) / 32;
      alignas(16) uint8_t bytes[16];
      Copy16Bytes(bytes, static_cast<const uint8_t*>(w.values) + group * 16);
      const Scale scale = w.scales[group];
      T* out = to + row * kStride + col;
#pragma unroll
      for (int j = 0; j < 16; ++j) {
        out[j] = FromFloat<T>(Scaled(bytes[j] & 15, scale));
        out[j + 16] = FromFloat<T>(Scaled(bytes[j] >> 4, scale));
      }
    }
  } else {
    for (int32_t i = threadIdx.x; i < kColumns * (kDepth / 16); i += kThreads) {
      const int32_t row = i / (kDepth / 16);
      const int32_t col = i % (kDepth / 16) * 16;
      const int64_t at = (first_row + row) * w.padded_cols + first_col + col;
      alignas(16) int8_t bytes[16];
      Copy16Bytes(bytes, static_cast<const int8_t*>(w.values) + at);
      const Scale scale = w.scales[at / w.group];
      T* out = to + row * kStride + col;
#pragma unroll
      for (int j = 0; j < 16; ++j) out[j] = FromFloat<T>(Scaled(bytes[j], scale));
    }
  }
}

__device__ void StoreResult(const MatMulArguments& a, int64_t row, int32_t column, float sum) {
  float* to = a.out + row * a.weights.rows + column;
  const float value = __fmul_rn(sum, a.row_scales[row]);
  *to = a.add ? __fadd_rn(*to, value) : value;
}

// grid: x columns, y rows, z segments where they are split. Warp w does columns [16 w, 16 w + 16).
template <WeightFormat kFormat, typename T, int kRows>
__global__ void MatMulKernel(MatMulArguments a) {
  __shared__ __align__(32) T weights[kColumns * kStride];
  __shared__ __align__(32) T inputs[kRows * kStride];
  __shared__ __align__(32) float sums_out[kRows * kOutStride];
  constexpr int kRowTiles = kRows / 16;
  const int64_t first_column = int64_t{blockIdx.x} * kColumns;
  const int64_t first_row = int64_t{blockIdx.y} * kRows;
  const int warp = threadIdx.x / 32;
  const MatMulPlan& plan = a.plan;
  const int32_t first_segment = plan.split ? static_cast<int32_t>(blockIdx.z) : 0;
  const int32_t end_segment = plan.split ? first_segment + 1 : plan.segments;

  SumTile total[kRowTiles];
#pragma unroll
  for (int r = 0; r < kRowTiles; ++r) Zero(total[r]);
  for (int32_t segment = first_segment; segment < end_segment; ++segment) {
    SumTile sums[kRowTiles];
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) Zero(sums[r]);
    const int32_t begin = segment * plan.segment_cols;
    const int32_t all = a.weights.padded_cols;
    const int32_t end = begin + plan.segment_cols < all ? begin + plan.segment_cols : all;
    for (int32_t col = begin; col < end; col += kDepth) {
      __syncthreads();  // the step before has been read
      LoadWeights<kFormat>(a.weights, first_column, col, weights);
      LoadPlain(a.x, first_row, kRows, all, col, reinterpret_cast<uint16_t*>(inputs));
      __syncthreads();
#pragma unroll
      for (int k = 0; k < kDepth; k += 16) {
        WeightTile<T> weight_tile;
        LoadTile(weight_tile, weights + warp * 16 * kStride + k, kStride);
#pragma unroll
        for (int r = 0; r < kRowTiles; ++r) {
          InputTile<T> input_tile;
          LoadTile(input_tile, inputs + r * 16 * kStride + k, kStride);
          MultiplyAdd<T>(sums[r], weight_tile, input_tile);
        }
      }
    }
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
#pragma unroll
      for (int i = 0; i < total[r].num_elements; ++i) {
        total[r].x[i] = __fadd_rn(total[r].x[i], sums[r].x[i]);
      }
    }
  }
#pragma unroll
  for (int r = 0; r < kRowTiles; ++r) {
    StoreTile(sums_out + r * 16 * kOutStride + warp * 16, kOutStride, total[r]);
  }
  __syncthreads();
  for (int32_t i = threadIdx.x; i < kRows * kColumns; i += kThreads) {
    const int64_t row = first_row + i / kColumns;
    const auto column = static_cast<int32_t>(first_column + i % kColumns);
    if (row >= a.rows || column >= a.weights.rows) continue;
    const float sum = sums_out[i / kColumns * kOutStride + i % kColumns];
    if (plan.split) {
      a.partials[(first_segment * int64_t{a.rows} + row) * a.weights.rows + column] = sum;
    } else {
      StoreResult(a, row, column, sum);
    }
  }
}

__global__ void SumSegmentsKernel(MatMulArguments a) {
  const int64_t count = int64_t{a.rows} * a.weights.rows;
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= count) return;
  float sum = 0;
  for (int32_t s = 0; s < a.plan.segments; ++s) sum = __fadd_rn(sum, a.partials[s * count + i]);
  StoreResult(a, i / a.weights.rows, static_cast<int32_t>(i % a.weights.rows), sum);
}

template <WeightFormat kFormat, typename T>
void Launch(const MatMulArguments& a, Stream stream) {
  const dim3 grid(static_cast<uint32_t>(a.plan.column_tiles),
                  static_cast<uint32_t>(a.plan.row_tiles),
                  a.plan.split ? static_cast<uint32_t>(a.plan.segments) : 1u);
  if (a.plan.tile_rows == kMatMulFewRows) {
    BATON_LAUNCH((MatMulKernel<kFormat, T, kMatMulFewRows>), grid, kThreads, 0, stream, a);
  } else {
    BATON_LAUNCH((MatMulKernel<kFormat, T, kMatMulManyRows>), grid, kThreads, 0, stream, a);
  }
  if (!a.plan.split) return;
  const int64_t count = int64_t{a.rows} * a.weights.rows;
  const auto blocks = static_cast<uint32_t>((count + kThreads - 1) / kThreads);
  BATON_LAUNCH(SumSegmentsKernel, blocks, kThreads, 0, stream, a);
}

// One block a row.
template <typename T>
__global__ void RoundKernel(const float* x, int32_t cols, int32_t padded_cols, T* out,
                            float* row_scales, bool scaled) {
  __shared__ float largest_of[kThreads / 32];
  const float* from = x + int64_t{blockIdx.x} * cols;
  T* to = out + int64_t{blockIdx.x} * padded_cols;
  float largest = 0;
  for (int32_t c = threadIdx.x; c < cols; c += kThreads) {
    largest = LargerOrNan(largest, fabsf(from[c]));
  }
  largest = WarpMax(largest);
  if (threadIdx.x % 32 == 0) largest_of[threadIdx.x / 32] = largest;
  __syncthreads();
  for (int i = 0; i < kThreads / 32; ++i) largest = LargerOrNan(largest, largest_of[i]);
  // The largest element to [2^14, 2^15). Zeros, infinities and NaNs stay as they are.
  int exponent = 0;
  if (scaled && largest > 0 && largest < INFINITY) exponent = 14 - ilogbf(largest);
  if (exponent > 100) exponent = 100;  // 2^-113 at least, so both factors are finite
  const float factor = ldexpf(1.0f, exponent);
  if (threadIdx.x == 0) row_scales[blockIdx.x] = ldexpf(1.0f, -exponent);
  for (int32_t c = threadIdx.x; c < padded_cols; c += kThreads) {
    to[c] = FromFloat<T>(c < cols ? from[c] * factor : 0.0f);
  }
}

constexpr int kSide = 16;

// A thread an output; k in order.
__global__ void MatMulF32Kernel(Weights w, const float* x, int32_t rows, float* out, bool add) {
  __shared__ float weights[kSide][kSide + 1];
  __shared__ float inputs[kSide][kSide + 1];
  const int tx = threadIdx.x % kSide;
  const int ty = threadIdx.x / kSide;
  const int64_t first_column = int64_t{blockIdx.x} * kSide;
  const int64_t row = int64_t{blockIdx.y} * kSide + ty;
  const auto* values = static_cast<const float*>(w.values);
  float sum = 0;
  for (int32_t col = 0; col < w.padded_cols; col += kSide) {
    __syncthreads();
    weights[ty][tx] = values[(first_column + ty) * w.padded_cols + col + tx];
    inputs[ty][tx] = row < rows && col + tx < w.cols ? x[row * w.cols + col + tx] : 0.0f;
    __syncthreads();
    for (int k = 0; k < kSide; ++k) sum = fmaf(inputs[ty][k], weights[tx][k], sum);
  }
  const int64_t column = first_column + tx;
  if (row >= rows || column >= w.rows) return;
  float* to = out + row * w.rows + column;
  *to = add ? __fadd_rn(*to, sum) : sum;
}

}  // namespace

void LaunchRound(const float* x, int32_t rows, int32_t cols, int32_t padded_cols, bool bf16,
                 void* out, float* row_scales, Stream stream) {
  if (bf16) {
    BATON_LAUNCH(RoundKernel<BFloat16>, rows, kThreads, 0, stream, x, cols, padded_cols,
                 static_cast<BFloat16*>(out), row_scales, false);
  } else {
    BATON_LAUNCH(RoundKernel<Half>, rows, kThreads, 0, stream, x, cols, padded_cols,
                 static_cast<Half*>(out), row_scales, true);
  }
}

void LaunchMatMul(const Weights& weights, const MatMulPlan& plan, const void* x,
                  const float* row_scales, int32_t rows, float* out, bool add, float* partials,
                  Stream stream) {
  const MatMulArguments a{weights, plan, x, row_scales, rows, out, add, partials};
  switch (weights.format) {
    case WeightFormat::kF32:
      return;  // LaunchMatMulF32's
    case WeightFormat::kF16:
      return Launch<WeightFormat::kF16, Half>(a, stream);
    case WeightFormat::kBF16:
      return Launch<WeightFormat::kBF16, BFloat16>(a, stream);
    case WeightFormat::kNibbles:
      return Launch<WeightFormat::kNibbles, Half>(a, stream);
    case WeightFormat::kBytes:
      return Launch<WeightFormat::kBytes, Half>(a, stream);
  }
}

void LaunchMatMulF32(const Weights& weights, const float* x, int32_t rows, float* out, bool add,
                     Stream stream) {
  const dim3 grid(static_cast<uint32_t>(weights.padded_rows / kSide),
                  static_cast<uint32_t>((rows + kSide - 1) / kSide));
  BATON_LAUNCH(MatMulF32Kernel, grid, kSide * kSide, 0, stream, weights, x, rows, out, add);
}

}  // namespace baton::kernels::cuda
