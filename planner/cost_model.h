#pragma once

// The sum behind the design: how long prefill and decode take on given hardware, and how many
// prefill workers one decode worker needs. Pure functions; every formula is here, named, with its
// source.
//
// Source of the formulas: Austin et al., "How to Scale Your Model" (2025), chapter "All About
// Transformer Inference", whose worked case (LLaMA-3-70B on TPU v5e, 8192 in, 512 out, batch 32)
// gives P = 3G. Simplifications kept from there: parameter FLOPs only in prefill (no attention
// FLOPs), no communication, no queueing.

#include <cstdint>

#include "absl/status/statusor.h"

namespace baton::planner {

struct ModelFacts {
  double parameters = 0;  // all of them are read in each decode step
  double weight_bytes_each = 2;
  int64_t layers = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  double kv_bytes_each = 2;  // per element of the KV cache
};

// One worker: `chips` that compute together as one.
struct HardwareFacts {
  double chips = 1;
  double flops_per_s = 0;      // per chip, in the format that is multiplied
  double hbm_bytes_per_s = 0;  // per chip
  double hbm_bytes = 0;        // per chip
};

// 2 (K and V) * layers * kv_heads * head_dim * bytes.
double KvBytesPerToken(const ModelFacts& model);

double WeightBytes(const ModelFacts& model);

// Sequences of `context_tokens` whose KV fits beside the weights; 0 when not even the weights fit.
int64_t MaxBatch(const ModelFacts& model, const HardwareFacts& worker, int64_t context_tokens);

// Batch at which a decode step's matrix products take as long as reading their weights:
// flops_per_s / hbm_bytes_per_s * weight_bytes_each / 2.
double CriticalBatch(const ModelFacts& model, const HardwareFacts& worker);

// 2 * parameters * tokens / (chips * flops_per_s * mfu). `mfu` is the share of the peak reached, in
// (0, 1].
double PrefillSeconds(const ModelFacts& model, const HardwareFacts& worker, int64_t input_tokens,
                      double mfu);

// (weights + batch * context * KV bytes) / (chips * hbm_bytes_per_s): a decode step reads all of
// both once.
double DecodeStepSeconds(const ModelFacts& model, const HardwareFacts& worker, int64_t batch,
                         int64_t context_tokens);

// What moving `tokens` of KV takes: tokens * kv_bytes_per_token / bytes_per_s. Infinite without a
// rate.
double TransferSeconds(double kv_bytes_per_token, int64_t tokens, double bytes_per_s);

// Prefill workers that keep one decode worker of `batch` sequences busy:
// prefill_s * batch / (decode_step_s * output_tokens), each finished sequence being replaced by a
// prefilled one. InvalidArgument when a time or the output length is not positive and finite.
absl::StatusOr<double> PrefillPerDecode(double prefill_s, double decode_step_s, int64_t batch,
                                        int64_t output_tokens);

}  // namespace baton::planner
