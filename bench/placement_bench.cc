#include "bench/placement_bench.h"

#include <vector>

#include "router/placement.h"

namespace baton::bench {

using router::Placed;
using router::WorkerSnapshot;

double PlacementMicroseconds(int32_t workers, const Repeats& repeats) {
  std::vector<WorkerSnapshot> fleet(static_cast<size_t>(workers));
  for (int32_t i = 0; i < workers; ++i) {
    WorkerSnapshot& worker = fleet[static_cast<size_t>(i)];
    worker.id = static_cast<router::WorkerId>(i);
    worker.role = i % 4 == 0 ? worker_link::Role::kDecode : worker_link::Role::kPrefill;
    worker.fingerprint = "llama 4096x32 bf16 avx512 1f0c2a9b33d84e57";
    worker.kv_layout = "block 16 f16 heads 8x128 layers 32";
    worker.connected = true;
    worker.requests = i * 7919 % 64;
    worker.prompt_tokens_queued = i * 104729 % 8192;
    worker.blocks_total = 100000;
    worker.blocks_available = 100000 - i * 31 % 5000;
    worker.block_tokens = 16;
    worker.kv_bytes_per_token = 131072;
    worker.prefill_tokens_per_s = 20000;
    worker.kv_bytes_per_s = 1e10;
  }
  router::PlacementRequest request;
  request.prompt_tokens = 2000;
  request.affinity = {router::WorkerId{1}, router::WorkerId{0}, 1024};
  return MedianSeconds(repeats,
                       [&] {
                         const router::Placement placement = Place(fleet, request);
                         const auto* placed = std::get_if<Placed>(&placement);
                         if (placed == nullptr) return;
                         ++fleet[placed->decode].requests;
                         if (placed->prefill) fleet[*placed->prefill].prompt_tokens_queued += 2000;
                       }) *
         1e6;
}

}  // namespace baton::bench
