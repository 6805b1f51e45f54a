#include "engine/model_tensors.h"

#include <fmt/format.h>

#include <cmath>
#include <cstring>
#include <set>
#include <string>

#include "common/status_macros.h"
#include "kernels/half.h"

namespace baton::engine {
namespace {

// Finds tensors by name and remembers which were asked for.
class Finder {
 public:
  explicit Finder(const GgufFile& file) : file_(file) {}

  // A matrix of rows x cols, or a vector when rows is 0.
  absl::StatusOr<const GgufTensor*> Find(const std::string& name, int64_t cols, int64_t rows,
                                         std::string_view why) {
    const GgufTensor* tensor = file_.FindTensor(name);
    if (tensor == nullptr) {
      return absl::InvalidArgumentError(fmt::format("{} has no tensor {}", file_.path(), name));
    }
    const std::vector<int64_t> wanted =
        rows == 0 ? std::vector<int64_t>{cols} : std::vector<int64_t>{cols, rows};
    if (tensor->shape != wanted) {
      return absl::InvalidArgumentError(fmt::format("{} is {}, but must be {} for {}", name,
                                                    fmt::join(tensor->shape, " x "),
                                                    fmt::join(wanted, " x "), why));
    }
    known_.insert(name);
    return tensor;
  }

  absl::Status RefuseOthers() const {
    for (const GgufTensor& tensor : file_.tensors()) {
      if (known_.contains(tensor.name)) continue;
      return absl::InvalidArgumentError(
          fmt::format("{} has a tensor {}, which the llama architecture does not have: this model "
                      "would compute something else without it",
                      file_.path(), tensor.name));
    }
    return absl::OkStatus();
  }

 private:
  const GgufFile& file_;
  std::set<std::string> known_;
};

absl::StatusOr<LayerTensors> FindLayer(Finder& finder, const ModelConfig& config, int32_t layer) {
  const int64_t query_dim = int64_t{config.heads} * config.head_dim;
  const int64_t kv_dim = int64_t{config.kv_heads} * config.head_dim;
  const std::string width = fmt::format("an embedding of {}", config.embedding);
  const std::string heads = fmt::format("{} heads of {}", config.heads, config.head_dim);
  const std::string kv_heads = fmt::format("{} kv heads of {}", config.kv_heads, config.head_dim);
  const std::string hidden = fmt::format("a feed-forward width of {}", config.feed_forward);

  LayerTensors tensors;
  const struct {
    const GgufTensor** tensor;
    const char* name;
    int64_t cols, rows;
    const std::string& why;
  } wanted[] = {
      {&tensors.attention_norm, "attn_norm", config.embedding, 0, width},
      {&tensors.query, "attn_q", config.embedding, query_dim, heads},
      {&tensors.key, "attn_k", config.embedding, kv_dim, kv_heads},
      {&tensors.value, "attn_v", config.embedding, kv_dim, kv_heads},
      {&tensors.attention_output, "attn_output", query_dim, config.embedding, heads},
      {&tensors.feed_forward_norm, "ffn_norm", config.embedding, 0, width},
      {&tensors.gate, "ffn_gate", config.embedding, config.feed_forward, hidden},
      {&tensors.up, "ffn_up", config.embedding, config.feed_forward, hidden},
      {&tensors.down, "ffn_down", config.feed_forward, config.embedding, hidden},
  };
  for (const auto& entry : wanted) {
    const std::string name = fmt::format("blk.{}.{}.weight", layer, entry.name);
    BATON_ASSIGN_OR_RETURN(*entry.tensor, finder.Find(name, entry.cols, entry.rows, entry.why));
  }
  return tensors;
}

}  // namespace

absl::StatusOr<ModelTensors> FindTensors(const GgufFile& file, const ModelConfig& config) {
  Finder finder(file);
  const std::string vocab =
      fmt::format("a vocabulary of {} and an embedding of {}", config.vocab, config.embedding);
  ModelTensors tensors;
  BATON_ASSIGN_OR_RETURN(tensors.embedding,
                         finder.Find("token_embd.weight", config.embedding, config.vocab, vocab));
  BATON_ASSIGN_OR_RETURN(tensors.output_norm,
                         finder.Find("output_norm.weight", config.embedding, 0, vocab));
  if (!config.tied_output) {
    BATON_ASSIGN_OR_RETURN(tensors.output,
                           finder.Find("output.weight", config.embedding, config.vocab, vocab));
  }
  if (file.FindTensor("rope_freqs.weight") != nullptr) {
    const std::string rotated = fmt::format("{} rotated dimensions", config.rope_dim);
    BATON_ASSIGN_OR_RETURN(tensors.rope_frequencies,
                           finder.Find("rope_freqs.weight", config.rope_dim / 2, 0, rotated));
  }
  for (int32_t layer = 0; layer < config.layers; ++layer) {
    BATON_ASSIGN_OR_RETURN(LayerTensors found, FindLayer(finder, config, layer));
    tensors.layers.push_back(found);
  }
  BATON_RETURN_IF_ERROR(finder.RefuseOthers());
  return tensors;
}

absl::StatusOr<std::vector<float>> VectorValues(const GgufTensor& tensor) {
  std::vector<float> values(static_cast<size_t>(tensor.cols()));
  if (tensor.dtype == DType::kF32) {
    std::memcpy(values.data(), tensor.data.data(), values.size() * sizeof(float));
  } else if (tensor.dtype == DType::kF16) {
    for (size_t i = 0; i < values.size(); ++i) {
      uint16_t half;
      std::memcpy(&half, tensor.data.data() + i * sizeof half, sizeof half);
      values[i] = kernels::HalfToFloat(half);
    }
  } else {
    return absl::InvalidArgumentError(fmt::format("{} is {}, but a vector must be F32 or F16",
                                                  tensor.name, Traits(tensor.dtype).name));
  }
  for (size_t i = 0; i < values.size(); ++i) {
    if (!std::isfinite(values[i])) {
      return absl::InvalidArgumentError(
          fmt::format("{} has the value {} at {}", tensor.name, values[i], i));
    }
  }
  return values;
}

}  // namespace baton::engine
