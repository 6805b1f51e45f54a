#include "kernels/cuda/kv_element.cuh"

namespace baton::kernels::cuda {
namespace {

constexpr int kWarps = 4;

// Calls visit(element, value) for this lane's elements of a rotated head vector. Roundings are the
// reference's: the compiler may not fuse. `rotary_dim` 0: as it is.
template <typename Visit>
__device__ void VisitRotated(const RopeArguments& a, int32_t position, int32_t rotary_dim,
                             const float* head, Visit visit) {
  const int lane = threadIdx.x % 32;
  const int32_t half = rotary_dim / 2;
  for (int32_t i = lane; i < half; i += 32) {
    const float cosine = a.cosine[int64_t{position} * half + i];
    const float sine = a.sine[int64_t{position} * half + i];
    const int32_t at_first = a.interleaved ? 2 * i : i;
    const int32_t at_second = a.interleaved ? 2 * i + 1 : i + half;
    const float first = head[at_first];
    const float second = head[at_second];
    visit(at_first, __fsub_rn(__fmul_rn(first, cosine), __fmul_rn(second, sine)));
    visit(at_second, __fadd_rn(__fmul_rn(first, sine), __fmul_rn(second, cosine)));
  }
  for (int32_t i = rotary_dim + lane; i < a.cache.head_dim; i += 32) visit(i, head[i]);
}

// One warp stores one key or value of one token.
__device__ void StoreVector(const RopeArguments& a, int32_t row, int32_t kv_head, bool key) {
  const Cache& cache = a.cache;
  const RowPlace place = a.places[row];
  const float* from =
      (key ? a.k : a.v) + (int64_t{row} * cache.kv_heads + kv_head) * cache.head_dim;
  const int64_t block = a.tables[place.table + place.position / cache.block_tokens];
  const int32_t token = place.position % cache.block_tokens;
  char* head = a.slab + block * cache.block_bytes + (key ? cache.key_offset : cache.value_offset) +
               kv_head * cache.head_bytes;
  const int32_t rotary_dim = key ? a.rotary_dim : 0;
  float to_number = 1;
  if (IsScaled(cache)) {
    float largest = 0;
    VisitRotated(a, place.position, rotary_dim, from,
                 [&](int32_t, float value) { largest = LargerOrNan(largest, fabsf(value)); });
    largest = WarpMax(largest);
    const float most = cache.dtype == KvDType::kInt8 ? 127.0f : 448.0f;
    const bool zero = largest < 1e-30f;
    to_number = zero ? 0.0f : __fdiv_rn(most, largest);
    if (threadIdx.x % 32 == 0)
      *KvScale(cache, head, token) = zero ? 0.0f : __fdiv_rn(largest, most);
  }
  VisitRotated(a, place.position, rotary_dim, from, [&](int32_t element, float value) {
    float number = __fmul_rn(value, to_number);
    if (IsScaled(cache) && number != number) number = 0;  // the scale spoils it
    const int64_t index = key ? KeyIndex(cache, token, element) : ValueIndex(cache, token, element);
    StoreKvElement(cache, head, index, number);
  });
}

// A warp for each query head, key head and value head of a row: x is the row.
__global__ void RopeAndStoreKvKernel(RopeArguments a) {
  const auto row = static_cast<int32_t>(blockIdx.x);
  const auto vector = static_cast<int32_t>(blockIdx.y * kWarps + threadIdx.x / 32);
  if (vector < a.heads) {
    // Each pair is read and written by one lane.
    float* head = a.q + (int64_t{row} * a.heads + vector) * a.cache.head_dim;
    VisitRotated(a, a.places[row].position, a.rotary_dim, head,
                 [&](int32_t element, float value) { head[element] = value; });
  } else if (vector < a.heads + 2 * a.cache.kv_heads) {
    const int32_t index = vector - a.heads;
    StoreVector(a, row, index % a.cache.kv_heads, index < a.cache.kv_heads);
  }
}

}  // namespace

void LaunchRopeAndStoreKv(const RopeArguments& arguments, Stream stream) {
  const int32_t vectors = arguments.heads + 2 * arguments.cache.kv_heads;
  const dim3 grid(static_cast<uint32_t>(arguments.rows),
                  static_cast<uint32_t>((vectors + kWarps - 1) / kWarps));
  BATON_LAUNCH(RopeAndStoreKvKernel, grid, kWarps * 32, 0, stream, arguments);
}

}  // namespace baton::kernels::cuda
