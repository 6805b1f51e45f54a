#include "decode_worker/scheduler.h"

#include <algorithm>

namespace baton::decode_worker {

std::vector<engine::PlannedRange> PlanBatch(std::span<const RunningView> running,
                                            const Limits& limits) {
  std::vector<size_t> decoding;  // those that have waited longest first
  const RunningView* oldest_prefill = nullptr;
  for (size_t i = 0; i < running.size(); ++i) {
    if (running[i].decoding) {
      decoding.push_back(i);
    } else if (oldest_prefill == nullptr && running[i].pending > 0) {
      oldest_prefill = &running[i];
    }
  }
  std::stable_sort(decoding.begin(), decoding.end(), [&](size_t a, size_t b) {
    return running[a].served_step < running[b].served_step;
  });
  auto places = static_cast<size_t>(limits.max_batch);
  if (oldest_prefill != nullptr && !decoding.empty()) {
    // With a single place, the two kinds take turns.
    const bool prefill_turn = oldest_prefill->served_step < running[decoding.front()].served_step;
    if (places > 1 || prefill_turn) --places;
  }
  decoding.resize(std::min(decoding.size(), places));

  std::vector<engine::PlanSequence> sequences(running.size());
  for (size_t i = 0; i < running.size(); ++i) {
    if (!running[i].decoding) sequences[i] = {.pending = running[i].pending, .decoding = false};
  }
  for (const size_t i : decoding) sequences[i] = {.pending = 1, .decoding = true};
  return engine::PlanStep(sequences, {.max_rows = limits.chunk_tokens + limits.max_batch,
                                      .chunk_tokens = limits.chunk_tokens,
                                      .max_sequences = limits.max_batch});
}

bool MayJoin(int32_t blocks, int32_t available, int32_t running) {
  return int64_t{blocks} + running <= available;
}

}  // namespace baton::decode_worker
