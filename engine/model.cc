#include "engine/model.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "common/status_macros.h"
#include "engine/model_tensors.h"

namespace baton::engine {

using kernels::Matrix;

struct Model::Layer {
  DeviceFloats attention_norm;               // [embedding]
  std::unique_ptr<Matrix> query;             // [heads * head_dim][embedding]
  std::unique_ptr<Matrix> key;               // [kv_heads * head_dim][embedding]
  std::unique_ptr<Matrix> value;             // [kv_heads * head_dim][embedding]
  std::unique_ptr<Matrix> attention_output;  // [embedding][heads * head_dim]
  DeviceFloats feed_forward_norm;            // [embedding]
  std::unique_ptr<Matrix> gate;              // [feed_forward][embedding]
  std::unique_ptr<Matrix> up;                // [feed_forward][embedding]
  std::unique_ptr<Matrix> down;              // [embedding][feed_forward]
};

// Activations, each with room for max_rows rows (logit rows: max_logit_rows).
struct Model::Buffers {
  static absl::StatusOr<std::unique_ptr<Buffers>> Create(kernels::Ops* ops,
                                                         const ModelConfig& config, size_t rows,
                                                         size_t logit_row_count) {
    auto b = std::make_unique<Buffers>();
    const size_t query_width = static_cast<size_t>(config.heads) * config.head_dim;
    const size_t key_width = static_cast<size_t>(config.kv_heads) * config.head_dim;
    BATON_ASSIGN_OR_RETURN(b->residual, DeviceFloats::Create(ops, rows * config.embedding));
    BATON_ASSIGN_OR_RETURN(b->normed, DeviceFloats::Create(ops, rows * config.embedding));
    BATON_ASSIGN_OR_RETURN(b->query, DeviceFloats::Create(ops, rows * query_width));
    BATON_ASSIGN_OR_RETURN(b->key, DeviceFloats::Create(ops, rows * key_width));
    BATON_ASSIGN_OR_RETURN(b->value, DeviceFloats::Create(ops, rows * key_width));
    BATON_ASSIGN_OR_RETURN(b->attended, DeviceFloats::Create(ops, rows * query_width));
    BATON_ASSIGN_OR_RETURN(b->gate, DeviceFloats::Create(ops, rows * config.feed_forward));
    BATON_ASSIGN_OR_RETURN(b->up, DeviceFloats::Create(ops, rows * config.feed_forward));
    const size_t logits = logit_row_count * config.vocab;
    BATON_ASSIGN_OR_RETURN(b->logits, DeviceFloats::Create(ops, logits));
    if (!ops->host_memory()) b->host_logits.resize(logits);
    b->logit_sequences.reserve(logit_row_count);
    b->pieces.reserve(logit_row_count);
    return b;
  }

  DeviceFloats residual;           // [rows][embedding]
  DeviceFloats normed;             // [rows][embedding]
  DeviceFloats query;              // [rows][heads * head_dim]
  DeviceFloats key;                // [rows][kv_heads * head_dim]
  DeviceFloats value;              // [rows][kv_heads * head_dim]
  DeviceFloats attended;           // [rows][heads * head_dim]
  DeviceFloats gate;               // [rows][feed_forward]
  DeviceFloats up;                 // [rows][feed_forward]
  DeviceFloats logits;             // [logit rows][vocab]
  std::vector<float> host_logits;  // of a device with memory of its own
  std::vector<kernels::CopyPiece> pieces;
  std::vector<kernels::SequenceRows> logit_sequences;
};

struct Model::KvTarget {
  const kernels::KvLayout& layout;
  std::byte* slab;
  std::span<const kernels::SequenceRows> sequences;
};

// Hands tensors to the device and reports progress.
class Model::Loader {
 public:
  Loader(kernels::Ops* ops, const GgufFile& file, const std::function<void(double)>& progress)
      : ops_(ops), file_(file), progress_(progress) {
    for (const GgufTensor& tensor : file.tensors()) total_bytes_ += tensor.data.size();
  }

  absl::Status Load(const GgufTensor& tensor, std::unique_ptr<Matrix>* matrix) {
    BATON_ASSIGN_OR_RETURN(
        *matrix, ops_->LoadMatrix({tensor.dtype, tensor.rows(), tensor.cols(), tensor.data}));
    Count(tensor);
    return absl::OkStatus();
  }

  absl::Status Load(const GgufTensor& tensor, std::vector<float>* vector) {
    BATON_ASSIGN_OR_RETURN(*vector, VectorValues(tensor));
    Count(tensor);
    return absl::OkStatus();
  }

  void WillLoad(const LayerTensors& tensors) {
    for (const GgufTensor* tensor :
         {tensors.query, tensors.key, tensors.value, tensors.attention_output, tensors.gate,
          tensors.up, tensors.down}) {
      file_.WillRead(*tensor);
    }
  }

  absl::Status Load(const GgufTensor& tensor, DeviceFloats* floats) {
    std::vector<float> values;
    BATON_RETURN_IF_ERROR(Load(tensor, &values));
    BATON_ASSIGN_OR_RETURN(*floats, DeviceFloats::Create(ops_, values));
    return absl::OkStatus();
  }

  absl::Status Load(const LayerTensors& tensors, Layer* layer) {
    BATON_RETURN_IF_ERROR(Load(*tensors.attention_norm, &layer->attention_norm));
    BATON_RETURN_IF_ERROR(Load(*tensors.query, &layer->query));
    BATON_RETURN_IF_ERROR(Load(*tensors.key, &layer->key));
    BATON_RETURN_IF_ERROR(Load(*tensors.value, &layer->value));
    BATON_RETURN_IF_ERROR(Load(*tensors.attention_output, &layer->attention_output));
    BATON_RETURN_IF_ERROR(Load(*tensors.feed_forward_norm, &layer->feed_forward_norm));
    BATON_RETURN_IF_ERROR(Load(*tensors.gate, &layer->gate));
    BATON_RETURN_IF_ERROR(Load(*tensors.up, &layer->up));
    return Load(*tensors.down, &layer->down);
  }

 private:
  void Count(const GgufTensor& tensor) {
    file_.WasRead(tensor);
    loaded_bytes_ += tensor.data.size();
    if (progress_) {
      progress_(static_cast<double>(loaded_bytes_) / static_cast<double>(total_bytes_));
    }
  }

  kernels::Ops* ops_;
  const GgufFile& file_;
  const std::function<void(double)>& progress_;
  size_t total_bytes_ = 0;
  size_t loaded_bytes_ = 0;
};

absl::StatusOr<DeviceFloats> DeviceFloats::Create(kernels::Ops* ops, size_t count) {
  DeviceFloats floats;
  BATON_ASSIGN_OR_RETURN(floats.buffer_,
                         ops->NewBuffer(static_cast<int64_t>(count * sizeof(float))));
  floats.data_ = floats.buffer_->floats();
  floats.size_ = count;
  return floats;
}

absl::StatusOr<DeviceFloats> DeviceFloats::Create(kernels::Ops* ops,
                                                  std::span<const float> values) {
  BATON_ASSIGN_OR_RETURN(DeviceFloats floats, Create(ops, values.size()));
  ops->ToDevice(floats.data(), values.data(), static_cast<int64_t>(values.size_bytes()));
  return floats;
}

Model::Model(ModelConfig config, ModelOptions options, kernels::Ops* ops)
    : config_(std::move(config)), options_(std::move(options)), ops_(ops) {}

Model::~Model() = default;

absl::StatusOr<std::unique_ptr<Model>> Model::Load(const GgufFile& file, kernels::Ops* ops,
                                                   const ModelOptions& options) {
  if (options.max_rows < 1 || options.max_logit_rows < 1 || options.max_context < 0) {
    return absl::InvalidArgumentError(
        fmt::format("a model cannot run with {} rows, {} logit rows and a context of {}",
                    options.max_rows, options.max_logit_rows, options.max_context));
  }
  BATON_ASSIGN_OR_RETURN(ModelConfig config, ModelConfig::FromGguf(file));
  BATON_ASSIGN_OR_RETURN(const ModelTensors tensors, FindTensors(file, config));
  if (options.max_context > 0) config.context = std::min(config.context, options.max_context);

  std::unique_ptr<Model> model(new Model(std::move(config), options, ops));
  Loader loader(ops, file, options.progress);
  BATON_RETURN_IF_ERROR(loader.Load(*tensors.embedding, &model->embedding_));
  if (tensors.output != nullptr) {
    BATON_RETURN_IF_ERROR(loader.Load(*tensors.output, &model->output_));
  }
  BATON_RETURN_IF_ERROR(loader.Load(*tensors.output_norm, &model->output_norm_));
  std::vector<float> divisors(static_cast<size_t>(model->config_.rope_dim / 2), 1.0f);
  if (tensors.rope_frequencies != nullptr) {
    BATON_RETURN_IF_ERROR(loader.Load(*tensors.rope_frequencies, &divisors));
    if (std::ranges::min(divisors) <= 0) {
      return absl::InvalidArgumentError(
          fmt::format("rope_freqs.weight has the divisor {}", std::ranges::min(divisors)));
    }
  }
  model->layers_.resize(tensors.layers.size());
  for (size_t i = 0; i < tensors.layers.size(); ++i) {
    if (i + 1 < tensors.layers.size()) loader.WillLoad(tensors.layers[i + 1]);
    BATON_RETURN_IF_ERROR(loader.Load(tensors.layers[i], &model->layers_[i]));
  }
  BATON_RETURN_IF_ERROR(model->FillRopeTables(divisors));
  BATON_ASSIGN_OR_RETURN(model->buffers_, Buffers::Create(ops, model->config_, options.max_rows,
                                                          options.max_logit_rows));
  return model;
}

// Pair i turns by position / factor * base^(-2i / rope_dim) / divisors[i].
absl::Status Model::FillRopeTables(std::span<const float> divisors) {
  const size_t pairs = divisors.size();
  std::vector<float> cosine(static_cast<size_t>(config_.context) * pairs);
  std::vector<float> sine(cosine.size());
  for (size_t i = 0; i < pairs; ++i) {
    const double exponent = -2.0 * static_cast<double>(i) / config_.rope_dim;
    const double frequency =
        std::pow(double{config_.rope_base}, exponent) / config_.rope_factor / divisors[i];
    for (int32_t position = 0; position < config_.context; ++position) {
      const double angle = position * frequency;
      cosine[position * pairs + i] = static_cast<float>(std::cos(angle));
      sine[position * pairs + i] = static_cast<float>(std::sin(angle));
    }
  }
  BATON_ASSIGN_OR_RETURN(rope_cosine_, DeviceFloats::Create(ops_, cosine));
  BATON_ASSIGN_OR_RETURN(rope_sine_, DeviceFloats::Create(ops_, sine));
  rope_ = {config_.rope_pairs,
           config_.rope_dim,
           {rope_cosine_.data(), rope_cosine_.size()},
           {rope_sine_.data(), rope_sine_.size()}};
  attention_ = {config_.heads, 1.0f / std::sqrt(static_cast<float>(config_.head_dim))};
  return absl::OkStatus();
}

int64_t Model::weight_bytes() const {
  int64_t bytes = embedding_->bytes() + (output_ ? output_->bytes() : 0);
  for (const Layer& layer : layers_) {
    for (const auto* matrix : {&layer.query, &layer.key, &layer.value, &layer.attention_output,
                               &layer.gate, &layer.up, &layer.down}) {
      bytes += (*matrix)->bytes();
    }
  }
  return bytes;
}

std::span<float> Model::Forward(const ForwardBatch& batch, const kernels::KvLayout& layout,
                                std::byte* slab) {
  const auto rows = static_cast<int32_t>(batch.tokens.size());
  const auto logit_rows = static_cast<int32_t>(batch.logit_rows.size());
  BATON_CHECK(rows >= 1 && rows <= options_.max_rows, "a step fits the buffers");
  BATON_CHECK(logit_rows <= options_.max_logit_rows, "a step's logits fit the buffers");
  int32_t previous = -1;
  for (const int32_t row : batch.logit_rows) {
    BATON_CHECK(row > previous && row < rows, "logits are wanted of rows of this step, ascending");
    previous = row;
  }
  Buffers& b = *buffers_;
  ops_->Embed(*embedding_, batch.tokens, b.residual.data());
  KvTarget kv{layout, slab, batch.sequences};
  const int32_t last = config_.layers - 1;
  for (int32_t layer = 0; layer < last; ++layer) {
    StoreKv(layer, rows, kv);
    if (batch.kv_stored != nullptr) (*batch.kv_stored)(layer + 1);
    FinishLayer(layer, rows, kv);
  }
  StoreKv(last, rows, kv);
  if (batch.kv_stored != nullptr) (*batch.kv_stored)(config_.layers);
  if (logit_rows == 0) return {};
  if (logit_rows < rows) kv.sequences = KeepLogitRows(batch);
  FinishLayer(last, logit_rows, kv);

  ops_->RmsNorm(b.residual.data(), output_norm_.data(), logit_rows, config_.embedding,
                config_.rms_epsilon, b.normed.data());
  const Matrix* const output = output_ ? output_.get() : embedding_.get();
  float* const logits = b.logits.data();
  ops_->MatMul({&output, 1}, b.normed.data(), logit_rows, {&logits, 1}, /*add=*/false);
  if (!batch.draws.empty()) {
    ops_->DrawTokens(logits, config_.vocab, batch.draws, batch.edits, batch.drawn);
  }
  return BringLogits(batch);
}

// Those that the host has a use for, to where it reads them.
std::span<float> Model::BringLogits(const ForwardBatch& batch) {
  Buffers& b = *buffers_;
  const auto vocab = static_cast<size_t>(config_.vocab);
  const size_t rows = batch.logit_rows.size();
  if (ops_->host_memory()) return {b.logits.data(), rows * vocab};
  b.pieces.clear();
  for (size_t row = 0; row < rows; ++row) {
    if (!batch.draws.empty() && batch.drawn[row] != kernels::kDrawnByHost) continue;
    b.pieces.push_back({b.host_logits.data() + row * vocab, b.logits.data() + row * vocab,
                        static_cast<int64_t>(vocab * sizeof(float))});
  }
  if (!b.pieces.empty()) ops_->ToHost(b.pieces);
  return std::span(b.host_logits).first(rows * vocab);
}

// Moves the logit rows' residuals and queries to the front, and gives the sequences of one row each
// that they then are.
std::span<const kernels::SequenceRows> Model::KeepLogitRows(const ForwardBatch& batch) {
  Buffers& b = *buffers_;
  const auto width = static_cast<size_t>(config_.embedding);
  const auto query_width = static_cast<size_t>(config_.heads) * config_.head_dim;
  b.logit_sequences.clear();
  auto sequence = batch.sequences.begin();
  for (size_t i = 0; i < batch.logit_rows.size(); ++i) {
    const int32_t row = batch.logit_rows[i];
    while (row >= sequence->first_row + sequence->row_count) ++sequence;
    b.logit_sequences.push_back({sequence->block_table,
                                 sequence->first_position + row - sequence->first_row,
                                 static_cast<int32_t>(i), 1});
    if (static_cast<size_t>(row) == i) continue;  // is there
    ops_->Copy(b.residual.data() + i * width, b.residual.data() + row * width,
               static_cast<int64_t>(width));
    ops_->Copy(b.query.data() + i * query_width, b.query.data() + row * query_width,
               static_cast<int64_t>(query_width));
  }
  return b.logit_sequences;
}

// The first part of a layer: keys and values of RmsNorm(residual) into the slab, queries left.
void Model::StoreKv(int32_t index, int32_t rows, const KvTarget& kv) {
  const Layer& layer = layers_[index];
  Buffers& b = *buffers_;
  ops_->RmsNorm(b.residual.data(), layer.attention_norm.data(), rows, config_.embedding,
                config_.rms_epsilon, b.normed.data());
  const Matrix* const projections[] = {layer.query.get(), layer.key.get(), layer.value.get()};
  float* const projected[] = {b.query.data(), b.key.data(), b.value.data()};
  ops_->MatMul(projections, b.normed.data(), rows, projected, /*add=*/false);
  ops_->RopeAndStoreKv(rope_, kv.layout, kv.slab, index, config_.heads, kv.sequences,
                       b.query.data(), b.key.data(), b.value.data());
}

// The rest: residual += Attention(queries); residual += FeedForward(RmsNorm(residual))
void Model::FinishLayer(int32_t index, int32_t rows, const KvTarget& kv) {
  const Layer& layer = layers_[index];
  Buffers& b = *buffers_;
  float* const residual[] = {b.residual.data()};
  ops_->Attention(attention_, kv.layout, kv.slab, index, kv.sequences, b.query.data(),
                  b.attended.data());
  const Matrix* const attention_output[] = {layer.attention_output.get()};
  ops_->MatMul(attention_output, b.attended.data(), rows, residual, /*add=*/true);

  ops_->RmsNorm(b.residual.data(), layer.feed_forward_norm.data(), rows, config_.embedding,
                config_.rms_epsilon, b.normed.data());
  const Matrix* const gate_up[] = {layer.gate.get(), layer.up.get()};
  float* const hidden[] = {b.gate.data(), b.up.data()};
  ops_->MatMul(gate_up, b.normed.data(), rows, hidden, /*add=*/false);
  ops_->SwiGlu(b.gate.data(), b.up.data(), rows, config_.feed_forward, b.gate.data());
  const Matrix* const down[] = {layer.down.get()};
  ops_->MatMul(down, b.gate.data(), rows, residual, /*add=*/true);
}

}  // namespace baton::engine
