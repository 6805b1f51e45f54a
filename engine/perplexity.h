#pragma once

// How well a model predicts a text: the measure behind `baton eval`.

#include <cstdint>
#include <functional>
#include <span>

#include "absl/status/statusor.h"
#include "engine/block_pool.h"
#include "engine/model.h"

namespace baton::engine {

struct PerplexityResult {
  double mean_nll = 0;  // nats per scored token; perplexity is e to this
  int64_t scored_tokens = 0;
};

// Mean negative log likelihood of `tokens` in windows of `window_tokens` that do not overlap. Each
// window is computed from an empty context, without BOS; its first token has nothing before it and
// is not scored. The last window may be shorter; it is scored when it has at least 2 tokens.
//
// Uses `pool` (with blocks for one window free) for the time of the call, and the model's device
// thread. `progress` is called with the share of tokens done. InvalidArgument for windows outside
// [2, context], fewer than 2 tokens, and tokens outside the vocabulary; Internal when the model
// gives logits that are not finite.
absl::StatusOr<PerplexityResult> Perplexity(Model* model, BlockPool* pool,
                                            std::span<const TokenId> tokens, int32_t window_tokens,
                                            const std::function<void(double)>& progress = nullptr);

}  // namespace baton::engine
