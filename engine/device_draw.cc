#include "engine/device_draw.h"

#include <algorithm>

#include "engine/random.h"
#include "engine/sampler.h"

namespace baton::engine {

void DeviceDraws::Clear() {
  draws_.clear();
  edits_.clear();
}

void DeviceDraws::AddForHost() { draws_.push_back({.by_host = true}); }

kernels::LogitEdit& DeviceDraws::EditOf(TokenId token) {
  int32_t& index = edit_of_[static_cast<size_t>(token)];
  if (index < 0) {
    index = static_cast<int32_t>(edits_.size());
    edits_.push_back({.token = token});
  }
  return edits_[static_cast<size_t>(index)];
}

// False for a token that comes twice: its biases would be added one after another.
bool DeviceDraws::AddBiases(const SamplingParams& params) {
  for (const auto& [token, bias] : params.logit_bias) {
    if (edit_of_[static_cast<size_t>(token)] >= 0) return false;
    EditOf(token).bias = bias;
  }
  return true;
}

void DeviceDraws::Add(const SamplingParams& params, std::span<const TokenId> prompt,
                      std::span<const TokenId> output, std::span<const TokenId> end_tokens) {
  const auto first_edit = static_cast<int32_t>(edits_.size());
  const bool by_host = params.watermark || params.logprobs >= 0 ||
                       !params.allowed_token_ids.empty() || !params.bad_words.empty() ||
                       !AddBiases(params);
  if (!by_host && HasPenalties(params)) {
    for (const TokenId token : output) {
      int32_t& count = EditOf(token).count;
      count = std::max(count, 0) + 1;
    }
    if (params.repetition_penalty != 1) {
      for (const TokenId token : prompt) {
        int32_t& count = EditOf(token).count;
        count = std::max(count, 0);
      }
    }
  }
  if (!by_host && output.size() < static_cast<size_t>(params.min_tokens)) {
    if (!params.ignore_eos) {
      for (const TokenId token : end_tokens) EditOf(token).masked = true;
    }
    for (const TokenId token : params.stop_token_ids) EditOf(token).masked = true;
  }
  for (auto edit = edits_.begin() + first_edit; edit != edits_.end(); ++edit) {
    edit_of_[static_cast<size_t>(edit->token)] = -1;
  }
  if (by_host) {
    edits_.resize(static_cast<size_t>(first_edit));
    AddForHost();
    return;
  }
  draws_.push_back({.temperature = params.temperature,
                    .top_k = params.top_k,
                    .top_p = params.top_p,
                    .min_p = params.min_p,
                    .repetition_penalty = params.repetition_penalty,
                    .presence_penalty = params.presence_penalty,
                    .frequency_penalty = params.frequency_penalty,
                    .uniform = UniformAt(params.seed, output.size()),
                    .first_edit = first_edit,
                    .edit_count = static_cast<int32_t>(edits_.size()) - first_edit});
}

}  // namespace baton::engine
