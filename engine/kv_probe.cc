#include "engine/kv_probe.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "common/checksum.h"
#include "common/status_macros.h"

namespace baton::engine {
namespace {

constexpr int32_t kMostProbeBlocks = 4;
constexpr int32_t kStride = 7919;  // a prime: tokens from all over the vocabulary

}  // namespace

absl::StatusOr<uint64_t> ProbeKv(Executor* executor) {
  const ModelConfig& config = executor->model().config();
  const BlockPool& pool = executor->pool();
  const kernels::KvLayout& layout = pool.layout();
  // Whole blocks, whose every byte is written, that fit the context with one token more.
  const int32_t blocks =
      std::min({kMostProbeBlocks, pool.counts().total, (config.context - 1) / layout.block_tokens});
  if (blocks < 1) return 0;
  std::vector<TokenId> tokens(static_cast<size_t>(blocks * layout.block_tokens));
  for (size_t i = 0; i < tokens.size(); ++i) {
    tokens[i] = static_cast<TokenId>(static_cast<int64_t>(i + 1) * kStride % config.vocab);
  }
  // All but the first token are said to be output, which is not published.
  const auto output = static_cast<int32_t>(tokens.size()) - 1;
  SamplingParams sampling;
  sampling.temperature = 0;
  sampling.max_tokens = output + 1;
  BATON_ASSIGN_OR_RETURN(Sequence sequence,
                         executor->NewSequence(std::move(tokens), sampling, "", output));
  sequence.publish_output = false;
  BATON_RETURN_IF_ERROR(executor->Reserve(&sequence, sequence.pending()));
  const int32_t most_rows = executor->model().max_rows();
  const std::function<void(int32_t)> kv_stored = [](int32_t) {};  // so that the slab has it
  for (int32_t left = sequence.pending(); left > 0;) {
    const StepRange range{.sequence = &sequence, .tokens = std::min(left, most_rows)};
    executor->Step({&range, 1}, &kv_stored);
    left -= range.tokens;
  }
  const auto block_bytes = static_cast<size_t>(layout.block_bytes());
  std::vector<uint64_t> checksums;
  for (const int32_t block : sequence.blocks.blocks().first(static_cast<size_t>(blocks))) {
    checksums.push_back(Checksum(
        {executor->pool().slab() + static_cast<size_t>(block) * block_bytes, block_bytes}));
  }
  return Checksum(std::as_bytes(std::span(checksums)));
}

}  // namespace baton::engine
