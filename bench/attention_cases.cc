#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <random>
#include <span>
#include <utility>

#include "bench/kernel_cases.h"
#include "bench/random_weights.h"
#include "common/status_macros.h"
#include "engine/host_slab.h"

namespace baton::bench {
namespace {

using kernels::KvDType;
using kernels::KvLayout;
using kernels::SequenceRows;

constexpr int32_t kBlockTokens = 16;

// A paged cache of several layers, full of random keys and values, with the Ops for it. Its blocks
// lie in no order.
class FilledCache {
 public:
  static absl::StatusOr<std::shared_ptr<FilledCache>> Create(const KernelContext& context,
                                                             const KvLayout& layout,
                                                             int32_t sequences, int32_t tokens) {
    std::shared_ptr<FilledCache> cache(new FilledCache(layout));
    BATON_ASSIGN_OR_RETURN(cache->ops_, context.new_ops());
    const int32_t blocks = layout.BlocksFor(tokens);
    BATON_ASSIGN_OR_RETURN(cache->slab_, engine::HostSlab::Allocate(int64_t{sequences} * blocks *
                                                                    layout.block_bytes()));
    std::vector<int32_t> order(static_cast<size_t>(sequences * blocks));
    std::iota(order.begin(), order.end(), 0);
    std::ranges::shuffle(order, std::mt19937(1));
    for (int32_t i = 0; i < sequences; ++i) {
      cache->tables_.emplace_back(order.begin() + i * blocks, order.begin() + (i + 1) * blocks);
    }
    for (int32_t layer = 0; layer < layout.layers; ++layer) {
      for (const std::vector<int32_t>& table : cache->tables_) {
        cache->Fill(layer, table, tokens);
      }
    }
    return cache;
  }

  kernels::Ops* ops() const { return ops_.get(); }
  const KvLayout& layout() const { return layout_; }
  const std::byte* slab() const { return slab_.bytes().data(); }
  std::span<const int32_t> table(int32_t sequence) const { return tables_[sequence]; }

 private:
  explicit FilledCache(const KvLayout& layout) : layout_(layout) {}

  void Fill(int32_t layer, std::span<const int32_t> table, int32_t tokens) {
    const int64_t row_floats = int64_t{layout_.kv_heads} * layout_.head_dim;
    if (random_.empty()) random_ = RandomActivations(kMaxRows * row_floats, /*seed=*/3);
    std::vector<float> query(random_.size());
    const kernels::Rope no_turn;  // a rotary_dim of 0
    for (int32_t first = 0; first < tokens; first += kMaxRows) {
      const SequenceRows rows{table, first, 0, std::min(kMaxRows, tokens - first)};
      ops_->RopeAndStoreKv(no_turn, layout_, slab_.bytes().data(), layer, layout_.kv_heads,
                           {&rows, 1}, query.data(), random_.data(), random_.data());
    }
  }

  const KvLayout layout_;
  std::unique_ptr<kernels::Ops> ops_;
  engine::HostSlab slab_;
  std::vector<std::vector<int32_t>> tables_;
  std::vector<float> random_;
};

struct AttentionCase {
  ModelShape model;
  KvDType kv_type;
  int32_t batch;
  int32_t tokens;  // of context, or of a prompt

  int64_t query_floats() const { return int64_t{model.heads} * model.head_dim; }
  kernels::AttentionShape shape() const {
    return {model.heads, 1 / std::sqrt(static_cast<float>(model.head_dim))};
  }
  KvLayout layout(int32_t layers) const {
    return {layers, model.kv_heads, model.head_dim, kBlockTokens, kv_type};
  }
  // A product with the key and one with the value of each position.
  double ops(double positions) const {
    return 4.0 * static_cast<double>(query_floats()) * positions;
  }
};

// One layer's attention of one new token for each sequence.
absl::StatusOr<PreparedCase> PrepareDecode(const KernelContext& context, const AttentionCase& c) {
  constexpr int64_t kMaxLayers = 1024;
  const int64_t layer_bytes = c.batch * int64_t{c.tokens} * c.layout(1).bytes_per_token();
  const auto layers = static_cast<int32_t>(
      std::clamp((context.cycle_bytes + layer_bytes - 1) / layer_bytes, int64_t{1}, kMaxLayers));
  BATON_ASSIGN_OR_RETURN(const std::shared_ptr<FilledCache> cache,
                         FilledCache::Create(context, c.layout(layers), c.batch, c.tokens));
  std::vector<SequenceRows> rows;
  for (int32_t i = 0; i < c.batch; ++i) rows.push_back({cache->table(i), c.tokens - 1, i, 1});
  PreparedCase prepared;
  prepared.work = {.bytes = static_cast<double>(layer_bytes),
                   .working_set_bytes = layers * layer_bytes,
                   .ops = c.ops(double{1} * c.batch * c.tokens),
                   .arithmetic = ArithmeticOf(c.kv_type, *context.ceilings)};
  prepared.run =
      [cache, rows, shape = c.shape(), layers, layer = 0,
       q = RandomActivations(c.batch * c.query_floats(), /*seed=*/4),
       out = std::vector<float>(static_cast<size_t>(c.batch * c.query_floats()))]() mutable {
        cache->ops()->Attention(shape, cache->layout(), cache->slab(), layer++ % layers, rows,
                                q.data(), out.data());
      };
  return prepared;
}

// One layer's attention of a whole prompt, chunk after chunk.
absl::StatusOr<PreparedCase> PreparePrefill(const KernelContext& context, const AttentionCase& c) {
  BATON_ASSIGN_OR_RETURN(const std::shared_ptr<FilledCache> cache,
                         FilledCache::Create(context, c.layout(1), 1, c.tokens));
  const int64_t kv_bytes = c.tokens * c.layout(1).bytes_per_token();
  PreparedCase prepared;
  prepared.work = {.bytes = static_cast<double>(kv_bytes),
                   .working_set_bytes = kv_bytes,
                   .ops = c.ops(0.5 * c.tokens * (c.tokens + 1.0)),
                   .arithmetic = ArithmeticOf(c.kv_type, *context.ceilings),
                   .told_in_ops = true};
  prepared.run =
      [cache, shape = c.shape(), tokens = c.tokens,
       q = RandomActivations(kMaxRows * c.query_floats(), /*seed=*/4),
       out = std::vector<float>(static_cast<size_t>(kMaxRows * c.query_floats()))]() mutable {
        for (int32_t first = 0; first < tokens; first += kMaxRows) {
          const SequenceRows rows{cache->table(0), first, 0, std::min(kMaxRows, tokens - first)};
          cache->ops()->Attention(shape, cache->layout(), cache->slab(), 0, {&rows, 1}, q.data(),
                                  out.data());
        }
      };
  return prepared;
}

std::string HeadsText(const ModelShape& model) {
  return fmt::format("{}:{} x {}", model.heads, model.kv_heads, model.head_dim);
}

}  // namespace

std::vector<KernelCase> AttentionCases() {
  std::vector<KernelCase> cases;
  for (const ModelShape& model : {kSmallModel, kMiddleModel}) {
    for (const KvDType type : kernels::kKvDTypes) {
      const std::string type_name(Traits(type).name);
      for (const int32_t batch : {1, 8}) {
        for (const int32_t context_tokens : {1024, 8192}) {
          const AttentionCase c{model, type, batch, context_tokens};
          cases.push_back(
              {"attention_decode",
               fmt::format("{} x {}, {}", batch, context_tokens, HeadsText(model)), type_name,
               [c](const KernelContext& context) { return PrepareDecode(context, c); }});
        }
      }
      for (const int32_t prompt_tokens : {512, 4096}) {
        const AttentionCase c{model, type, 1, prompt_tokens};
        cases.push_back({"attention_prefill",
                         fmt::format("{}, {}", prompt_tokens, HeadsText(model)), type_name,
                         [c](const KernelContext& context) { return PreparePrefill(context, c); }});
      }
    }
  }
  return cases;
}

}  // namespace baton::bench
