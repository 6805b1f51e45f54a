#include "engine/model_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>

#include "common/status_macros.h"
#include "engine/fingerprint.h"
#include "engine/model_tensors.h"
#include "model_file/end_tokens.h"

namespace baton::engine {
namespace {

// Keys that change what a llama-like model computes, and the value with which they do nothing.
struct NeutralKey {
  std::string_view key;
  double neutral;
};
constexpr NeutralKey kNeutralKeys[] = {
    {"llama.expert_count", 0},
    {"llama.expert_used_count", 0},
    {"llama.attention.sliding_window", 0},
    {"llama.attn_logit_softcapping", 0},
    {"llama.final_logit_softcapping", 0},
    {"llama.logit_scale", 1},
    {"llama.embedding_scale", 1},
    {"llama.residual_scale", 1},
    {"llama.attention.max_alibi_bias", 0},
    {"llama.attention.clamp_kqv", 0},
};

absl::Status Refuse(const GgufFile& file, const std::string& why) {
  return absl::InvalidArgumentError(fmt::format("{}: {}", file.path(), why));
}

// The integer at `key`, within [low, high]; `fallback` when absent and not negative.
absl::StatusOr<int32_t> BoundedInt(const GgufFile& file, std::string_view key, int64_t low,
                                   int64_t high, int64_t fallback = -1) {
  if (!file.Has(key)) {
    if (fallback >= 0) return static_cast<int32_t>(fallback);
    return Refuse(file, fmt::format("it has no key {}", key));
  }
  BATON_ASSIGN_OR_RETURN(const int64_t value, file.Int(key));
  if (value < low || value > high) {
    return Refuse(file, fmt::format("{} is {}, but must be in [{}, {}]", key, value, low, high));
  }
  return static_cast<int32_t>(value);
}

// The number at `key`, above 0; `fallback` when absent and not 0.
absl::StatusOr<float> PositiveFloat(const GgufFile& file, std::string_view key, double fallback) {
  if (!file.Has(key) && fallback == 0) return Refuse(file, fmt::format("it has no key {}", key));
  BATON_ASSIGN_OR_RETURN(const double value, file.FloatOr(key, fallback));
  if (!(value > 0) || value > 1e12) {
    return Refuse(file, fmt::format("{} is {}, but must be in (0, 1e12]", key, value));
  }
  return static_cast<float>(value);
}

absl::Status CheckArchitecture(const GgufFile& file, std::string_view architecture) {
  if (architecture != "llama") {
    return Refuse(
        file, fmt::format("architecture '{}' is not supported; supported: llama", architecture));
  }
  for (const NeutralKey& entry : kNeutralKeys) {
    BATON_ASSIGN_OR_RETURN(const double value, file.FloatOr(entry.key, entry.neutral));
    if (value == entry.neutral) continue;
    return Refuse(file, fmt::format("{} is {}, which is not supported (only {} is)", entry.key,
                                    value, entry.neutral));
  }
  BATON_ASSIGN_OR_RETURN(const bool causal, file.BoolOr("llama.attention.causal", true));
  if (!causal) return Refuse(file, "llama.attention.causal is false: it is no language model");
  return absl::OkStatus();
}

absl::Status ReadShape(const GgufFile& file, ModelConfig& config) {
  BATON_ASSIGN_OR_RETURN(config.layers, BoundedInt(file, "llama.block_count", 1, 1024));
  BATON_ASSIGN_OR_RETURN(config.embedding, BoundedInt(file, "llama.embedding_length", 1, 1 << 16));
  BATON_ASSIGN_OR_RETURN(config.feed_forward,
                         BoundedInt(file, "llama.feed_forward_length", 1, 1 << 20));
  BATON_ASSIGN_OR_RETURN(config.heads, BoundedInt(file, "llama.attention.head_count", 1, 1024));
  BATON_ASSIGN_OR_RETURN(config.kv_heads,
                         BoundedInt(file, "llama.attention.head_count_kv", 1, 1024, config.heads));
  if (config.heads % config.kv_heads != 0) {
    return Refuse(file, fmt::format("{} heads cannot share {} kv heads evenly", config.heads,
                                    config.kv_heads));
  }
  BATON_ASSIGN_OR_RETURN(config.head_dim,
                         BoundedInt(file, "llama.attention.key_length", 1, 1024, 0));
  if (config.head_dim == 0) {
    if (config.embedding % config.heads != 0) {
      return Refuse(file, fmt::format("an embedding of {} is not a multiple of {} heads, and "
                                      "llama.attention.key_length is absent",
                                      config.embedding, config.heads));
    }
    config.head_dim = config.embedding / config.heads;
  }
  if (config.head_dim % 2 != 0 || config.head_dim > 1024) {
    return Refuse(file, fmt::format("the head dimension is {}, but must be even and at most 1024",
                                    config.head_dim));
  }
  BATON_ASSIGN_OR_RETURN(
      const int32_t value_length,
      BoundedInt(file, "llama.attention.value_length", 1, 1024, config.head_dim));
  if (value_length != config.head_dim) {
    return Refuse(file, fmt::format("keys have {} dimensions and values {}: only equal lengths are "
                                    "supported",
                                    config.head_dim, value_length));
  }
  BATON_ASSIGN_OR_RETURN(config.context, BoundedInt(file, "llama.context_length", 2, 1 << 24));
  BATON_ASSIGN_OR_RETURN(config.rms_epsilon,
                         PositiveFloat(file, "llama.attention.layer_norm_rms_epsilon", 0));
  return absl::OkStatus();
}

absl::Status ReadRope(const GgufFile& file, ModelConfig& config) {
  BATON_ASSIGN_OR_RETURN(config.rope_dim, BoundedInt(file, "llama.rope.dimension_count", 2,
                                                     config.head_dim, config.head_dim));
  if (config.rope_dim % 2 != 0) {
    return Refuse(
        file, fmt::format("llama.rope.dimension_count is {}, but must be even", config.rope_dim));
  }
  BATON_ASSIGN_OR_RETURN(config.rope_base, PositiveFloat(file, "llama.rope.freq_base", 10000));
  BATON_ASSIGN_OR_RETURN(const std::string_view scaling,
                         file.StringOr("llama.rope.scaling.type", ""));
  // Files from before scaling.type have scale_linear alone.
  BATON_ASSIGN_OR_RETURN(const float linear, PositiveFloat(file, "llama.rope.scale_linear", 1));
  BATON_ASSIGN_OR_RETURN(const float factor, PositiveFloat(file, "llama.rope.scaling.factor", 1));
  if (scaling == "linear") {
    config.rope_factor = factor;
  } else if (scaling.empty()) {
    config.rope_factor = linear;
  } else if (scaling != "none") {
    return Refuse(file, fmt::format("llama.rope.scaling.type '{}' is not supported; supported: "
                                    "none, linear",
                                    scaling));
  }
  if (scaling.empty() && factor != 1) {
    return Refuse(file,
                  fmt::format("llama.rope.scaling.factor is {} without a scaling.type", factor));
  }
  return absl::OkStatus();
}

absl::Status ReadVocabulary(const GgufFile& file, ModelConfig& config) {
  const GgufTensor* embedding = file.FindTensor("token_embd.weight");
  if (embedding == nullptr) return Refuse(file, "it has no tensor token_embd.weight");
  const int64_t rows = embedding->rows();
  if (rows < 1 || rows > 1 << 22) {
    return Refuse(
        file, fmt::format("token_embd.weight has {} rows, but must have 1 to {}", rows, 1 << 22));
  }
  config.vocab = static_cast<int32_t>(rows);
  BATON_ASSIGN_OR_RETURN(const int32_t declared,
                         BoundedInt(file, "llama.vocab_size", 0, INT32_MAX, config.vocab));
  if (declared != config.vocab) {
    return Refuse(file, fmt::format("llama.vocab_size is {}, but token_embd.weight has {} rows",
                                    declared, config.vocab));
  }
  config.tied_output = file.FindTensor("output.weight") == nullptr;
  if (!file.Has("tokenizer.ggml.tokens")) return absl::OkStatus();

  BATON_ASSIGN_OR_RETURN(const std::span<const std::string_view> tokens,
                         file.Strings("tokenizer.ggml.tokens"));
  if (tokens.size() != static_cast<size_t>(config.vocab)) {
    return Refuse(file, fmt::format("the tokenizer has {} tokens, but token_embd.weight has {} "
                                    "rows",
                                    tokens.size(), config.vocab));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ModelConfig> ModelConfig::FromGguf(const GgufFile& file) {
  ModelConfig config;
  BATON_ASSIGN_OR_RETURN(const std::string_view architecture,
                         file.StringOr("general.architecture", ""));
  BATON_RETURN_IF_ERROR(CheckArchitecture(file, architecture));
  config.architecture = architecture;
  BATON_ASSIGN_OR_RETURN(const std::string_view name, file.StringOr("general.name", "unnamed"));
  config.name = name;
  BATON_RETURN_IF_ERROR(ReadShape(file, config));
  BATON_RETURN_IF_ERROR(ReadRope(file, config));
  BATON_RETURN_IF_ERROR(ReadVocabulary(file, config));
  BATON_ASSIGN_OR_RETURN(config.end_tokens, ReadEndTokens(file, config.vocab));
  BATON_RETURN_IF_ERROR(FindTensors(file, config).status());
  config.bf16_weights =
      std::ranges::any_of(file.tensors(), [](const auto& t) { return t.dtype == DType::kBF16; });
  config.fingerprint = Fingerprint(file);
  return config;
}

}  // namespace baton::engine
