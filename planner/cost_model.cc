#include "planner/cost_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace baton::planner {

double KvBytesPerToken(const ModelFacts& model) {
  return 2.0 * static_cast<double>(model.layers * model.kv_heads * model.head_dim) *
         model.kv_bytes_each;
}

double WeightBytes(const ModelFacts& model) { return model.parameters * model.weight_bytes_each; }

int64_t MaxBatch(const ModelFacts& model, const HardwareFacts& worker, int64_t context_tokens) {
  const double for_kv = worker.chips * worker.hbm_bytes - WeightBytes(model);
  const double per_sequence = static_cast<double>(context_tokens) * KvBytesPerToken(model);
  return static_cast<int64_t>(std::max(0.0, std::floor(for_kv / per_sequence)));
}

double CriticalBatch(const ModelFacts& model, const HardwareFacts& worker) {
  return worker.flops_per_s / worker.hbm_bytes_per_s * model.weight_bytes_each / 2;
}

double PrefillSeconds(const ModelFacts& model, const HardwareFacts& worker, int64_t input_tokens,
                      double mfu) {
  return 2 * model.parameters * static_cast<double>(input_tokens) /
         (worker.chips * worker.flops_per_s * mfu);
}

double DecodeStepSeconds(const ModelFacts& model, const HardwareFacts& worker, int64_t batch,
                         int64_t context_tokens) {
  const double kv_bytes = static_cast<double>(batch * context_tokens) * KvBytesPerToken(model);
  return (WeightBytes(model) + kv_bytes) / (worker.chips * worker.hbm_bytes_per_s);
}

double TransferSeconds(double kv_bytes_per_token, int64_t tokens, double bytes_per_s) {
  return static_cast<double>(tokens) * kv_bytes_per_token / bytes_per_s;
}

absl::StatusOr<double> PrefillPerDecode(double prefill_s, double decode_step_s, int64_t batch,
                                        int64_t output_tokens) {
  const double ratio =
      prefill_s * static_cast<double>(batch) / (decode_step_s * static_cast<double>(output_tokens));
  if (prefill_s > 0 && decode_step_s > 0 && batch > 0 && output_tokens > 0 &&
      std::isfinite(ratio)) {
    return ratio;
  }
  return absl::InvalidArgumentError(
      fmt::format("no ratio for a prefill of {} s, decode steps of {} s, batch {} and {} output "
                  "tokens: all must "
                  "be positive and finite",
                  prefill_s, decode_step_s, batch, output_tokens));
}

}  // namespace baton::planner
