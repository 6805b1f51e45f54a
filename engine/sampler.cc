#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "common/status_macros.h"
#include "engine/random.h"
#include "engine/softmax.h"
#include "engine/watermark.h"

namespace baton::engine {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();
constexpr float kLargest = std::numeric_limits<float>::max();
constexpr size_t kReservedMasks = 1024;  // more than end and stop tokens and bad words together

// The index of the first weight with which the running sum exceeds `mass`, of which `mass` is then
// what that weight has of it; the last weight above 0, all of it, should rounding eat it.
template <typename Weights, typename Projection>
size_t Pick(const Weights& weights, Projection weight_of, double& mass) {
  size_t last = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    const double weight = std::invoke(weight_of, weights[i]);
    if (mass - weight < 0) return i;
    mass -= weight;
    if (weight > 0) last = i;
  }
  mass = std::numeric_limits<double>::infinity();
  return last;
}

}  // namespace

Sampler::Sampler(int32_t vocab_size)
    : weights_(static_cast<size_t>(vocab_size)), counts_(static_cast<size_t>(vocab_size)) {
  candidates_.reserve(counts_.size());
  masked_.reserve(kReservedMasks);
  block_sums_.reserve(counts_.size() / kSoftmaxBlock + 1);
}

bool HasPenalties(const SamplingParams& params) {
  return params.repetition_penalty != 1 || params.presence_penalty != 0 ||
         params.frequency_penalty != 0;
}

OutputToken Sampler::Sample(std::span<float> logits, const SamplingParams& params,
                            std::span<const TokenId> prompt, std::span<const TokenId> output,
                            std::span<const TokenId> end_tokens, TokenConstraint* constraint) {
  BATON_CHECK(logits.size() == counts_.size(), "there is a logit for every token");
  masked_.clear();
  for (const auto& [token, bias] : params.logit_bias) logits[token] += bias;
  if (params.watermark && !(prompt.empty() && output.empty())) {
    ApplyWatermark(output.empty() ? prompt.back() : output.back(), logits);
  }
  if (HasPenalties(params)) ApplyPenalties(logits, params, prompt, output);
  if (constraint != nullptr) {
    ApplyConstraint(logits, constraint->After(output), end_tokens, params.ignore_eos);
  }
  if (!params.allowed_token_ids.empty()) KeepOnly(params.allowed_token_ids, logits);
  if (output.size() < static_cast<size_t>(params.min_tokens)) {
    if (!params.ignore_eos) {
      for (const TokenId token : end_tokens) Mask(logits, token);
    }
    for (const TokenId token : params.stop_token_ids) Mask(logits, token);
  }
  MaskBadWords(logits, params.bad_words, output);

  BestLogit best = FindBest(logits);
  if (best.value == kMinusInfinity && !masked_.empty()) {
    Unmask(logits);
    best = FindBest(logits);
  }
  OutputToken result;
  result.token = best.index;
  result.position = static_cast<int32_t>(output.size());
  if (params.temperature == 0 && params.logprobs < 0) return result;
  if (best.value == kMinusInfinity) {
    result.logprob = -kLargest;
    return result;
  }
  if (best.value > kLargest) {
    best.value = kLargest;
    for (float& logit : logits) logit = logit > kLargest ? kLargest : logit;
  }
  if (params.temperature > 0) {
    result.token = Draw(logits, best.value, params, UniformAt(params.seed, output.size()));
  }
  if (params.logprobs >= 0) FillLogprobs(logits, best.value, params.logprobs, &result);
  return result;
}

PromptScore Sampler::Score(std::span<const float> logits, TokenId token, int32_t top) {
  PromptScore score;
  score.token = token;
  const float logit = logits[static_cast<size_t>(token)];
  score.rank = 1 + static_cast<int32_t>(std::ranges::count_if(
                       logits, [logit](float other) { return other > logit; }));
  const float best = FindBest(logits).value;
  if (!(best > kMinusInfinity && best <= kLargest)) {
    score.logprob = -kLargest;
    return score;
  }
  OutputToken like;
  like.token = token;
  FillLogprobs(logits, best, top, &like);
  score.logprob = like.logprob;
  score.top = std::move(like.top);
  return score;
}

void Sampler::ApplyPenalties(std::span<float> logits, const SamplingParams& params,
                             std::span<const TokenId> prompt, std::span<const TokenId> output) {
  for (const TokenId token : output) ++counts_[token];
  const auto penalise_once = [&](TokenId token) {
    if (counts_[token] < 0) return;
    float& logit = logits[token];
    logit = logit > 0 ? logit / params.repetition_penalty : logit * params.repetition_penalty;
    if (counts_[token] > 0) {
      logit -= params.presence_penalty;
      logit -= params.frequency_penalty * static_cast<float>(counts_[token]);
    }
    counts_[token] = -1;  // done
  };
  for (const TokenId token : output) penalise_once(token);
  for (const TokenId token : prompt) penalise_once(token);
  for (const TokenId token : output) counts_[token] = 0;
  for (const TokenId token : prompt) counts_[token] = 0;
}

void Sampler::ApplyConstraint(std::span<float> logits, const TokenConstraint::Next& next,
                              std::span<const TokenId> end_tokens, bool ignore_eos) {
  uint64_t any = 0;
  for (const uint64_t word : next.allowed) any |= word;
  const bool may_end = (next.may_end && !ignore_eos) || any == 0;
  const auto is_end = [&](size_t token) {
    return may_end &&
           std::ranges::find(end_tokens, static_cast<TokenId>(token)) != end_tokens.end();
  };
  for (size_t begin = 0; begin < logits.size(); begin += 64) {
    const uint64_t word = begin / 64 < next.allowed.size() ? next.allowed[begin / 64] : 0;
    if (word == ~uint64_t{0}) continue;
    const size_t end = std::min(begin + 64, logits.size());
    for (size_t token = begin; token < end; ++token) {
      const bool allowed = (word >> (token - begin) & 1) != 0 || is_end(token);
      if (!allowed) logits[token] = kMinusInfinity;
    }
  }
}

void Sampler::KeepOnly(std::span<const TokenId> allowed, std::span<float> logits) {
  candidates_.clear();
  for (const TokenId token : allowed) candidates_.push_back({logits[token], token});
  std::ranges::fill(logits, kMinusInfinity);
  for (const Candidate& candidate : candidates_) logits[candidate.token] = candidate.value;
}

void Sampler::MaskBadWords(std::span<float> logits, const std::vector<std::vector<TokenId>>& words,
                           std::span<const TokenId> output) {
  for (const std::vector<TokenId>& word : words) {
    const std::span begun = std::span(word).first(word.size() - 1);
    if (begun.size() > output.size()) continue;
    if (std::ranges::equal(begun, output.last(begun.size()))) Mask(logits, word.back());
  }
}

void Sampler::Mask(std::span<float> logits, TokenId token) {
  masked_.push_back({logits[token], token});
  logits[token] = kMinusInfinity;
}

void Sampler::Unmask(std::span<float> logits) {
  for (; !masked_.empty(); masked_.pop_back()) {
    logits[masked_.back().token] = masked_.back().value;
  }
}

void Sampler::FillLogprobs(std::span<const float> logits, float best, int32_t count,
                           OutputToken* token) {
  const double log_sum = best + std::log(SoftmaxWeights(logits, best, 1, weights_));
  const auto logprob = [&](float logit) {
    return std::max(static_cast<float>(logit - log_sum), -kLargest);
  };
  token->logprob = logprob(logits[token->token]);
  TakeBest(logits, count);
  token->top.reserve(candidates_.size());
  for (const Candidate& candidate : candidates_) {
    token->top.push_back({candidate.token, logprob(candidate.value)});
  }
}

TokenId Sampler::Draw(std::span<const float> logits, float best, const SamplingParams& params,
                      double uniform) {
  const bool has_top_k = params.top_k > 0 && static_cast<size_t>(params.top_k) < logits.size();
  double total;
  if (has_top_k) {
    TakeBest(logits, params.top_k);
    for (size_t i = 0; i < candidates_.size(); ++i) weights_[i] = candidates_[i].value;
    const std::span<float> weights = std::span(weights_).first(candidates_.size());
    total = SoftmaxWeights(weights, best, params.temperature, weights);
    for (size_t i = 0; i < candidates_.size(); ++i) candidates_[i].value = weights[i];
  } else {
    total = SoftmaxWeights(logits, best, params.temperature, weights_, &block_sums_);
    if (params.top_p == 1 && params.min_p == 0) {
      double mass = uniform * total;
      const size_t begin = Pick(block_sums_, std::identity(), mass) * kSoftmaxBlock;
      const auto block = std::span<const float>(weights_).subspan(
          begin, std::min(kSoftmaxBlock, weights_.size() - begin));
      return static_cast<TokenId>(begin + Pick(block, std::identity(), mass));
    }
    TakeHeaviest(params.top_p, params.min_p, total);
  }
  if (params.top_p < 1) KeepNucleus(params.top_p * total);
  std::erase_if(candidates_, [&](const Candidate& c) { return c.value < params.min_p; });
  double kept = 0;
  for (const Candidate& candidate : candidates_) kept += candidate.value;
  double mass = uniform * kept;
  return candidates_[Pick(candidates_, &Candidate::value, mass)].token;
}

// candidates_ = the `count` best logits above minus infinity, best first.
void Sampler::TakeBest(std::span<const float> logits, int32_t count) {
  candidates_.clear();
  if (count == 0) return;
  // A heap whose front is the worst kept, so that most logits cost one comparison. Equal logits
  // with a higher id never replace it.
  float worst = kMinusInfinity;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (!(logits[i] > worst)) continue;
    if (candidates_.size() == static_cast<size_t>(count)) {
      std::pop_heap(candidates_.begin(), candidates_.end(), Before);
      candidates_.pop_back();
    }
    candidates_.push_back({logits[i], static_cast<TokenId>(i)});
    std::push_heap(candidates_.begin(), candidates_.end(), Before);
    if (candidates_.size() == static_cast<size_t>(count)) worst = candidates_.front().value;
  }
  std::sort_heap(candidates_.begin(), candidates_.end(), Before);
}

// candidates_ = the tokens of weights_, which sum to `total`, that top_p and min_p may leave.
void Sampler::TakeHeaviest(float top_p, float min_p, double total) {
  // All tokens lighter than `lightest` weigh less than 1 - top_p together, so none of them is in
  // the nucleus, and what is left to sort is short. The best token weighs 1.
  const double lightest = (1.0 - top_p) * total / static_cast<double>(weights_.size());
  const double least = std::max<double>(lightest, min_p);
  candidates_.clear();
  for (size_t i = 0; i < weights_.size(); ++i) {
    if (weights_[i] >= least) candidates_.push_back({weights_[i], static_cast<TokenId>(i)});
  }
  if (top_p < 1) std::sort(candidates_.begin(), candidates_.end(), Before);
}

// Keeps the fewest of the sorted candidates_ whose weights reach `mass`.
void Sampler::KeepNucleus(double mass) {
  double sum = 0;
  size_t kept = 0;
  while (kept < candidates_.size() && sum < mass) sum += candidates_[kept++].value;
  candidates_.resize(kept);
}

}  // namespace baton::engine
