#pragma once

// Logits to the next token.

#include <cstdint>
#include <span>
#include <vector>

#include "common/sampling.h"
#include "common/token_constraint.h"

namespace baton::engine {

bool HasPenalties(const SamplingParams& params);

// Pure but for its scratch memory: the result is a function of the arguments alone, bit for bit on
// every machine, so a replay on another worker gives the same token (softmax.h, random.h). One per
// device thread.
//
// A NaN logit counts as minus infinity, plus infinity as the largest float. When no logit is above
// minus infinity the token is 0. Tokens less likely than the best by e^-87 are never drawn.
class Sampler {
 public:
  explicit Sampler(int32_t vocab_size);

  // `logits` [vocab] are changed in place. `prompt` and `output` are what came before; the token
  // sampled is output number output.size(). Order: logit bias; watermark; repetition, presence and
  // frequency penalties; what the constraint or allowed_token_ids do not allow, then, before
  // min_tokens, end and stop tokens, and tokens that would complete one of bad_words, masked;
  // [logprobs are taken here, by log-softmax]; temperature; top-k; top-p; min-p; draw keyed by
  // (seed, output.size()). Temperature 0 takes the best logit. Wherever logits are equal, the
  // lowest id comes first. `end_tokens` are the model's; with ignore_eos they end nothing and are
  // not masked. With a constraint they are allowed where it is satisfied, and never with
  // ignore_eos. Should it leave no token at all, since the vocabulary lacks one, they are allowed,
  // too. Where min_tokens and bad_words would leave no token, they are passed over.
  OutputToken Sample(std::span<float> logits, const SamplingParams& params,
                     std::span<const TokenId> prompt, std::span<const TokenId> output,
                     std::span<const TokenId> end_tokens, TokenConstraint* constraint = nullptr);

  // What these logits [vocab] say of `token`, and of the `top` best. The position is the caller's.
  PromptScore Score(std::span<const float> logits, TokenId token, int32_t top);

 private:
  struct Candidate {
    float value;  // a logit, or its softmax weight
    TokenId token;
  };
  static bool Before(const Candidate& a, const Candidate& b) {
    return a.value > b.value || (a.value == b.value && a.token < b.token);
  }

  void ApplyPenalties(std::span<float> logits, const SamplingParams& params,
                      std::span<const TokenId> prompt, std::span<const TokenId> output);
  void KeepOnly(std::span<const TokenId> allowed, std::span<float> logits);
  void MaskBadWords(std::span<float> logits, const std::vector<std::vector<TokenId>>& words,
                    std::span<const TokenId> output);
  void Mask(std::span<float> logits, TokenId token);
  void Unmask(std::span<float> logits);
  static void ApplyConstraint(std::span<float> logits, const TokenConstraint::Next& next,
                              std::span<const TokenId> end_tokens, bool ignore_eos);
  void FillLogprobs(std::span<const float> logits, float best, int32_t count, OutputToken* token);
  TokenId Draw(std::span<const float> logits, float best, const SamplingParams& params,
               double uniform);
  void TakeBest(std::span<const float> logits, int32_t count);
  void TakeHeaviest(float top_p, float min_p, double total);
  void KeepNucleus(double mass);

  std::vector<float> weights_;      // per token, or per candidate
  std::vector<double> block_sums_;  // of weights_
  std::vector<Candidate> candidates_;
  std::vector<int32_t> counts_;    // per token; all 0 between calls
  std::vector<Candidate> masked_;  // as they were, in the order in which they were masked
};

}  // namespace baton::engine
