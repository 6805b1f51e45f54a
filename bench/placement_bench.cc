#include "bench/placement_bench.h"

#include <algorithm>
#include <numeric>
#include <random>
#include <vector>

#include "router/placement.h"
#include "router/prefix_index.h"

namespace baton::bench {
namespace {

using router::Placed;
using router::WorkerSnapshot;

constexpr int32_t kChainTokens = 16;
constexpr int32_t kPromptTokens = 2000;
constexpr int32_t kIndexed = 4'000'000;
constexpr int32_t kCommonBlocks = 32;
constexpr int32_t kLongestBlocks = 96;

std::vector<WorkerSnapshot> MakeFleet(int32_t workers) {
  std::vector<WorkerSnapshot> fleet(static_cast<size_t>(workers));
  for (int32_t i = 0; i < workers; ++i) {
    WorkerSnapshot& worker = fleet[static_cast<size_t>(i)];
    worker.id = static_cast<router::WorkerId>(i);
    worker.role = i % 4 == 0 ? worker_link::Role::kDecode : worker_link::Role::kPrefill;
    worker.fingerprint = "llama 4096x32 bf16 avx512 1f0c2a9b33d84e57";
    worker.kv_layout = "block 16 f16 heads 8x128 layers 32";
    worker.connected = true;
    worker.requests = i * 7919 % 64;
    worker.context_tokens = worker.requests * int64_t{1500};
    worker.slowness = 1 + i % 8 / 8.0;
    worker.prompt_tokens_queued = i * 104729 % 8192;
    worker.blocks_total = 100000;
    worker.blocks_available = 100000 - i * 31 % 5000;
    worker.block_tokens = kChainTokens;
    worker.kv_bytes_per_token = 131072;
    worker.prefill_tokens_per_s = 20000;
    worker.kv_bytes_per_s = 1e10;
  }
  return fleet;
}

void FillIndex(int32_t workers, router::PromptChain& chain, router::PrefixIndex* index) {
  std::mt19937_64 random(1);
  const auto others = std::min(static_cast<size_t>(kIndexed / workers), BlockJournal::kMaxKeys);
  for (int32_t i = 0; i < workers; ++i) {
    BlockNews news{.number = 1, .restart = true};
    std::vector<BlockChange>& held = news.changes[static_cast<size_t>(CacheTier::kMemory)];
    for (int32_t place = 1; place <= (i < 2 ? kLongestBlocks : kCommonBlocks); ++place) {
      held.push_back(chain.KeyAt(place) | kHeldBit);
    }
    while (held.size() < others) held.push_back((random() & ~BlockKey{15}) | kHeldBit);
    index->Apply(static_cast<router::WorkerId>(i), news);
  }
}

}  // namespace

double PlacementMicroseconds(int32_t workers, const Repeats& repeats) {
  std::vector<WorkerSnapshot> fleet = MakeFleet(workers);
  std::vector<TokenId> prompt(kPromptTokens);
  std::iota(prompt.begin(), prompt.end(), 0);
  const router::ChainKind kind{"llama", kChainTokens};
  router::PrefixIndex index(router::PrefixIndex::kDefaultEntries);
  router::PromptChain names(kind, "", prompt);
  FillIndex(workers, names, &index);
  router::HeldPrefixes held;
  return MedianSeconds(repeats,
                       [&] {
                         held.Clear();
                         router::PromptChain chain(kind, "", prompt);
                         index.Find(chain, &held);
                         router::PlacementRequest request;
                         request.prompt_tokens = kPromptTokens;
                         request.held = held.all();
                         request.decode_step = {
                             .step_s = 8e-3, .sequence_s = 1e-4, .context_token_s = 5e-8};
                         const router::Placement placement = Place(fleet, request);
                         const auto* placed = std::get_if<Placed>(&placement);
                         if (placed == nullptr) return;
                         ++fleet[placed->decode].requests;
                         if (placed->prefill) {
                           fleet[*placed->prefill].prompt_tokens_queued += placed->compute_tokens;
                         }
                       }) *
         1e6;
}

}  // namespace baton::bench
