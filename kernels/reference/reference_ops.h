#pragma once

// Plain loops in one thread, sums in double: the judge of the other backends. Each op is in the
// file of its name.

#include "kernels/ops.h"

namespace baton::kernels {

class ReferenceOps final : public Ops {
 public:
  std::string Describe() const override { return "reference, 1 thread"; }
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
};

}  // namespace baton::kernels
