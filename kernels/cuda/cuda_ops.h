#pragma once

// Ops on an NVIDIA GPU. All pointers that ops take are the device's, but the spans of tokens and
// sequences. Ops start kernels in one stream and return; reads of the host wait for them. A failure
// of the device in an op ends the process: what it holds is lost with it.

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cuda/runtime.h"
#include "kernels/cuda/staging.h"
#include "kernels/cuda/step_tables.h"
#include "kernels/ops.h"

namespace baton::kernels::cuda {

class CudaOps final : public Ops {
 public:
  static absl::StatusOr<std::unique_ptr<Ops>> Create(const CudaOptions& options);

  std::string Describe() const override { return "cuda, " + info_.name; }
  bool host_memory() const override { return false; }
  absl::Status CheckLayout(const KvLayout& layout) const override;
  absl::StatusOr<std::unique_ptr<Buffer>> NewBuffer(int64_t bytes) override;
  void ToDevice(void* to, const void* from, int64_t bytes) override;
  void ToHost(std::span<const CopyPiece> pieces) override;
  bool PinHost(std::span<std::byte> memory) override;
  void UnpinHost(std::span<std::byte> memory) override;
  void Copy(float* to, const float* from, int64_t count) override;

  absl::StatusOr<std::unique_ptr<Matrix>> LoadMatrix(const HostMatrix& host) override;
  void Embed(const Matrix& table, std::span<const TokenId> tokens, float* out) override;
  void RmsNorm(const float* x, const float* weight, int32_t rows, int32_t cols, float epsilon,
               float* out) override;
  void MatMul(std::span<const Matrix* const> weights, const float* x, int32_t rows,
              std::span<float* const> outs, bool add) override;
  void RopeAndStoreKv(const Rope& rope, const KvLayout& layout, std::byte* slab, int32_t layer,
                      int32_t heads, std::span<const SequenceRows> sequences, float* q,
                      const float* k, const float* v) override;
  void Attention(const AttentionShape& shape, const KvLayout& layout, const std::byte* slab,
                 int32_t layer, std::span<const SequenceRows> sequences, const float* q,
                 float* out) override;
  void SwiGlu(const float* gate, const float* up, int32_t rows, int32_t cols, float* out) override;
  void DrawTokens(const float* logits, int32_t vocab, std::span<const Draw> draws,
                  std::span<const LogitEdit> edits, std::span<TokenId> tokens) override;
  double MeasureTensorGopS(int32_t rounds) override;

 private:
  // Device memory for one purpose, which grows with need.
  struct Scratch {
    std::unique_ptr<Buffer> buffer;
    int64_t bytes = 0;
  };

  CudaOps(DeviceInfo info, const CudaOptions& options)
      : info_(std::move(info)), gpu_(options.gpu), max_rows_(options.max_rows) {}
  void* Reserve(Scratch& scratch, int64_t bytes);
  void SendTables(std::span<const SequenceRows> sequences, const KvLayout& layout, int32_t group);

  // What rounded_ holds: rows of an op's output, or of a product's input. Every op that may write
  // them forgets them.
  struct RoundedRows {
    const float* x = nullptr;
    int32_t rows = 0;
    int32_t cols = 0;
    bool bf16 = false;
    bool operator==(const RoundedRows&) const = default;
  };
  Rounding RoundingOf(const RoundedRows& rows);
  Rounding RoundingOfOutput(const float* out, int32_t rows, int32_t cols);

  const DeviceInfo info_;
  const int32_t gpu_;  // each thread that calls chooses it, as CUDA wants
  const int32_t max_rows_;
  Staging staging_;
  StepTables tables_;  // what the device has
  StepTables next_;
  Scratch tokens_, places_, block_tables_, tiles_;
  Scratch rounded_, row_scales_;  // the left side of a product
  RoundedRows rounded_rows_;
  std::optional<bool> likely_bf16_;  // as the last product wanted its rows
  Scratch sums_, softmaxes_;         // of segments
  Scratch draw_rows_, draw_edits_, draw_values_, drawn_;
  std::vector<DrawRow> next_draws_;
  std::vector<DrawEdit> next_edits_;
};

}  // namespace baton::kernels::cuda
