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
  std::vector<float> attention_norm;         // [embedding]
  std::unique_ptr<Matrix> query;             // [heads * head_dim][embedding]
  std::unique_ptr<Matrix> key;               // [kv_heads * head_dim][embedding]
  std::unique_ptr<Matrix> value;             // [kv_heads * head_dim][embedding]
  std::unique_ptr<Matrix> attention_output;  // [embedding][heads * head_dim]
  std::vector<float> feed_forward_norm;      // [embedding]
  std::unique_ptr<Matrix> gate;              // [feed_forward][embedding]
  std::unique_ptr<Matrix> up;                // [feed_forward][embedding]
  std::unique_ptr<Matrix> down;              // [embedding][feed_forward]
};

// Activations, each with room for max_rows rows (logit rows: max_logit_rows).
struct Model::Buffers {
  Buffers(const ModelConfig& config, size_t rows, size_t logit_row_count)
      : residual(rows * config.embedding),
        normed(rows * config.embedding),
        query(rows * config.heads * config.head_dim),
        key(rows * config.kv_heads * config.head_dim),
        value(rows * config.kv_heads * config.head_dim),
        attended(rows * config.heads * config.head_dim),
        gate(rows * config.feed_forward),
        up(rows * config.feed_forward),
        logits(logit_row_count * config.vocab) {
    logit_sequences.reserve(logit_row_count);
  }

  std::vector<float> residual;  // [rows][embedding]
  std::vector<float> normed;    // [rows][embedding]
  std::vector<float> query;     // [rows][heads * head_dim]
  std::vector<float> key;       // [rows][kv_heads * head_dim]
  std::vector<float> value;     // [rows][kv_heads * head_dim]
  std::vector<float> attended;  // [rows][heads * head_dim]
  std::vector<float> gate;      // [rows][feed_forward]
  std::vector<float> up;        // [rows][feed_forward]
  std::vector<float> logits;    // [logit rows][vocab]
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
  model->FillRopeTables(divisors);
  model->buffers_ =
      std::make_unique<Buffers>(model->config_, options.max_rows, options.max_logit_rows);
  return model;
}

// Pair i turns by position / factor * base^(-2i / rope_dim) / divisors[i].
void Model::FillRopeTables(std::span<const float> divisors) {
  const size_t pairs = divisors.size();
  rope_cosine_.resize(static_cast<size_t>(config_.context) * pairs);
  rope_sine_.resize(rope_cosine_.size());
  for (size_t i = 0; i < pairs; ++i) {
    const double exponent = -2.0 * static_cast<double>(i) / config_.rope_dim;
    const double frequency =
        std::pow(double{config_.rope_base}, exponent) / config_.rope_factor / divisors[i];
    for (int32_t position = 0; position < config_.context; ++position) {
      const double angle = position * frequency;
      rope_cosine_[position * pairs + i] = static_cast<float>(std::cos(angle));
      rope_sine_[position * pairs + i] = static_cast<float>(std::sin(angle));
    }
  }
  rope_ = {config_.rope_pairs, config_.rope_dim, rope_cosine_, rope_sine_};
  attention_ = {config_.heads, 1.0f / std::sqrt(static_cast<float>(config_.head_dim))};
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
  return std::span(b.logits).first(static_cast<size_t>(logit_rows) * config_.vocab);
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
    std::copy_n(&b.residual[row * width], width, &b.residual[i * width]);
    std::copy_n(&b.query[row * query_width], query_width, &b.query[i * query_width]);
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
