#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>

#include "bench/kernel_cases.h"
#include "bench/random_weights.h"
#include "common/status_macros.h"
#include "engine/host_slab.h"
#include "kernels/kv_convert.h"
#include "kernels/reference/kv_vector.h"

namespace baton::bench {
namespace {

using kernels::KvDType;
using kernels::KvLayout;
using kernels::KvSide;

constexpr int32_t kTokens = 512;  // in one call; a multiple of every block size
constexpr int32_t kLayers = 30;

// Every vector of a block is sound.
void FillBlock(const KvLayout& layout, std::byte* block) {
  const std::vector<float> vector = RandomActivations(layout.head_dim, /*seed=*/1);
  for (int32_t layer = 0; layer < layout.layers; ++layer) {
    for (int32_t head = 0; head < layout.kv_heads; ++head) {
      for (int32_t token = 0; token < layout.block_tokens; ++token) {
        StoreKvVector(layout, KvSide::kKey, token, vector.data(),
                      block + layout.key_offset(layer, head));
        StoreKvVector(layout, KvSide::kValue, token, vector.data(),
                      block + layout.value_offset(layer, head));
      }
    }
  }
}

// Prompts of kTokens, enough of them that they come from DRAM.
struct Prompts {
  static absl::StatusOr<std::shared_ptr<Prompts>> Create(const KvLayout& from, const KvLayout& to,
                                                         int64_t cycle_bytes) {
    auto prompts = std::make_shared<Prompts>();
    prompts->from_bytes = kTokens / from.block_tokens * from.block_bytes();
    prompts->to_bytes = kTokens / to.block_tokens * to.block_bytes();
    const int64_t bytes = prompts->from_bytes + prompts->to_bytes;
    prompts->count = std::max<int64_t>(1, (cycle_bytes + bytes - 1) / bytes);
    BATON_ASSIGN_OR_RETURN(prompts->from,
                           engine::HostSlab::Allocate(prompts->count * prompts->from_bytes));
    BATON_ASSIGN_OR_RETURN(prompts->to,
                           engine::HostSlab::Allocate(prompts->count * prompts->to_bytes));
    const auto block = static_cast<size_t>(from.block_bytes());
    const std::span<std::byte> slab = prompts->from.bytes();
    FillBlock(from, slab.data());
    for (size_t at = block; at < slab.size(); at += block) {
      std::memcpy(slab.data() + at, slab.data(), block);
    }
    // Its pages are taken now: in a pool they were long ago.
    std::ranges::fill(prompts->to.bytes(), std::byte{1});
    return prompts;
  }
  Work work() const {
    const int64_t bytes = from_bytes + to_bytes;
    return {.bytes = static_cast<double>(bytes), .working_set_bytes = count * bytes};
  }
  // Of the next prompt.
  std::pair<const std::byte*, std::byte*> Next() {
    const int64_t i = next++ % count;
    return {from.bytes().data() + i * from_bytes, to.bytes().data() + i * to_bytes};
  }

  engine::HostSlab from, to;
  int64_t from_bytes = 0, to_bytes = 0;  // of a prompt
  int64_t count = 0;
  int64_t next = 0;
};

KvLayout LayoutOf(int32_t block_tokens, KvDType dtype) {
  return {kLayers, kSmallModel.kv_heads, kSmallModel.head_dim, block_tokens, dtype};
}

// What conversions are to be seen beside.
KernelCase CopyKv() {
  return {"copy_kv", fmt::format("{} tokens", kTokens), "F16",
          [](const KernelContext& context) -> absl::StatusOr<PreparedCase> {
            const KvLayout layout = LayoutOf(16, KvDType::kF16);
            BATON_ASSIGN_OR_RETURN(std::shared_ptr<Prompts> prompts,
                                   Prompts::Create(layout, layout, context.cycle_bytes));
            PreparedCase prepared{prompts->work(), {}};
            prepared.run = [prompts = std::move(prompts)] {
              const auto [from, to] = prompts->Next();
              std::memcpy(to, from, static_cast<size_t>(prompts->from_bytes));
            };
            return prepared;
          }};
}

KernelCase ConvertKv(int32_t from_tokens, KvDType from_dtype, int32_t to_tokens, KvDType to_dtype) {
  return {"convert_kv", fmt::format("{} tokens, {} > {}", kTokens, from_tokens, to_tokens),
          fmt::format("{} > {}", Traits(from_dtype).name, Traits(to_dtype).name),
          [=](const KernelContext& context) -> absl::StatusOr<PreparedCase> {
            const KvLayout source = LayoutOf(from_tokens, from_dtype);
            const KvLayout target = LayoutOf(to_tokens, to_dtype);
            BATON_ASSIGN_OR_RETURN(
                kernels::KvConverter made,
                kernels::KvConverter::Create({.layout = source}, {.layout = target}));
            BATON_ASSIGN_OR_RETURN(std::shared_ptr<Prompts> prompts,
                                   Prompts::Create(source, target, context.cycle_bytes));
            PreparedCase prepared{prompts->work(), {}};
            prepared.run = [=, converter = std::move(made),
                            prompts = std::move(prompts)]() mutable {
              const auto [from, to] = prompts->Next();
              const int32_t step = std::min(from_tokens, to_tokens);
              for (int32_t t = 0; t < kTokens; t += step) {
                converter.Convert(from + t / from_tokens * source.block_bytes(), t % from_tokens,
                                  step, to + t / to_tokens * target.block_bytes(), t % to_tokens);
              }
            };
            return prepared;
          }};
}

}  // namespace

std::vector<KernelCase> ConvertCases() {
  std::vector<KernelCase> cases = {CopyKv()};
  cases.push_back(ConvertKv(8, KvDType::kF16, 32, KvDType::kF16));
  cases.push_back(ConvertKv(32, KvDType::kF16, 8, KvDType::kF16));
  for (const auto& [from, to] :
       {std::pair(KvDType::kF32, KvDType::kF16), std::pair(KvDType::kF16, KvDType::kF32),
        std::pair(KvDType::kF16, KvDType::kBF16), std::pair(KvDType::kBF16, KvDType::kF16),
        std::pair(KvDType::kF16, KvDType::kInt8), std::pair(KvDType::kInt8, KvDType::kF16),
        std::pair(KvDType::kF16, KvDType::kFp8), std::pair(KvDType::kFp8, KvDType::kF16)}) {
    cases.push_back(ConvertKv(16, from, 16, to));
  }
  cases.push_back(ConvertKv(8, KvDType::kF16, 32, KvDType::kInt8));
  cases.push_back(ConvertKv(32, KvDType::kInt8, 8, KvDType::kF16));
  return cases;
}

}  // namespace baton::bench
