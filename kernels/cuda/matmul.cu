// Matrix products on the tensor cores, for one row and for hundreds by the same arithmetic: k in
// steps of 16, segments of k added in order. Weights and inputs go from memory straight into the
// registers of the tensor cores: of each 32 columns a lane takes 8 neighbours, which the order of k
// in these registers is made for. Whatever else reads the same bytes finds them in the caches.

#include "kernels/cuda/round.cuh"
#include "kernels/cuda/weight_value.cuh"

namespace baton::kernels::cuda {
namespace {

constexpr int kGroup = 32;  // columns: two products of 16
constexpr int kWarps = 8;
constexpr int kThreads = kWarps * 32;
static_assert(kWarps == kMatMulSegments && kWeightCols % kGroup == 0 && kWeightRows % 16 == 0);

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

// A warp's tile, in units of what one product gives: 16 weight rows, 8 rows; and how many warps lie
// side by side in a block's tile.
template <MatMulTile kTile>
struct Shape;
template <>
struct Shape<MatMulTile::kFew> {
  static constexpr int kStrips = 1, kRowTiles = 2, kStripWarps = 1, kRowWarps = 1;
};
template <>
struct Shape<MatMulTile::kSome> {
  static constexpr int kStrips = 2, kRowTiles = 4, kStripWarps = 4, kRowWarps = 2;
};
template <>
struct Shape<MatMulTile::kMany> {
  static constexpr int kStrips = 4, kRowTiles = 4, kStripWarps = 2, kRowWarps = 4;
};

// Elements [col, col + 8) of a weight row, two a register; col is a multiple of 8.
template <WeightFormat kFormat, typename T>
__device__ void LoadEight(const Weights& w, int64_t row, int32_t col, uint32_t (&to)[4]) {
  const int64_t at = row * w.padded_cols + col;
  if constexpr (kFormat == WeightFormat::kF16 || kFormat == WeightFormat::kBF16) {
    const uint4 words =
        *reinterpret_cast<const uint4*>(static_cast<const uint16_t*>(w.values) + at);
    to[0] = words.x;
    to[1] = words.y;
    to[2] = words.z;
    to[3] = words.w;
  } else {
    const Scale scale = w.scales[at / w.group];
    int quants[8];
    if constexpr (kFormat == WeightFormat::kNibbles) {
      const uint32_t word = static_cast<const uint32_t*>(w.values)[at / 8];
#pragma unroll
      for (int i = 0; i < 8; ++i) quants[i] = static_cast<int>(word >> (4 * i) & 15);
    } else {
      const uint2 words =
          *reinterpret_cast<const uint2*>(static_cast<const int8_t*>(w.values) + at);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        quants[i] = static_cast<int8_t>(words.x >> (8 * i));
        quants[4 + i] = static_cast<int8_t>(words.y >> (8 * i));
      }
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      to[i] = Pair<T>(Scaled(quants[2 * i], scale), Scaled(quants[2 * i + 1], scale));
    }
  }
}

__device__ void StoreResult(const MatMulArguments& a, int64_t row, int32_t column, float sum) {
  float* to = a.out + row * a.weights.rows + column;
  const float value = __fmul_rn(sum, a.row_scales[row]);
  *to = a.add ? __fadd_rn(*to, value) : value;
}

// What lane 4 g + q of a warp has of the warp's tile.
template <WeightFormat kFormat, typename T, MatMulTile kTile>
struct WarpTile {
  using S = Shape<kTile>;

  const MatMulArguments& a;
  const int g, q;
  int64_t first_row;
  int32_t first_column;
  float sums[S::kStrips][S::kRowTiles][4];

  __device__ WarpTile(const MatMulArguments& arguments, int strip_warp, int row_warp)
      : a(arguments),
        g(static_cast<int>(threadIdx.x % 32 / 4)),
        q(static_cast<int>(threadIdx.x % 4)),
        first_row((int64_t{blockIdx.y} * S::kRowWarps + row_warp) * S::kRowTiles * 8),
        first_column((static_cast<int32_t>(blockIdx.x) * S::kStripWarps + strip_warp) * S::kStrips *
                     16) {}

  // sums = the products of a segment's columns.
  __device__ void Multiply(int32_t segment) {
#pragma unroll
    for (int s = 0; s < S::kStrips; ++s) {
#pragma unroll
      for (int r = 0; r < S::kRowTiles; ++r) {
#pragma unroll
        for (int i = 0; i < 4; ++i) sums[s][r][i] = 0;
      }
    }
    const int32_t all = a.weights.padded_cols;
    const int32_t begin = segment * a.plan.segment_cols;
    const int32_t end = begin + a.plan.segment_cols < all ? begin + a.plan.segment_cols : all;
    // Rows that are none take the first's inputs, which are there anyway.
    const uint16_t* x[S::kRowTiles];
#pragma unroll
    for (int r = 0; r < S::kRowTiles; ++r) {
      const int64_t row = first_row + 8 * r + g;
      x[r] = static_cast<const uint16_t*>(a.x) + (row < a.rows ? row : 0) * all + 8 * q;
    }
#pragma unroll 2
    for (int32_t col = begin; col < end; col += kGroup) {
      uint4 inputs[S::kRowTiles];
#pragma unroll
      for (int r = 0; r < S::kRowTiles; ++r) {
        inputs[r] = *reinterpret_cast<const uint4*>(x[r] + col);
      }
#pragma unroll
      for (int s = 0; s < S::kStrips; ++s) {
        // Strips beyond the matrix: any other will do, whose results nobody stores.
        const int32_t strip =
            first_column + 16 * s < a.weights.padded_rows ? first_column + 16 * s : 0;
        uint32_t low[4], high[4];  // rows g and g + 8
        LoadEight<kFormat, T>(a.weights, strip + g, col + 8 * q, low);
        LoadEight<kFormat, T>(a.weights, strip + 8 + g, col + 8 * q, high);
        const uint32_t first[4] = {low[0], high[0], low[1], high[1]};
        const uint32_t second[4] = {low[2], high[2], low[3], high[3]};
#pragma unroll
        for (int r = 0; r < S::kRowTiles; ++r) {
          MultiplyAdd<T>(sums[s][r], first, inputs[r].x, inputs[r].y);
          MultiplyAdd<T>(sums[s][r], second, inputs[r].z, inputs[r].w);
        }
      }
    }
  }

  // Calls visit(row, column, i-th sum) for those of lane 4 g + q that are results.
  template <typename Visit>
  __device__ void VisitResults(Visit visit) const {
#pragma unroll
    for (int s = 0; s < S::kStrips; ++s) {
#pragma unroll
      for (int r = 0; r < S::kRowTiles; ++r) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int64_t row = first_row + 8 * r + 2 * q + i % 2;
          const int32_t column = first_column + 16 * s + g + i / 2 * 8;
          if (row < a.rows && column < a.weights.rows) visit(row, column, s, r, i);
        }
      }
    }
  }
};

// grid: x columns, y rows. Warp w does segment w; then each stores its share of the results.
template <WeightFormat kFormat, typename T>
__global__ void FewRowsKernel(MatMulArguments a) {
  using Tile = WarpTile<kFormat, T, MatMulTile::kFew>;
  constexpr int kSums = Tile::S::kRowTiles * 4;
  static_assert(kSums == kWarps);  // the i-th sum of each lane is the i-th warp's to store
  __shared__ float sums[kMatMulSegments][kSums][32];
  const int warp = static_cast<int>(threadIdx.x / 32);
  const int lane = static_cast<int>(threadIdx.x % 32);
  Tile tile(a, 0, 0);
  if (warp < a.plan.segments) {
    tile.Multiply(warp);
#pragma unroll
    for (int i = 0; i < kSums; ++i) sums[warp][i][lane] = tile.sums[0][i / 4][i % 4];
  }
  __syncthreads();
  float total = 0;
  for (int32_t s = 0; s < a.plan.segments; ++s) total = __fadd_rn(total, sums[s][warp][lane]);
  tile.VisitResults([&](int64_t row, int32_t column, int, int r, int i) {
    if (4 * r + i == warp) StoreResult(a, row, column, total);
  });
}

// grid: x columns, y rows, z segments where they are split.
template <WeightFormat kFormat, typename T, MatMulTile kTile>
__global__ void __launch_bounds__(kThreads, 1) MatMulKernel(MatMulArguments a) {
  using Tile = WarpTile<kFormat, T, kTile>;
  using S = Shape<kTile>;
  static_assert(S::kStripWarps * S::kRowWarps == kWarps);
  static_assert(S::kStrips * S::kStripWarps * 16 ==
                kMatMulTiles[static_cast<int>(kTile)].weight_rows);
  static_assert(S::kRowTiles * S::kRowWarps * 8 == kMatMulTiles[static_cast<int>(kTile)].rows);
  const int warp = static_cast<int>(threadIdx.x / 32);
  Tile tile(a, warp % S::kStripWarps, warp / S::kStripWarps);
  if (a.plan.split) {
    const auto segment = static_cast<int32_t>(blockIdx.z);
    tile.Multiply(segment);
    tile.VisitResults([&](int64_t row, int32_t column, int s, int r, int i) {
      a.partials[(segment * int64_t{a.rows} + row) * a.weights.rows + column] = tile.sums[s][r][i];
    });
    return;
  }
  float total[S::kStrips][S::kRowTiles][4] = {};
  for (int32_t segment = 0; segment < a.plan.segments; ++segment) {
    tile.Multiply(segment);
#pragma unroll
    for (int s = 0; s < S::kStrips; ++s) {
#pragma unroll
      for (int r = 0; r < S::kRowTiles; ++r) {
#pragma unroll
        for (int i = 0; i < 4; ++i) total[s][r][i] = __fadd_rn(total[s][r][i], tile.sums[s][r][i]);
      }
    }
  }
  tile.VisitResults([&](int64_t row, int32_t column, int s, int r, int i) {
    StoreResult(a, row, column, total[s][r][i]);
  });
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
  switch (a.plan.tile) {
    case MatMulTile::kFew:
      BATON_LAUNCH((FewRowsKernel<kFormat, T>), grid, kThreads, 0, stream, a);
      break;
    case MatMulTile::kSome:
      BATON_LAUNCH((MatMulKernel<kFormat, T, MatMulTile::kSome>), grid, kThreads, 0, stream, a);
      break;
    case MatMulTile::kMany:
      BATON_LAUNCH((MatMulKernel<kFormat, T, MatMulTile::kMany>), grid, kThreads, 0, stream, a);
      break;
  }
  if (!a.plan.split) return;
  const int64_t count = int64_t{a.rows} * a.weights.rows;
  const auto blocks = static_cast<uint32_t>((count + kThreads - 1) / kThreads);
  BATON_LAUNCH(SumSegmentsKernel, blocks, kThreads, 0, stream, a);
}

// One block a row.
__global__ void RoundKernel(const float* x, int32_t cols, Rounding rounding) {
  RoundRow<kThreads>(x + int64_t{blockIdx.x} * cols, cols, rounding, blockIdx.x);
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

void LaunchRound(const float* x, int32_t rows, int32_t cols, const Rounding& rounding,
                 Stream stream) {
  BATON_LAUNCH(RoundKernel, rows, kThreads, 0, stream, x, cols, rounding);
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
