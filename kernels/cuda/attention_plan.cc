#include "kernels/cuda/launch.h"

namespace baton::kernels::cuda {
namespace {

// Where the softmaxes of segments need more, one block does all segments of its queries.
constexpr int64_t kMostPartialBytes = int64_t{64} << 20;
constexpr int32_t kMostSegments = 65'535;
// Enough for their loads to keep the memory busy.
constexpr int64_t kWarpsWanted = 16;

}  // namespace

bool SplitsAttention(int32_t tile_count, int32_t kv_heads, int32_t segments, int64_t partial_bytes,
                     int32_t multiprocessors) {
  return segments > 1 && segments <= kMostSegments && partial_bytes <= kMostPartialBytes &&
         int64_t{tile_count} * kv_heads < kWarpsWanted * multiprocessors;
}

}  // namespace baton::kernels::cuda
