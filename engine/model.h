#pragma once

// A transformer with its weights, and its forward pass.

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/model_config.h"
#include "kernels/ops.h"

namespace baton::engine {

// The rows of one step. Everything pointed to lives until Forward returns.
struct ForwardBatch {
  std::span<const TokenId> tokens;                   // [rows]
  std::span<const kernels::SequenceRows> sequences;  // cover all rows, in row order
  std::span<const int32_t> logit_rows;               // rows whose logits are wanted, ascending
  // Called when all rows' keys and values of so many layers, the lowest, are in the slab: after
  // each layer, the last time before the logits. Null: nobody.
  const std::function<void(int32_t layers)>* kv_stored = nullptr;
  // Of a device with memory of its own, where it may draw tokens itself: how for each logit row,
  // and where it puts them. Logits of rows that it drew from do not come to the host.
  std::span<const kernels::Draw> draws = {};
  std::span<const kernels::LogitEdit> edits = {};
  std::span<TokenId> drawn = {};
};

struct ModelOptions {
  int32_t max_rows = 512;       // most rows of a step
  int32_t max_logit_rows = 64;  // most logit rows of a step
  int32_t max_context = 0;      // 0: the model's; else the smaller of the two
  // Called with the share of weight bytes loaded, rising to 1, after each matrix.
  std::function<void(double)> progress = nullptr;
};

// Numbers in the device's memory.
class DeviceFloats {
 public:
  static absl::StatusOr<DeviceFloats> Create(kernels::Ops* ops, size_t count);  // zeros
  static absl::StatusOr<DeviceFloats> Create(kernels::Ops* ops, std::span<const float> values);
  float* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  std::unique_ptr<kernels::Buffer> buffer_;
  float* data_ = nullptr;
  size_t size_ = 0;
};

// Const after Load but for its activation buffers, which Forward uses: one device thread. `ops`
// must outlive it. Does not keep the file.
class Model {
 public:
  static absl::StatusOr<std::unique_ptr<Model>> Load(const GgufFile& file, kernels::Ops* ops,
                                                     const ModelOptions& options);
  ~Model();

  kernels::Ops& ops() { return *ops_; }
  const ModelConfig& config() const { return config_; }
  int32_t max_rows() const { return options_.max_rows; }
  int32_t max_logit_rows() const { return options_.max_logit_rows; }
  int64_t weight_bytes() const;

  // Writes the rows' keys and values into `slab`, of the device's memory, and returns logits
  // [logit_rows.size()][vocab], valid until the next call. Allocates nothing. Rows without logits
  // leave the last layer once their keys and values are stored: nothing reads what it would make of
  // them.
  std::span<float> Forward(const ForwardBatch& batch, const kernels::KvLayout& layout,
                           std::byte* slab);

 private:
  struct Layer;
  struct Buffers;
  class Loader;
  struct KvTarget;  // the slab and the sequences that a step writes and reads

  Model(ModelConfig config, ModelOptions options, kernels::Ops* ops);
  absl::Status FillRopeTables(std::span<const float> divisors);
  void StoreKv(int32_t layer, int32_t rows, const KvTarget& kv);
  void FinishLayer(int32_t layer, int32_t rows, const KvTarget& kv);
  std::span<const kernels::SequenceRows> KeepLogitRows(const ForwardBatch& batch);
  std::span<float> BringLogits(const ForwardBatch& batch);

  ModelConfig config_;
  ModelOptions options_;
  kernels::Ops* ops_;
  std::unique_ptr<kernels::Matrix> embedding_;
  std::unique_ptr<kernels::Matrix> output_;  // null when tied
  DeviceFloats output_norm_;
  std::vector<Layer> layers_;
  DeviceFloats rope_cosine_, rope_sine_;  // [context][rope_dim / 2]
  kernels::Rope rope_;
  kernels::AttentionShape attention_;
  std::unique_ptr<Buffers> buffers_;
};

}  // namespace baton::engine
