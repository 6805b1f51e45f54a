#pragma once

// What `baton bench kernels` measures: each op of kernels/ops.h with the shapes of a small and of a
// middling model.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "bench/ceilings.h"
#include "bench/roofline.h"
#include "kernels/ops.h"

namespace baton::bench {

// What cases are made for. Outlives them.
struct KernelContext {
  // For kMaxRows rows. Each matrix has Ops of its own, which keep its memory to their end.
  std::function<absl::StatusOr<std::unique_ptr<kernels::Ops>>()> new_ops;
  const Ceilings* ceilings = nullptr;
  // What stays in memory between two steps of a real engine, weights and KV, is laid out several
  // times, until it takes this many bytes, and used in turn: so that it is read from where it would
  // be.
  int64_t cycle_bytes = 0;
};
inline constexpr int32_t kMaxRows = 512;

// A case ready to run. `run` is one call of an op (of several for a whole prompt).
struct PreparedCase {
  Work work;
  std::function<void()> run;
};

struct KernelCase {
  std::string name;   // "matmul"
  std::string shape;  // "512 x 1536 x 576"
  std::string type;   // of weights or KV
  std::function<absl::StatusOr<PreparedCase>(const KernelContext& context)> prepare;
};

// Dimensions of a model whose ops are measured.
struct ModelShape {
  int32_t embedding;
  int32_t feed_forward;
  int32_t heads;
  int32_t kv_heads;
  int32_t head_dim;
  int32_t vocab;
};
inline constexpr ModelShape kSmallModel = {576, 1536, 9, 3, 64, 49152};     // SmolLM2-135M
inline constexpr ModelShape kMiddleModel = {2048, 5632, 32, 4, 64, 32000};  // llamas of 1.1B

// All cases, in the order of the table. Cases of one matrix share it, and follow each other: those
// that are done should be dropped before the next are prepared.
std::vector<KernelCase> AllKernelCases();

// The parts that AllKernelCases is made of.
std::vector<KernelCase> MatMulCases();
std::vector<KernelCase> AttentionCases();
std::vector<KernelCase> ConvertCases();      // convert_kv, and copy_kv to see it beside
std::vector<KernelCase> ElementwiseCases();  // rms_norm, swiglu, rope_and_store_kv, embed

}  // namespace baton::bench
