#include <algorithm>
#include <utility>
#include <vector>

#include "common/status_macros.h"
#include "kernels/dequantize.h"
#include "kernels/host_matrix.h"
#include "kernels/reference/reference_ops.h"

namespace baton::kernels {
namespace {

class FloatMatrix final : public Matrix {
 public:
  FloatMatrix(int64_t rows, int64_t cols, std::vector<float> values)
      : rows_(rows), cols_(cols), values_(std::move(values)) {}
  int64_t rows() const override { return rows_; }
  int64_t cols() const override { return cols_; }
  int64_t bytes() const override { return static_cast<int64_t>(values_.size() * sizeof(float)); }
  const float* row(int64_t r) const { return values_.data() + r * cols_; }

 private:
  const int64_t rows_;
  const int64_t cols_;
  const std::vector<float> values_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Matrix>> ReferenceOps::LoadMatrix(const HostMatrix& host) {
  BATON_RETURN_IF_ERROR(CheckHostMatrix(host));
  std::vector<float> values(host.rows * host.cols);
  Dequantize(host.dtype, host.data, values);
  return std::make_unique<FloatMatrix>(host.rows, host.cols, std::move(values));
}

void ReferenceOps::Embed(const Matrix& table, std::span<const TokenId> tokens, float* out) {
  const auto& matrix = static_cast<const FloatMatrix&>(table);
  for (const TokenId token : tokens) {
    out = std::copy_n(matrix.row(token), matrix.cols(), out);
  }
}

void ReferenceOps::MatMul(std::span<const Matrix* const> weights, const float* x, int32_t rows,
                          std::span<float* const> outs, bool add) {
  for (size_t i = 0; i < weights.size(); ++i) {
    const auto& matrix = static_cast<const FloatMatrix&>(*weights[i]);
    for (int32_t r = 0; r < rows; ++r) {
      const float* input = x + r * matrix.cols();
      float* output = outs[i] + r * matrix.rows();
      for (int64_t n = 0; n < matrix.rows(); ++n) {
        const float* row = matrix.row(n);
        double sum = 0;
        for (int64_t k = 0; k < matrix.cols(); ++k) sum += double{input[k]} * row[k];
        output[n] = static_cast<float>(add ? output[n] + sum : sum);
      }
    }
  }
}

}  // namespace baton::kernels
