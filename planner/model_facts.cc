#include "planner/model_facts.h"

#include <fmt/format.h>

#include <utility>

#include "common/status_macros.h"
#include "planner/name_lookup.h"

namespace baton::planner {
namespace {

class ModelTable {
 public:
  std::vector<ModelFacts> models;

  // L, D, F, N, K, H, V, tied. What follows adds to the model before it.
  void Dense(const char* name, double nominal, int64_t layers, int64_t embedding,
             int64_t feed_forward, int64_t heads, int64_t kv_heads, int64_t head_dim, int64_t vocab,
             bool tied) {
    models.push_back({.name = name,
                      .layers = layers,
                      .embedding = embedding,
                      .feed_forward = feed_forward,
                      .heads = heads,
                      .kv_heads = kv_heads,
                      .head_dim = head_dim,
                      .vocab = vocab,
                      .tied_embedding = tied,
                      .nominal_parameters = nominal});
  }
  void Experts(int64_t count, int64_t per_token, int64_t width) {
    models.back().experts = count;
    models.back().experts_per_token = per_token;
    models.back().expert_feed_forward = width;
  }
  void Window(int64_t layers, int64_t tokens) {
    models.back().windowed_layers = layers;
    models.back().window_tokens = tokens;
  }
  // DeepSeek's latent attention, and the experts that every token takes.
  void Latent(int64_t query_rank, int64_t shared, int64_t dense_layers) {
    models.back().mla_kv_rank = 512;
    models.back().mla_query_rank = query_rank;
    models.back().mla_rope_dim = 64;
    models.back().mla_value_dim = 128;
    models.back().shared_feed_forward = shared;
    models.back().dense_layers = dense_layers;
  }
};

// Shapes as in each model's own config.json, published with its weights; `nominal` is the size in
// its name. Tests compare the parameters that follow from them with the published counts.
std::vector<ModelFacts> MakeTable() {
  ModelTable table;
  table.Dense("llama-2-7b", 7e9, 32, 4096, 11008, 32, 32, 128, 32000, false);
  table.Dense("llama-2-13b", 13e9, 40, 5120, 13824, 40, 40, 128, 32000, false);
  table.Dense("llama-2-70b", 70e9, 80, 8192, 28672, 64, 8, 128, 32000, false);
  table.Dense("llama-3-8b", 8e9, 32, 4096, 14336, 32, 8, 128, 128256, false);
  table.Dense("llama-3-70b", 70e9, 80, 8192, 28672, 64, 8, 128, 128256, false);
  table.Dense("llama-3.1-8b", 8e9, 32, 4096, 14336, 32, 8, 128, 128256, false);
  table.Dense("llama-3.1-70b", 70e9, 80, 8192, 28672, 64, 8, 128, 128256, false);
  table.Dense("llama-3.1-405b", 405e9, 126, 16384, 53248, 128, 8, 128, 128256, false);
  table.Dense("llama-3.2-1b", 1e9, 16, 2048, 8192, 32, 8, 64, 128256, true);
  table.Dense("llama-3.2-3b", 3e9, 28, 3072, 8192, 24, 8, 128, 128256, true);
  table.Dense("llama-3.3-70b", 70e9, 80, 8192, 28672, 64, 8, 128, 128256, false);
  table.Dense("mistral-7b", 7e9, 32, 4096, 14336, 32, 8, 128, 32000, false);
  table.Dense("mixtral-8x7b", 47e9, 32, 4096, 14336, 32, 8, 128, 32000, false);
  table.Experts(8, 2, 14336);
  table.Dense("mixtral-8x22b", 141e9, 56, 6144, 16384, 48, 8, 128, 32768, false);
  table.Experts(8, 2, 16384);
  table.Dense("qwen2.5-7b", 7e9, 28, 3584, 18944, 28, 4, 128, 152064, false);
  table.Dense("qwen2.5-14b", 14e9, 48, 5120, 13824, 40, 8, 128, 152064, false);
  table.Dense("qwen2.5-32b", 32e9, 64, 5120, 27648, 40, 8, 128, 152064, false);
  table.Dense("qwen2.5-72b", 72e9, 80, 8192, 29568, 64, 8, 128, 152064, false);
  table.Dense("qwen3-8b", 8e9, 36, 4096, 12288, 32, 8, 128, 151936, false);
  table.Dense("qwen3-32b", 32e9, 64, 5120, 25600, 64, 8, 128, 151936, false);
  table.Dense("qwen3-30b-a3b", 30e9, 48, 2048, 6144, 32, 4, 128, 151936, false);
  table.Experts(128, 8, 768);
  table.Dense("qwen3-235b-a22b", 235e9, 94, 4096, 12288, 64, 4, 128, 151936, false);
  table.Experts(128, 8, 1536);
  table.Dense("gemma-2b", 2e9, 18, 2048, 16384, 8, 1, 256, 256000, true);
  table.Dense("gemma-7b", 7e9, 28, 3072, 24576, 16, 16, 256, 256000, true);
  table.Dense("gemma-2-9b", 9e9, 42, 3584, 14336, 16, 8, 256, 256000, true);
  table.Window(21, 4096);  // every other layer
  table.Dense("gemma-2-27b", 27e9, 46, 4608, 36864, 32, 16, 128, 256000, true);
  table.Window(23, 4096);
  table.Dense("gemma-3-12b", 12e9, 48, 3840, 15360, 16, 8, 256, 262208, true);
  table.Window(40, 1024);  // five of six layers
  table.Dense("gemma-3-27b", 27e9, 62, 5376, 21504, 32, 16, 128, 262208, true);
  table.Window(52, 1024);
  table.Dense("deepseek-v2-lite", 16e9, 27, 2048, 10944, 16, 16, 128, 102400, false);
  table.Experts(64, 6, 1408);
  table.Latent(0, 2 * 1408, 1);
  table.Dense("deepseek-v2", 236e9, 60, 5120, 12288, 128, 128, 128, 102400, false);
  table.Experts(160, 6, 1536);
  table.Latent(1536, 2 * 1536, 1);
  table.Dense("deepseek-v3", 671e9, 61, 7168, 18432, 128, 128, 128, 129280, false);
  table.Experts(256, 8, 2048);
  table.Latent(1536, 2048, 3);
  table.Dense("deepseek-r1", 671e9, 61, 7168, 18432, 128, 128, 128, 129280, false);
  table.Experts(256, 8, 2048);
  table.Latent(1536, 2048, 3);
  table.Dense("smollm2-135m", 135e6, 30, 576, 1536, 9, 3, 64, 49152, true);
  return std::move(table.models);
}

const std::vector<ModelFacts>& KnownModels() {
  static const std::vector<ModelFacts> models = MakeTable();
  return models;
}

absl::Status Refuse(const ModelFacts& model, std::string_view what) {
  return absl::InvalidArgumentError(fmt::format("model '{}': {}", model.name, what));
}

absl::Status CheckExperts(const ModelFacts& model) {
  if (model.experts == 0) return absl::OkStatus();
  if (model.experts_per_token < 1 || model.experts_per_token > model.experts) {
    return Refuse(model, fmt::format("each token takes {} of {} experts", model.experts_per_token,
                                     model.experts));
  }
  if (model.expert_feed_forward < 1) return Refuse(model, "its experts have no width");
  if (model.dense_layers < 0 || model.dense_layers > model.layers) {
    return Refuse(model,
                  fmt::format("{} of its {} layers are dense", model.dense_layers, model.layers));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckModelFacts(const ModelFacts& model) {
  const struct {
    const char* name;
    int64_t value, at_most;
  } numbers[] = {{"layers", model.layers, 4096},
                 {"embedding width", model.embedding, 1 << 20},
                 {"heads", model.heads, 1 << 16},
                 {"kv heads", model.kv_heads, 1 << 16},
                 {"head dimension", model.head_dim, 1 << 16},
                 {"vocabulary", model.vocab, 1 << 26}};
  for (const auto& number : numbers) {
    if (number.value < 1 || number.value > number.at_most) {
      return Refuse(model, fmt::format("{} is {}, but must be 1 to {}", number.name, number.value,
                                       number.at_most));
    }
  }
  if (model.feed_forward < (model.experts > 0 ? 0 : 1) || model.feed_forward > 1 << 24) {
    return Refuse(model, fmt::format("the feed-forward width is {}, but must be 1 to {}",
                                     model.feed_forward, 1 << 24));
  }
  if (model.windowed_layers < 0 || model.windowed_layers > model.layers ||
      (model.windowed_layers > 0 && model.window_tokens < 1)) {
    return Refuse(model, fmt::format("{} of its {} layers have a window of {} tokens",
                                     model.windowed_layers, model.layers, model.window_tokens));
  }
  if (model.mla_kv_rank > 0 && (model.mla_rope_dim < 0 || model.mla_value_dim < 1)) {
    return Refuse(model, "its latent attention has no value dimension");
  }
  return CheckExperts(model);
}

std::vector<std::string> KnownModelNames() {
  std::vector<std::string> names;
  for (const ModelFacts& model : KnownModels()) names.push_back(model.name);
  return names;
}

absl::StatusOr<ModelFacts> KnownModelFacts(std::string_view name) {
  const std::vector<std::string> names = KnownModelNames();
  const int found = FindName(name, names);
  if (found < 0) return absl::NotFoundError(UnknownName("model", name, names));
  return KnownModels()[static_cast<size_t>(found)];
}

}  // namespace baton::planner
