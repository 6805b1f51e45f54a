#include <fmt/format.h>

#include <memory>
#include <utility>

#include "bench/kernel_cases.h"
#include "bench/random_weights.h"
#include "common/status_macros.h"

namespace baton::bench {
namespace {

using kernels::Matrix;

constexpr DType kWeightTypes[] = {DType::kF32,  DType::kF16,  DType::kBF16, DType::kQ8_0,
                                  DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1,
                                  DType::kQ4_K, DType::kQ5_K, DType::kQ6_K};
constexpr int32_t kRows[] = {kMaxRows, 1, 8, 16, 32};  // a prefill chunk, and decode batches

struct MatrixShape {
  int64_t outputs;
  int64_t inputs;
  bool prefill;  // else only logits, of decode rows
};
constexpr MatrixShape kShapes[] = {
    {kSmallModel.feed_forward, kSmallModel.embedding, true},    // gate, up
    {kSmallModel.embedding, kSmallModel.feed_forward, true},    // down
    {kSmallModel.vocab, kSmallModel.embedding, false},          // output
    {kMiddleModel.feed_forward, kMiddleModel.embedding, true},  // gate, up
    {kMiddleModel.embedding, kMiddleModel.feed_forward, true},  // down
};

// Equal matrices in different memory, used in turn. Loaded by the first case that asks.
class CycledMatrices {
 public:
  CycledMatrices(DType dtype, const MatrixShape& shape) : dtype_(dtype), shape_(shape) {}

  absl::Status Load(const KernelContext& context) {
    if (ops_ != nullptr) return absl::OkStatus();
    BATON_ASSIGN_OR_RETURN(ops_, context.new_ops());
    const std::vector<std::byte> bytes =
        RandomWeights(dtype_, shape_.outputs, shape_.inputs, /*seed=*/1);
    do {
      BATON_ASSIGN_OR_RETURN(matrices_.emplace_back(),
                             ops_->LoadMatrix({dtype_, shape_.outputs, shape_.inputs, bytes}));
    } while (all_bytes() < context.cycle_bytes);
    return absl::OkStatus();
  }

  kernels::Ops* ops() const { return ops_.get(); }
  const Matrix* Next() { return matrices_[next_++ % matrices_.size()].get(); }
  int64_t bytes() const { return matrices_.front()->bytes(); }
  int64_t all_bytes() const { return bytes() * std::ssize(matrices_); }

 private:
  const DType dtype_;
  const MatrixShape shape_;
  std::unique_ptr<kernels::Ops> ops_;
  std::vector<std::unique_ptr<Matrix>> matrices_;
  size_t next_ = 0;
};

absl::StatusOr<PreparedCase> Prepare(const KernelContext& context, DType dtype,
                                     const MatrixShape& shape, int32_t rows,
                                     const std::shared_ptr<CycledMatrices>& matrices) {
  BATON_RETURN_IF_ERROR(matrices->Load(context));
  PreparedCase prepared;
  prepared.work = {
      .bytes = static_cast<double>(matrices->bytes()),
      .working_set_bytes = matrices->all_bytes(),
      .ops = 2.0 * rows * static_cast<double>(shape.outputs) * static_cast<double>(shape.inputs),
      .arithmetic = ArithmeticOf(dtype, *context.ceilings),
      .told_in_ops = rows > 1};
  prepared.run = [matrices, rows, x = RandomActivations(rows * shape.inputs, /*seed=*/2),
                  out = std::vector<float>(static_cast<size_t>(rows * shape.outputs))]() mutable {
    const Matrix* const weights = matrices->Next();
    float* const outs = out.data();
    matrices->ops()->MatMul({&weights, 1}, x.data(), rows, {&outs, 1}, /*add=*/false);
  };
  return prepared;
}

}  // namespace

std::vector<KernelCase> MatMulCases() {
  std::vector<KernelCase> cases;
  for (const MatrixShape& shape : kShapes) {
    for (const DType dtype : kWeightTypes) {
      if (shape.inputs % Traits(dtype).block_elements != 0) continue;
      const auto matrices = std::make_shared<CycledMatrices>(dtype, shape);
      for (const int32_t rows : kRows) {
        if (rows == kMaxRows && !shape.prefill) continue;
        cases.push_back({"matmul", fmt::format("{} x {} x {}", rows, shape.outputs, shape.inputs),
                         std::string(Traits(dtype).name), [=](const KernelContext& context) {
                           return Prepare(context, dtype, shape, rows, matrices);
                         }});
      }
    }
  }
  return cases;
}

}  // namespace baton::bench
