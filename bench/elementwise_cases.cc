#include <fmt/format.h>

#include <memory>
#include <numeric>
#include <utility>

#include "bench/kernel_cases.h"
#include "bench/random_weights.h"
#include "common/status_macros.h"
#include "engine/host_slab.h"

namespace baton::bench {
namespace {

constexpr int32_t kRows[] = {kMaxRows, 1};
constexpr char kFloat[] = "F32";

// Work that moves `bytes` of activations, which the op before left in a cache.
Work Moving(int64_t bytes) {
  return {.bytes = static_cast<double>(bytes), .working_set_bytes = bytes};
}

int64_t FloatBytes(int64_t count) { return count * static_cast<int64_t>(sizeof(float)); }

KernelCase RmsNorm(int32_t rows, int32_t cols) {
  return {"rms_norm", fmt::format("{} x {}", rows, cols), kFloat,
          [=](const KernelContext& context) -> absl::StatusOr<PreparedCase> {
            BATON_ASSIGN_OR_RETURN(std::shared_ptr<kernels::Ops> ops, context.new_ops());
            const int64_t count = int64_t{rows} * cols;
            PreparedCase prepared{Moving(FloatBytes(2 * count + cols)), {}};
            prepared.run = [=, ops = std::move(ops), x = RandomActivations(count, /*seed=*/1),
                            weight = RandomActivations(cols, /*seed=*/2),
                            out = std::vector<float>(static_cast<size_t>(count))]() mutable {
              ops->RmsNorm(x.data(), weight.data(), rows, cols, 1e-5f, out.data());
            };
            return prepared;
          }};
}

KernelCase SwiGlu(int32_t rows, int32_t cols) {
  return {"swiglu", fmt::format("{} x {}", rows, cols), kFloat,
          [=](const KernelContext& context) -> absl::StatusOr<PreparedCase> {
            BATON_ASSIGN_OR_RETURN(std::shared_ptr<kernels::Ops> ops, context.new_ops());
            const int64_t count = int64_t{rows} * cols;
            PreparedCase prepared{Moving(FloatBytes(3 * count)), {}};
            prepared.run = [=, ops = std::move(ops), gate = RandomActivations(count, /*seed=*/1),
                            up = RandomActivations(count, /*seed=*/2),
                            out = std::vector<float>(static_cast<size_t>(count))]() mutable {
              ops->SwiGlu(gate.data(), up.data(), rows, cols, out.data());
            };
            return prepared;
          }};
}

// What rope_and_store_kv reads and writes: `rows` tokens, the first of a sequence.
struct RopeBuffers {
  RopeBuffers(const ModelShape& model, int32_t rows)
      : cosine(RandomActivations(int64_t{rows} * model.head_dim / 2, /*seed=*/1)),
        sine(RandomActivations(int64_t{rows} * model.head_dim / 2, /*seed=*/2)),
        q(RandomActivations(int64_t{rows} * model.heads * model.head_dim, /*seed=*/3)),
        k(RandomActivations(int64_t{rows} * model.kv_heads * model.head_dim, /*seed=*/4)),
        v(k),
        table(static_cast<size_t>(rows)) {
    std::iota(table.begin(), table.end(), 0);
  }

  std::vector<float> cosine, sine, q, k, v;
  std::vector<int32_t> table;
  engine::HostSlab slab;
};

KernelCase RopeAndStoreKv(int32_t rows, const ModelShape& model) {
  constexpr auto kKvType = kernels::KvDType::kF16;
  return {"rope_and_store_kv",
          fmt::format("{} x {}:{} x {}", rows, model.heads, model.kv_heads, model.head_dim),
          std::string(Traits(kKvType).name),
          [=](const KernelContext& context) -> absl::StatusOr<PreparedCase> {
            BATON_ASSIGN_OR_RETURN(std::shared_ptr<kernels::Ops> ops, context.new_ops());
            const kernels::KvLayout layout{1, model.kv_heads, model.head_dim, 16, kKvType};
            const auto buffers = std::make_shared<RopeBuffers>(model, rows);
            BATON_ASSIGN_OR_RETURN(
                buffers->slab,
                engine::HostSlab::Allocate(layout.BlocksFor(rows) * layout.block_bytes()));
            const int64_t floats = 2 * std::ssize(buffers->q) + 2 * std::ssize(buffers->k);
            PreparedCase prepared{Moving(FloatBytes(floats) + rows * layout.bytes_per_token()), {}};
            prepared.run = [=, ops = std::move(ops)] {
              const kernels::Rope rope{kernels::RopePairs::kInterleaved, model.head_dim,
                                       buffers->cosine, buffers->sine};
              const kernels::SequenceRows sequence{buffers->table, 0, 0, rows};
              ops->RopeAndStoreKv(rope, layout, buffers->slab.bytes().data(), 0, model.heads,
                                  {&sequence, 1}, buffers->q.data(), buffers->k.data(),
                                  buffers->v.data());
            };
            return prepared;
          }};
}

// The matrix goes before the Ops that it belongs to.
struct Table {
  std::unique_ptr<kernels::Ops> ops;
  std::unique_ptr<kernels::Matrix> matrix;
};

KernelCase Embed(int32_t rows, const ModelShape& model, DType dtype) {
  return {"embed", fmt::format("{} of {} x {}", rows, model.vocab, model.embedding),
          std::string(Traits(dtype).name),
          [=](const KernelContext& context) -> absl::StatusOr<PreparedCase> {
            const auto table = std::make_shared<Table>();
            BATON_ASSIGN_OR_RETURN(table->ops, context.new_ops());
            const std::vector<std::byte> bytes =
                RandomWeights(dtype, model.vocab, model.embedding, /*seed=*/1);
            BATON_ASSIGN_OR_RETURN(table->matrix, table->ops->LoadMatrix({dtype, model.vocab,
                                                                          model.embedding, bytes}));
            PreparedCase prepared;
            const double row_bytes = static_cast<double>(table->matrix->bytes()) / model.vocab;
            prepared.work = {
                .bytes = rows * (row_bytes + static_cast<double>(FloatBytes(model.embedding))),
                .working_set_bytes = table->matrix->bytes()};
            // Other tokens in every call, or the same few rows would stay in a cache. The step has
            // no factor in common with any vocabulary's size.
            std::vector<TokenId> tokens(static_cast<size_t>(rows));
            prepared.run = [=, next = int64_t{0},
                            out = std::vector<float>(
                                static_cast<size_t>(int64_t{rows} * model.embedding))]() mutable {
              constexpr int64_t kStep = 15485863;  // a prime
              for (TokenId& token : tokens) {
                token = static_cast<TokenId>(next++ * kStep % model.vocab);
              }
              table->ops->Embed(*table->matrix, tokens, out.data());
            };
            return prepared;
          }};
}

}  // namespace

std::vector<KernelCase> ElementwiseCases() {
  std::vector<KernelCase> cases;
  for (const ModelShape& model : {kSmallModel, kMiddleModel}) {
    for (const int32_t rows : kRows) cases.push_back(RmsNorm(rows, model.embedding));
    for (const int32_t rows : kRows) cases.push_back(SwiGlu(rows, model.feed_forward));
    for (const int32_t rows : kRows) cases.push_back(RopeAndStoreKv(rows, model));
    for (const DType dtype : {DType::kF16, DType::kQ8_0, DType::kQ4_1}) {
      for (const int32_t rows : kRows) cases.push_back(Embed(rows, model, dtype));
    }
  }
  return cases;
}

}  // namespace baton::bench
