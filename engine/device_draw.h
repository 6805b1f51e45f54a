#pragma once

// What a device is told so that it draws the token that Sampler would.

#include <cstdint>
#include <span>
#include <vector>

#include "common/sampling.h"
#include "kernels/ops.h"

namespace baton::engine {

// Of one step, row by row. One per device thread; keeps its memory.
class DeviceDraws {
 public:
  explicit DeviceDraws(int32_t vocab_size) : edit_of_(static_cast<size_t>(vocab_size), -1) {}

  void Clear();
  // A row of logits that the host has a use for.
  void AddForHost();
  // A row that Sampler::Sample would be given with these, and without a constraint. What only the
  // host does is left to it: watermarks, log probabilities, allowed tokens, bad words, biases of
  // one token given twice.
  void Add(const SamplingParams& params, std::span<const TokenId> prompt,
           std::span<const TokenId> output, std::span<const TokenId> end_tokens);

  std::span<const kernels::Draw> draws() const { return draws_; }
  std::span<const kernels::LogitEdit> edits() const { return edits_; }

 private:
  kernels::LogitEdit& EditOf(TokenId token);
  bool AddBiases(const SamplingParams& params);

  std::vector<kernels::Draw> draws_;
  std::vector<kernels::LogitEdit> edits_;
  std::vector<int32_t> edit_of_;  // per token, of the row that is being added; all -1 between calls
};

}  // namespace baton::engine
