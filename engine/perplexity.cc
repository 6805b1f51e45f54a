#include "engine/perplexity.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "common/status_macros.h"
#include "engine/softmax.h"

namespace baton::engine {
namespace {

// -ln(softmax(logits)[target]); not finite when the logits are not. `scratch`: [vocab].
double NegativeLogLikelihood(std::span<const float> logits, TokenId target,
                             std::span<float> scratch) {
  const float best = FindBest(logits).value;
  return best + std::log(SoftmaxWeights(logits, best, 1, scratch)) - logits[target];
}

absl::Status Check(const Model& model, std::span<const TokenId> tokens, int32_t window_tokens) {
  const ModelConfig& config = model.config();
  if (window_tokens < 2 || window_tokens > config.context) {
    return absl::InvalidArgumentError(
        fmt::format("a window of {} tokens is not in [2, {}]", window_tokens, config.context));
  }
  if (tokens.size() < 2) {
    return absl::InvalidArgumentError(
        fmt::format("{} tokens cannot be scored: at least 2 are needed", tokens.size()));
  }
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < 0 || tokens[i] >= config.vocab) {
      return absl::InvalidArgumentError(
          fmt::format("token {} is {}, vocabulary is [0, {})", i, tokens[i], config.vocab));
    }
  }
  return absl::OkStatus();
}

// The sum of the negative log likelihoods of window[1..].
double ScoreWindow(Model* model, const BlockPool& pool, const BlockTable& table,
                   std::span<const TokenId> window) {
  const auto vocab = static_cast<size_t>(model->config().vocab);
  const int32_t chunk_tokens = std::min(model->max_rows(), model->max_logit_rows());
  std::vector<int32_t> all_rows(static_cast<size_t>(chunk_tokens));
  std::iota(all_rows.begin(), all_rows.end(), 0);
  const auto inputs = static_cast<int32_t>(window.size()) - 1;  // the last token is only a target
  std::vector<float> scratch(vocab);
  double sum = 0;
  for (int32_t first = 0; first < inputs; first += chunk_tokens) {
    const int32_t rows = std::min(chunk_tokens, inputs - first);
    const kernels::SequenceRows sequence{table.blocks(), first, 0, rows};
    const ForwardBatch batch{
        window.subspan(first, rows), {&sequence, 1}, std::span(all_rows).first(rows)};
    const std::span<const float> logits = model->Forward(batch, pool.layout(), pool.slab());
    for (int32_t row = 0; row < rows; ++row) {
      sum += NegativeLogLikelihood(logits.subspan(row * vocab, vocab), window[first + row + 1],
                                   scratch);
    }
  }
  return sum;
}

}  // namespace

absl::StatusOr<PerplexityResult> Perplexity(Model* model, BlockPool* pool,
                                            std::span<const TokenId> tokens, int32_t window_tokens,
                                            const std::function<void(double)>& progress) {
  BATON_RETURN_IF_ERROR(Check(*model, tokens, window_tokens));
  const size_t longest = std::min(tokens.size(), static_cast<size_t>(window_tokens));
  BlockTable table;
  BATON_RETURN_IF_ERROR(
      pool->Extend(&table, pool->layout().BlocksFor(static_cast<int64_t>(longest))));
  PerplexityResult result;
  double sum = 0;
  for (size_t first = 0; first + 1 < tokens.size(); first += static_cast<size_t>(window_tokens)) {
    const size_t count = std::min(longest, tokens.size() - first);
    sum += ScoreWindow(model, *pool, table, tokens.subspan(first, count));
    result.scored_tokens += static_cast<int64_t>(count) - 1;
    if (!std::isfinite(sum)) {
      return absl::InternalError(
          fmt::format("the model's logits are not finite in the window of tokens [{}, {})", first,
                      first + count));
    }
    if (progress) {
      progress(static_cast<double>(first + count) / static_cast<double>(tokens.size()));
    }
  }
  result.mean_nll = sum / static_cast<double>(result.scored_tokens);
  return result;
}

}  // namespace baton::engine
