// Paged attention on the tensor cores. A warp takes up to 16 queries that share a kv head, and
// reads keys and values from the slab straight into the registers of the tensor cores: the order of
// tokens and elements in these registers is the warp's own choice, and it takes the one in which
// four neighbours lie together in the slab. Warps share nothing but the cache: those of a block
// have neighbouring tiles of queries, which read the same keys, or neighbouring segments.
//
// A query's arithmetic is its own: tiles of 32 positions in order, segments of kSegmentTokens
// merged in order, whether one warp does all of them or one each.

#include "kernels/cuda/kv_element.cuh"
#include "kernels/cuda/softmax.cuh"

namespace baton::kernels::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kTile = 32;
static_assert(kQueryTile == 16 && kSegmentTokens % kTile == 0);

// F16 caches are multiplied as F16; the numbers of the others are BF16's, too.
template <KvDType kDType>
struct Product {
  using Type = BFloat16;
};
template <>
struct Product<KvDType::kF16> {
  using Type = Half;
};

inline __device__ float ByteValue(KvDType dtype, uint32_t word, int byte) {
  const auto code = static_cast<uint8_t>(word >> (8 * byte));
  return dtype == KvDType::kFp8 ? FromFp8(code) : static_cast<float>(static_cast<int8_t>(code));
}

// Of a matrix [rows][columns] in a head's bytes: rows 2 * pair and 2 * pair + 1 of columns
// [column, column + 4), each a register. Keys are [element][token], values [token][element].
template <KvDType kDType>
__device__ void LoadPairs(const char* head, int32_t columns, int32_t pair, int32_t column,
                          uint32_t (&to)[4]) {
  if constexpr (kDType == KvDType::kBF16) {
    const auto* from = reinterpret_cast<const uint4*>(head + (pair * columns + column) * 4);
    const uint4 words = *from;
    to[0] = words.x;
    to[1] = words.y;
    to[2] = words.z;
    to[3] = words.w;
  } else if constexpr (kDType == KvDType::kF16) {
    const char* from = head + (2 * pair * columns + column) * 2;
    const uint2 low = *reinterpret_cast<const uint2*>(from);
    const uint2 high = *reinterpret_cast<const uint2*>(from + 2 * columns);
    to[0] = __byte_perm(low.x, high.x, 0x5410);
    to[1] = __byte_perm(low.x, high.x, 0x7632);
    to[2] = __byte_perm(low.y, high.y, 0x5410);
    to[3] = __byte_perm(low.y, high.y, 0x7632);
  } else {
    const char* from = head + 2 * pair * columns + column;
    const uint32_t low = *reinterpret_cast<const uint32_t*>(from);
    const uint32_t high = *reinterpret_cast<const uint32_t*>(from + columns);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      to[j] = Pair<BFloat16>(ByteValue(kDType, low, j), ByteValue(kDType, high, j));
    }
  }
}

inline __device__ void Clear(uint32_t (&registers)[4]) {
#pragma unroll
  for (int j = 0; j < 4; ++j) registers[j] = 0;
}

// What lane 4 g + q of a warp works on. Halves of the rows: queries g and g + 8 of the tile.
template <KvDType kDType, int kChunks>
struct Lane {
  static constexpr int kDim = 32 * kChunks;
  using T = typename Product<kDType>::Type;

  const AttentionArguments& a;
  const QueryTile tile;
  const int32_t kv_head;
  const int32_t group;
  const int g, q;
  int64_t vector[2];    // of a.q and a.out: row and head
  int32_t position[2];  // the last that the query sees; -1: there is no query
  uint32_t queries[2 * kChunks][4];

  // The softmax of a segment. values[c][j][2 h + e] is element 32 c + 8 q + 4 e + j of half h.
  float largest[2], sum[2];
  float values[kChunks][4][4];

  __device__ Lane(const AttentionArguments& arguments, int64_t tile_index, int32_t kv_head_)
      : a(arguments),
        tile(arguments.tiles[tile_index]),
        kv_head(kv_head_),
        group(arguments.heads / arguments.cache.kv_heads),
        g(static_cast<int>(threadIdx.x % 32 / 4)),
        q(static_cast<int>(threadIdx.x % 4)) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const bool is_query = g + 8 * h < tile.count;
      const int32_t query = tile.first + (is_query ? g + 8 * h : 0);
      position[h] = is_query ? tile.first_position + query / group : -1;
      vector[h] =
          int64_t{tile.first_row + query / group} * a.heads + kv_head * group + query % group;
      const float* from = a.q + vector[h] * kDim + 2 * q;
#pragma unroll
      for (int k = 0; k < 2 * kChunks; ++k, from += 16) {
        queries[k][h] = is_query ? Pair<T>(from[0], from[1]) : 0;
        queries[k][2 + h] = is_query ? Pair<T>(from[8], from[9]) : 0;
      }
    }
  }

  // Positions the tile's queries see.
  __device__ int32_t end() const {
    return tile.first_position + (tile.first + tile.count - 1) / group + 1;
  }

  __device__ const char* Head(int32_t token, int64_t plane) const {
    const int64_t block = a.tables[tile.table + token / a.cache.block_tokens];
    return a.slab + block * a.cache.block_bytes + plane + kv_head * a.cache.head_bytes;
  }

  __device__ void ClearSoftmax() {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      largest[h] = -INFINITY;
      sum[h] = 0;
    }
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
#pragma unroll
        for (int i = 0; i < 4; ++i) values[c][j][i] = 0;
      }
    }
  }

  // scores[j][2 h + e] = that of half h and token first + 8 q + 4 e + j: column g of the j-th
  // product is token 4 g + j.
  __device__ void Score(int32_t first, int32_t end, float (&scores)[4][4]) const {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) scores[j][i] = 0;
    }
    const int32_t token = first + 4 * g;
    const bool is_there = token < end;
    const int32_t block_tokens = a.cache.block_tokens;
    const char* head = is_there ? Head(token, a.cache.key_offset) : nullptr;
#pragma unroll
    for (int k = 0; k < 2 * kChunks; ++k) {
      uint32_t low[4], high[4];
      Clear(low);
      Clear(high);
      if (is_there) {
        LoadPairs<kDType>(head, block_tokens, 8 * k + q, token % block_tokens, low);
        LoadPairs<kDType>(head, block_tokens, 8 * k + 4 + q, token % block_tokens, high);
      }
#pragma unroll
      for (int j = 0; j < 4; ++j) MultiplyAdd<T>(scores[j], queries[k], low[j], high[j]);
    }
  }

  // Of tokens [first + 8 q, first + 8 q + 8): the format's scale of each.
  __device__ float TokenScale(int64_t plane, int32_t token, int32_t end) const {
    if constexpr (kDType == KvDType::kInt8 || kDType == KvDType::kFp8) {
      if (token >= end) return 0;
      return LoadKvScale(a.cache, Head(token, plane), token % a.cache.block_tokens);
    } else {
      return 1.0f;
    }
  }

  // Scores to weights; the softmax so far to the new largest score.
  __device__ void Weigh(int32_t first, int32_t end, float (&scores)[4][4]) {
    const float scale = a.scale * kLog2E;
    float keys[2][4];
#pragma unroll
    for (int e = 0; e < 2; ++e) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        keys[e][j] = scale * TokenScale(a.cache.key_offset, first + 8 * q + 4 * e + j, end);
      }
    }
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float tile_largest = -INFINITY;
#pragma unroll
      for (int e = 0; e < 2; ++e) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          float& score = scores[j][2 * h + e];
          const bool seen = first + 8 * q + 4 * e + j <= position[h];
          score = seen ? score * keys[e][j] : -INFINITY;
          tile_largest = LargerOrNan(tile_largest, score);
        }
      }
      tile_largest = LargerOrNan(tile_largest, ShuffleXor(tile_largest, 1));
      tile_largest = LargerOrNan(tile_largest, ShuffleXor(tile_largest, 2));
      const float now = LargerOrNan(largest[h], tile_largest);
      const float from = now == -INFINITY ? 0.0f : now;  // the query sees nothing yet
      const float keep = exp2f(largest[h] - from);
      largest[h] = now;
      float tile_sum = 0;
#pragma unroll
      for (int e = 0; e < 2; ++e) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          float& score = scores[j][2 * h + e];
          score = exp2f(score - from);
          tile_sum = __fadd_rn(tile_sum, score);
        }
      }
      tile_sum = __fadd_rn(tile_sum, ShuffleXor(tile_sum, 1));
      tile_sum = __fadd_rn(tile_sum, ShuffleXor(tile_sum, 2));
      sum[h] = __fadd_rn(__fmul_rn(sum[h], keep), tile_sum);
#pragma unroll
      for (int c = 0; c < kChunks; ++c) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          values[c][j][2 * h] *= keep;
          values[c][j][2 * h + 1] *= keep;
        }
      }
    }
  }

  // values += weights * the values of the tile's tokens: column g of the j-th product of a chunk is
  // element 4 g + j. Tokens from `end` on may hold anything.
  __device__ void AddValues(int32_t first, int32_t end, const float (&weights)[4][4]) {
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const int32_t token = first + 8 * q + 4 * e;
      const bool is_there = token < end;
      float scaled[4][2];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const float scale = TokenScale(a.cache.value_offset, token + j, end);
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          const float weight = weights[j][2 * h + e];
          // A number that is not finite in the scale of a token that the query does not see.
          scaled[j][h] = weight == 0 ? 0.0f : weight * scale;
        }
      }
      const uint32_t rows[4] = {
          Pair<T>(scaled[0][0], scaled[1][0]), Pair<T>(scaled[0][1], scaled[1][1]),
          Pair<T>(scaled[2][0], scaled[3][0]), Pair<T>(scaled[2][1], scaled[3][1])};
      const char* head = is_there ? Head(token, a.cache.value_offset) : nullptr;
      const int32_t pair = token % a.cache.block_tokens / 2;
      const uint32_t low_mask = (is_there ? 0xffffu : 0) | (token + 1 < end ? 0xffff0000u : 0);
      const uint32_t high_mask =
          (token + 2 < end ? 0xffffu : 0) | (token + 3 < end ? 0xffff0000u : 0);
#pragma unroll
      for (int c = 0; c < kChunks; ++c) {
        uint32_t low[4], high[4];
        Clear(low);
        Clear(high);
        if (is_there) {
          LoadPairs<kDType>(head, kDim, pair, 32 * c + 4 * g, low);
          LoadPairs<kDType>(head, kDim, pair + 1, 32 * c + 4 * g, high);
        }
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          MultiplyAdd<T>(values[c][j], rows, low[j] & low_mask, high[j] & high_mask);
        }
      }
    }
  }

  __device__ void AddSegment(int32_t first_token, int32_t end_token) {
    ClearSoftmax();
    for (int32_t first = first_token; first < end_token; first += kTile) {
      float scores[4][4];
      Score(first, end_token, scores);
      Weigh(first, end_token, scores);
      AddValues(first, end_token, scores);
    }
  }

  __device__ void StorePartial(int32_t segment) const {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      if (position[h] < segment * kSegmentTokens) continue;
      float* to =
          Partial(a, vector[h] / a.heads, static_cast<int32_t>(vector[h] % a.heads), segment);
      if (q == 0) {
        to[0] = largest[h];
        to[1] = sum[h];
      }
#pragma unroll
      for (int c = 0; c < kChunks; ++c) {
#pragma unroll
        for (int i = 0; i < 8; ++i) to[2 + 32 * c + 8 * q + i] = values[c][i % 4][2 * h + i / 4];
      }
    }
  }
};

// The softmaxes of a warp's queries so far: sums in each lane, values in shared memory, which only
// the lane itself uses.
template <KvDType kDType, int kChunks>
struct Total {
  float largest[2], sum[2];
  float* values;  // [element of the lane][32 lanes]

  __device__ explicit Total(float* memory)
      : values(memory + (threadIdx.x / 32 * 16 * kChunks) * 32 + threadIdx.x % 32) {
    for (int h = 0; h < 2; ++h) {
      largest[h] = -INFINITY;
      sum[h] = 0;
    }
    for (int i = 0; i < 16 * kChunks; ++i) values[32 * i] = 0;
  }

  __device__ void Add(const Lane<kDType, kChunks>& part, int32_t first_token) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      if (part.position[h] < first_token) continue;
      const MergeFactors factors = MergeSums(largest[h], sum[h], part.largest[h], part.sum[h]);
#pragma unroll
      for (int c = 0; c < kChunks; ++c) {
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          float& value = values[32 * ((h * kChunks + c) * 8 + i)];
          value = MergeValue(value, part.values[c][i % 4][2 * h + i / 4], factors);
        }
      }
    }
  }

  __device__ void Store(const Lane<kDType, kChunks>& lane) const {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      if (lane.position[h] < 0) continue;
      float* to = lane.a.out + lane.vector[h] * 32 * kChunks + 8 * lane.q;
#pragma unroll
      for (int c = 0; c < kChunks; ++c) {
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          to[32 * c + i] = __fdiv_rn(values[32 * ((h * kChunks + c) * 8 + i)], sum[h]);
        }
      }
    }
  }
};

// grid: y kv heads; x groups of kWarps tiles, or, split, x tiles and z groups of kWarps segments.
template <KvDType kDType, int kChunks>
__global__ void TensorAttentionKernel(AttentionArguments a) {
  BATON_SHARED_FLOATS(memory);
  const auto warp = static_cast<int32_t>(threadIdx.x / 32);
  const bool split = a.partials != nullptr;
  const int64_t tile = split ? blockIdx.x : int64_t{blockIdx.x} * kWarps + warp;
  if (tile >= a.tile_count) return;
  Lane<kDType, kChunks> lane(a, tile, static_cast<int32_t>(blockIdx.y));
  const int32_t end = lane.end();
  if (split) {
    const int32_t segment = static_cast<int32_t>(blockIdx.z) * kWarps + warp;
    const int32_t first = segment * kSegmentTokens;
    if (first >= end) return;
    lane.AddSegment(first, end < first + kSegmentTokens ? end : first + kSegmentTokens);
    lane.StorePartial(segment);
    return;
  }
  Total<kDType, kChunks> total(memory);
  for (int32_t first = 0; first < end; first += kSegmentTokens) {
    lane.AddSegment(first, end < first + kSegmentTokens ? end : first + kSegmentTokens);
    total.Add(lane, first);
  }
  total.Store(lane);
}

constexpr int TotalBytes(int chunks) { return kWarps * 16 * chunks * 32 * 4; }

template <KvDType kDType, int kChunks>
void Launch(const AttentionArguments& a, Stream stream) {
  const auto groups_of = [](int32_t count) {
    return static_cast<uint32_t>((count + kWarps - 1) / kWarps);
  };
  const bool split = a.partials != nullptr;
  const dim3 grid(split ? static_cast<uint32_t>(a.tile_count) : groups_of(a.tile_count),
                  static_cast<uint32_t>(a.cache.kv_heads), split ? groups_of(a.segments) : 1u);
  BATON_LAUNCH((TensorAttentionKernel<kDType, kChunks>), grid, kWarps * 32,
               static_cast<size_t>(split ? 0 : TotalBytes(kChunks)), stream, a);
}

template <KvDType kDType>
void LaunchOf(const AttentionArguments& a, Stream stream) {
  switch (a.cache.head_dim) {
    case 32:
      return Launch<kDType, 1>(a, stream);
    case 64:
      return Launch<kDType, 2>(a, stream);
    case 128:
      return Launch<kDType, 4>(a, stream);
    default:
      return Launch<kDType, 8>(a, stream);
  }
}

template <KvDType kDType>
bool Allow() {
  return cudaFuncSetAttribute(TensorAttentionKernel<kDType, 8>,
                              cudaFuncAttributeMaxDynamicSharedMemorySize,
                              TotalBytes(8)) == cudaSuccess;
}

}  // namespace

bool UsesTensorCores(const Cache& cache) {
  const int32_t dim = cache.head_dim;
  return cache.dtype != KvDType::kF32 && (dim == 32 || dim == 64 || dim == 128 || dim == 256);
}

bool AllowTensorAttention() {
  return Allow<KvDType::kF16>() && Allow<KvDType::kBF16>() && Allow<KvDType::kInt8>() &&
         Allow<KvDType::kFp8>();
}

void LaunchTensorAttention(const AttentionArguments& arguments, Stream stream) {
  switch (arguments.cache.dtype) {
    case KvDType::kF32:
      return;  // the other kernel's
    case KvDType::kF16:
      return LaunchOf<KvDType::kF16>(arguments, stream);
    case KvDType::kBF16:
      return LaunchOf<KvDType::kBF16>(arguments, stream);
    case KvDType::kInt8:
      return LaunchOf<KvDType::kInt8>(arguments, stream);
    case KvDType::kFp8:
      return LaunchOf<KvDType::kFp8>(arguments, stream);
  }
}

}  // namespace baton::kernels::cuda
