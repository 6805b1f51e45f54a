// Paged attention in float, for the caches and heads that attention_tensor.cu leaves. A block takes
// up to kQueryTile queries that share a kv head, brings tiles of 32 keys and values to shared
// memory, and keeps an online softmax for each query. A query's arithmetic is its own: tiles at
// fixed positions, segments of kSegmentTokens merged in order, whether one block does all of them
// or one each.

#include "kernels/cuda/kv_element.cuh"
#include "kernels/cuda/softmax.cuh"

namespace baton::kernels::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * 32;
constexpr int kTile = 32;
constexpr int kQueries = kQueryTile / kWarps;  // of a warp

// Lane i holds elements i, i + 32, ...
template <int kElements>
struct Softmax {
  float largest;
  float sum;
  float values[kElements];

  __device__ void Clear() {
    largest = -INFINITY;
    sum = 0;
#pragma unroll
    for (int e = 0; e < kElements; ++e) values[e] = 0;
  }
};

template <int kElements>
__device__ void Merge(Softmax<kElements>& total, const Softmax<kElements>& next) {
  const MergeFactors factors = MergeSums(total.largest, total.sum, next.largest, next.sum);
#pragma unroll
  for (int e = 0; e < kElements; ++e) {
    total.values[e] = MergeValue(total.values[e], next.values[e], factors);
  }
}

struct SharedTiles {
  float* queries;  // [kQueryTile][dim]
  float* keys;     // [kTile][dim + 1]: lanes read different tokens of one element
  float* values;   // [kTile][dim]
  float* weights;  // [kQueryTile][kTile]
};

__device__ SharedTiles Divide(float* memory, int32_t dim) {
  float* keys = memory + kQueryTile * dim;
  float* values = keys + kTile * (dim + 1);
  return {memory, keys, values, values + kTile * dim};
}

// Tokens [first, first + kTile), those from `end` on as zeros: their slots may hold anything.
__device__ void LoadKeysAndValues(const AttentionArguments& a, const QueryTile& tile,
                                  int32_t kv_head, int32_t first, int32_t end,
                                  const SharedTiles& shared) {
  const Cache& cache = a.cache;
  const int32_t dim = cache.head_dim;
  const int64_t key_plane = cache.key_offset + kv_head * cache.head_bytes;
  const int64_t value_plane = cache.value_offset + kv_head * cache.head_bytes;
  for (int32_t i = threadIdx.x; i < kTile * dim; i += kThreads) {
    {
      const int32_t token = i % kTile;
      const int32_t element = i / kTile;
      float key = 0;
      if (first + token < end) {
        const int64_t block = a.tables[tile.table + (first + token) / cache.block_tokens];
        const int32_t in_block = (first + token) % cache.block_tokens;
        const char* head = a.slab + block * cache.block_bytes + key_plane;
        key = LoadKvScale(cache, head, in_block) *
              LoadKvElement(cache, head, KeyIndex(cache, in_block, element));
      }
      shared.keys[token * (dim + 1) + element] = key;
    }
    {
      const int32_t token = i / dim;
      const int32_t element = i % dim;
      float value = 0;
      if (first + token < end) {
        const int64_t block = a.tables[tile.table + (first + token) / cache.block_tokens];
        const int32_t in_block = (first + token) % cache.block_tokens;
        const char* head = a.slab + block * cache.block_bytes + value_plane;
        value = LoadKvScale(cache, head, in_block) *
                LoadKvElement(cache, head, ValueIndex(cache, in_block, element));
      }
      shared.values[token * dim + element] = value;
    }
  }
}

// One query over the tile from `first` on, of which it sees positions up to its own: at least one.
template <int kElements>
__device__ void AddTile(const SharedTiles& shared, int query, int32_t dim, float scale,
                        int32_t first, int32_t position, Softmax<kElements>& softmax) {
  const int lane = threadIdx.x % 32;
  const float* q = shared.queries + query * dim;
  const float* key = shared.keys + lane * (dim + 1);
  float score = 0;
  for (int32_t d = 0; d < dim; ++d) score = fmaf(q[d], key[d], score);
  const bool seen = first + lane <= position;
  score = seen ? score * scale : -INFINITY;
  const float largest = LargerOrNan(softmax.largest, WarpMax(score));
  const float keep = exp2f(softmax.largest - largest);
  const float weight = seen ? exp2f(score - largest) : 0.0f;
  softmax.sum = fmaf(softmax.sum, keep, WarpSum(weight));
  softmax.largest = largest;
  float* weights = shared.weights + query * kTile;
  __syncwarp();  // the tile before has been read
  weights[lane] = weight;
  __syncwarp();
#pragma unroll
  for (int e = 0; e < kElements; ++e) softmax.values[e] *= keep;
  const int32_t tokens = position - first + 1 < kTile ? position - first + 1 : kTile;
  for (int32_t t = 0; t < tokens; ++t) {
    const float* value = shared.values + t * dim;
#pragma unroll
    for (int e = 0; e < kElements; ++e) {
      const int32_t d = lane + 32 * e;
      if (d < dim) softmax.values[e] = fmaf(weights[t], value[d], softmax.values[e]);
    }
  }
}

// grid: x tiles, y kv heads, z segments where there are partials.
template <int kElements>
__global__ void AttentionKernel(AttentionArguments a) {
  BATON_SHARED_FLOATS(memory);
  const int32_t dim = a.cache.head_dim;
  const SharedTiles shared = Divide(memory, dim);
  const QueryTile tile = a.tiles[blockIdx.x];
  const auto kv_head = static_cast<int32_t>(blockIdx.y);
  const int32_t group = a.heads / a.cache.kv_heads;
  const int32_t end = tile.first_position + (tile.first + tile.count - 1) / group + 1;
  const bool split = a.partials != nullptr;
  const int32_t segments = (end + kSegmentTokens - 1) / kSegmentTokens;
  const int32_t first_segment = split ? static_cast<int32_t>(blockIdx.z) : 0;
  const int32_t end_segment = split ? first_segment + 1 : segments;
  if (first_segment >= segments) return;  // the whole block

  for (int32_t i = threadIdx.x; i < tile.count * dim; i += kThreads) {
    const int32_t query = tile.first + i / dim;
    const int64_t row = tile.first_row + query / group;
    const int32_t head = kv_head * group + query % group;
    shared.queries[i] = a.q[(row * a.heads + head) * dim + i % dim];
  }
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  Softmax<kElements> total[kQueries];
#pragma unroll
  for (int r = 0; r < kQueries; ++r) total[r].Clear();

  for (int32_t segment = first_segment; segment < end_segment; ++segment) {
    Softmax<kElements> part[kQueries];
#pragma unroll
    for (int r = 0; r < kQueries; ++r) part[r].Clear();
    const int32_t first_token = segment * kSegmentTokens;
    const int32_t end_token =
        end < first_token + kSegmentTokens ? end : first_token + kSegmentTokens;
    for (int32_t first = first_token; first < end_token; first += kTile) {
      __syncthreads();
      LoadKeysAndValues(a, tile, kv_head, first, end_token, shared);
      __syncthreads();
#pragma unroll
      for (int r = 0; r < kQueries; ++r) {
        const int query = warp * kQueries + r;
        const int32_t position = tile.first_position + (tile.first + query) / group;
        if (query < tile.count && first <= position) {
          AddTile(shared, query, dim, a.scale * kLog2E, first, position, part[r]);
        }
      }
    }
#pragma unroll
    for (int r = 0; r < kQueries; ++r) {
      const int query = warp * kQueries + r;
      const int32_t position = tile.first_position + (tile.first + query) / group;
      if (query >= tile.count || first_token > position) continue;
      if (!split) {
        Merge(total[r], part[r]);
        continue;
      }
      const int64_t row = tile.first_row + (tile.first + query) / group;
      float* to = Partial(a, row, kv_head * group + (tile.first + query) % group, segment);
      if (lane == 0) {
        to[0] = part[r].largest;
        to[1] = part[r].sum;
      }
#pragma unroll
      for (int e = 0; e < kElements; ++e) {
        if (lane + 32 * e < dim) to[2 + lane + 32 * e] = part[r].values[e];
      }
    }
  }
  if (split) return;
#pragma unroll
  for (int r = 0; r < kQueries; ++r) {
    const int query = warp * kQueries + r;
    if (query >= tile.count) continue;
    const int64_t row = tile.first_row + (tile.first + query) / group;
    float* to = a.out + (row * a.heads + kv_head * group + (tile.first + query) % group) * dim;
#pragma unroll
    for (int e = 0; e < kElements; ++e) {
      if (lane + 32 * e < dim) to[lane + 32 * e] = __fdiv_rn(total[r].values[e], total[r].sum);
    }
  }
}

// One warp a row and head.
template <int kElements>
__global__ void MergeSegmentsKernel(AttentionArguments a) {
  const auto row = static_cast<int64_t>(blockIdx.x);
  const auto head = static_cast<int32_t>(blockIdx.y);
  const int32_t dim = a.cache.head_dim;
  const int lane = threadIdx.x;
  const int32_t segments = a.places[row].position / kSegmentTokens + 1;
  Softmax<kElements> total;
  total.Clear();
  for (int32_t segment = 0; segment < segments; ++segment) {
    const float* from = Partial(a, row, head, segment);
    Softmax<kElements> part;
    part.largest = from[0];
    part.sum = from[1];
#pragma unroll
    for (int e = 0; e < kElements; ++e) {
      part.values[e] = lane + 32 * e < dim ? from[2 + lane + 32 * e] : 0.0f;
    }
    Merge(total, part);
  }
  float* to = a.out + (row * a.heads + head) * dim;
#pragma unroll
  for (int e = 0; e < kElements; ++e) {
    if (lane + 32 * e < dim) to[lane + 32 * e] = __fdiv_rn(total.values[e], total.sum);
  }
}

template <int kElements>
void LaunchFloats(const AttentionArguments& a, Stream stream) {
  const dim3 grid(static_cast<uint32_t>(a.tile_count), static_cast<uint32_t>(a.cache.kv_heads),
                  a.partials != nullptr ? static_cast<uint32_t>(a.segments) : 1u);
  BATON_LAUNCH(AttentionKernel<kElements>, grid, kThreads,
               static_cast<size_t>(AttentionSharedBytes(a.cache.head_dim)), stream, a);
}

template <int kElements>
bool Allow(int32_t shared_bytes) {
  return cudaFuncSetAttribute(AttentionKernel<kElements>,
                              cudaFuncAttributeMaxDynamicSharedMemorySize,
                              shared_bytes) == cudaSuccess;
}

}  // namespace

int32_t AttentionSharedBytes(int32_t head_dim) {
  return 4 *
         (kQueryTile * head_dim + kTile * (head_dim + 1) + kTile * head_dim + kQueryTile * kTile);
}

bool AllowAttention(int32_t shared_bytes) {
  return Allow<1>(shared_bytes) && Allow<2>(shared_bytes) && Allow<4>(shared_bytes) &&
         Allow<8>(shared_bytes) && AllowTensorAttention();
}

void LaunchAttention(const AttentionArguments& a, Stream stream) {
  const int32_t dim = a.cache.head_dim;
  if (UsesTensorCores(a.cache)) {
    LaunchTensorAttention(a, stream);
  } else if (dim <= 32) {
    LaunchFloats<1>(a, stream);
  } else if (dim <= 64) {
    LaunchFloats<2>(a, stream);
  } else if (dim <= 128) {
    LaunchFloats<4>(a, stream);
  } else {
    LaunchFloats<8>(a, stream);
  }
  if (a.partials == nullptr) return;
  const dim3 rows(static_cast<uint32_t>(a.rows), static_cast<uint32_t>(a.heads));
  if (dim <= 128) {
    BATON_LAUNCH(MergeSegmentsKernel<4>, rows, 32, 0, stream, a);
  } else {
    BATON_LAUNCH(MergeSegmentsKernel<8>, rows, 32, 0, stream, a);
  }
}

}  // namespace baton::kernels::cuda
