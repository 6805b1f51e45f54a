// Conversion of KV blocks, against the layout's formulas and the store kernel.

#include "kernels/kv_convert.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "kernels/cpu/cpu_isa.h"
#include "kernels/reference/kv_vector.h"
#include "tests/kernels/test_support.h"

namespace baton::kernels {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// Blocks of one shard for `tokens` tokens; every byte is `poison` until it is written.
struct Blocks {
  Blocks(const KvShard& held, int32_t tokens, std::byte poison)
      : shard(held),
        bytes(static_cast<size_t>(held.layout.BlocksFor(tokens) * held.layout.block_bytes()),
              poison) {}
  std::byte* At(int32_t block) { return bytes.data() + block * shard.layout.block_bytes(); }
  // The keys or values of a head of the model, in a token's block.
  std::byte* Head(KvSide side, int32_t layer, int32_t head, int32_t token) {
    const KvLayout& layout = shard.layout;
    const int32_t local = head - shard.first_head;
    return At(token / layout.block_tokens) + (side == KvSide::kKey
                                                  ? layout.key_offset(layer, local)
                                                  : layout.value_offset(layer, local));
  }
  KvShard shard;
  std::vector<std::byte> bytes;
};

// Random vectors, among them those that scaled formats treat apart.
std::vector<float> RandomVector(std::mt19937& random, int32_t dim) {
  std::vector<float> x =
      RandomFloats(random, dim, std::ldexp(1.0f, static_cast<int>(random() % 20) - 10));
  const uint32_t kind = random() % 16;
  if (kind == 0) std::ranges::fill(x, 0.0f);
  if (kind == 1) std::ranges::fill(x, -1e-32f);
  if (kind == 2) x[random() % dim] = -60000;
  return x;
}

Blocks RandomBlocks(const KvShard& shard, int32_t tokens, std::mt19937& random) {
  Blocks blocks(shard, tokens, std::byte{0xff});
  const KvLayout& layout = shard.layout;
  for (int32_t layer = 0; layer < layout.layers; ++layer) {
    for (int32_t head = shard.first_head; head < shard.end_head(); ++head) {
      for (int32_t t = 0; t < tokens; ++t) {
        for (const KvSide side : {KvSide::kKey, KvSide::kValue}) {
          StoreKvVector(layout, side, t % layout.block_tokens,
                        RandomVector(random, layout.head_dim).data(),
                        blocks.Head(side, layer, head, t));
        }
      }
    }
  }
  return blocks;
}

// One token's element or scale, as it lies.
void CopyToken(const KvLayout& from, const KvLayout& to, KvSide side, int32_t token,
               const std::byte* source, std::byte* target) {
  const int32_t s = token % from.block_tokens;
  const int32_t t = token % to.block_tokens;
  for (int32_t d = 0; d < from.head_dim; ++d) {
    const bool key = side == KvSide::kKey;
    std::memcpy(target + (key ? to.key_element(t, d) : to.value_element(t, d)),
                source + (key ? from.key_element(s, d) : from.value_element(s, d)),
                static_cast<size_t>(from.element_bytes()));
  }
  if (Traits(from.dtype).scaled) std::memcpy(target + to.scale(t), source + from.scale(s), 4);
}

// Tokens [first, tokens) one at a time: the same bytes in the same format, else what the
// instruction set's store kernel makes of the source's floats.
void ConvertPlainly(Blocks& source, int32_t first, int32_t tokens, CpuIsa isa, Blocks& target) {
  const KvLayout& from = source.shard.layout;
  const KvLayout& to = target.shard.layout;
  std::vector<float> key(from.head_dim), value(from.head_dim);
  const auto bytes = [](std::byte* at) { return reinterpret_cast<uint8_t*>(at); };
  for (int32_t layer = 0; layer < from.layers; ++layer) {
    for (int32_t head = target.shard.first_head; head < target.shard.end_head(); ++head) {
      if (head < source.shard.first_head || head >= source.shard.end_head()) continue;
      for (int32_t t = first; t < tokens; ++t) {
        const auto in = [&](KvSide side) { return source.Head(side, layer, head, t); };
        const auto out = [&](KvSide side) { return target.Head(side, layer, head, t); };
        if (from.dtype == to.dtype) {
          for (const KvSide side : {KvSide::kKey, KvSide::kValue}) {
            CopyToken(from, to, side, t, in(side), out(side));
          }
          continue;
        }
        LoadKvVector(from, KvSide::kKey, t % from.block_tokens, in(KvSide::kKey), key.data());
        LoadKvVector(from, KvSide::kValue, t % from.block_tokens, in(KvSide::kValue), value.data());
        KernelsOf(isa).store_kv({.dtype = to.dtype,
                                 .head_dim = to.head_dim,
                                 .block_tokens = to.block_tokens,
                                 .index = t % to.block_tokens,
                                 .key = key.data(),
                                 .value = value.data(),
                                 .keys = bytes(out(KvSide::kKey)),
                                 .values = bytes(out(KvSide::kValue))});
      }
    }
  }
}

// Source block by source block, each into the target blocks that its tokens from `first` on are in.
void ConvertBlocks(Blocks& source, int32_t first, int32_t tokens, CpuIsa isa, Blocks& target) {
  const int32_t from = source.shard.layout.block_tokens;
  const int32_t to = target.shard.layout.block_tokens;
  absl::StatusOr<KvConverter> converter = KvConverter::Create(source.shard, target.shard, isa);
  ASSERT_TRUE(converter.ok()) << converter.status();
  for (int32_t token = first; token < tokens;) {
    const int32_t end = std::min({tokens, (token / from + 1) * from, (token / to + 1) * to});
    converter->Convert(source.At(token / from), token % from, end - token, target.At(token / to),
                       token % to);
    token = end;
  }
}

// BF16 keys of an odd head_dim are pairs with nothing, which may be anything.
void DropPadding(Blocks& blocks, int32_t tokens) {
  const KvLayout& layout = blocks.shard.layout;
  if (layout.dtype != KvDType::kBF16 || layout.head_dim % 2 == 0) return;
  for (int32_t layer = 0; layer < layout.layers; ++layer) {
    for (int32_t head = blocks.shard.first_head; head < blocks.shard.end_head(); ++head) {
      for (int32_t t = 0; t < tokens; ++t) {
        std::byte* const keys = blocks.Head(KvSide::kKey, layer, head, t);
        std::memset(keys + layout.key_element(t % layout.block_tokens, layout.head_dim), 0, 2);
      }
    }
  }
}

void ExpectConverts(const KvShard& from, const KvShard& to, int32_t first, int32_t tokens,
                    std::mt19937& random) {
  Blocks source = RandomBlocks(from, tokens, random);
  for (const CpuIsa isa : TestIsas()) {
    SCOPED_TRACE(testing::Message() << from.ToString() << " to " << to.ToString() << ", tokens ["
                                    << first << ", " << tokens << "), " << IsaName(isa));
    Blocks found(to, tokens, std::byte{0xa5});
    Blocks expected = found;
    ConvertBlocks(source, first, tokens, isa, found);
    ConvertPlainly(source, first, tokens, isa, expected);
    DropPadding(found, tokens);
    DropPadding(expected, tokens);
    // Whole blocks: what was not to be written is as it was.
    ASSERT_TRUE(found.bytes == expected.bytes);
  }
}

TEST(KvConvertTest, EveryBlockSizeAndFormatIntoEveryOther) {
  std::mt19937 random = TestRandom();
  for (const KvDType from : kKvDTypes) {
    for (const KvDType to : kKvDTypes) {
      for (const int32_t from_tokens : {8, 16, 32}) {
        for (const int32_t to_tokens : {8, 16, 32}) {
          const KvShard source{{2, 2, 64, from_tokens, from}, 0};
          const KvShard target{{2, 2, 64, to_tokens, to}, 0};
          // The first token is one that a cached prefix of the target ends at.
          const auto tokens = static_cast<int32_t>(1 + random() % 80);
          const int32_t cached = static_cast<int32_t>(random() % 3) * to_tokens;
          ExpectConverts(source, target, std::min(cached, tokens / to_tokens * to_tokens), tokens,
                         random);
        }
      }
    }
  }
}

TEST(KvConvertTest, HeadsOfAnySize) {
  std::mt19937 random = TestRandom();
  for (const int32_t head_dim : {1, 5, 16, 24, 80, 128, 200}) {
    for (const KvDType from : kKvDTypes) {
      for (const KvDType to : kKvDTypes) {
        const KvShard source{{1, 2, head_dim, random() % 2 == 0 ? 8 : 32, from}, 0};
        const KvShard target{{1, 2, head_dim, random() % 2 == 0 ? 8 : 16, to}, 0};
        ExpectConverts(source, target, 0, static_cast<int32_t>(1 + random() % 40), random);
      }
    }
  }
}

TEST(KvConvertTest, EveryNumberOfTokens) {
  std::mt19937 random = TestRandom();
  for (int32_t tokens = 1; tokens <= 64; ++tokens) {
    for (const auto& [from, to] :
         {std::pair(KvDType::kBF16, KvDType::kBF16), std::pair(KvDType::kF16, KvDType::kBF16),
          std::pair(KvDType::kBF16, KvDType::kInt8)}) {
      ExpectConverts({{1, 1, 16, 32, from}, 0}, {{1, 1, 16, 8, to}, 0}, 0, tokens, random);
      ExpectConverts({{1, 1, 16, 8, from}, 0}, {{1, 1, 16, 32, to}, 0}, 0, tokens, random);
    }
  }
}

TEST(KvConvertTest, RanksHoldTheirHeads) {
  const KvLayout whole{2, 6, 8, 16, KvDType::kF16};
  std::vector<std::string> held;
  for (const int32_t ranks : {1, 2, 4}) {
    for (int32_t rank = 0; rank < ranks; ++rank) {
      const KvShard shard = *ShardOf(whole, rank, ranks);
      held.push_back(std::to_string(shard.first_head) + "-" + std::to_string(shard.end_head()));
    }
  }
  EXPECT_EQ(held, (std::vector<std::string>{"0-6", "0-3", "3-6", "0-1", "1-3", "3-4", "4-6"}));
  EXPECT_THAT(ShardOf(whole, 0, 3).status().ToString(), HasSubstr("rank 0 of 3 (1, 2 or 4)"));
  EXPECT_FALSE(ShardOf(whole, 2, 2).ok());
  EXPECT_FALSE(ShardOf(whole, -1, 2).ok());
  EXPECT_THAT(ShardOf({2, 3, 8, 16, KvDType::kF16}, 0, 4).status().ToString(),
              HasSubstr("3 kv heads"));
}

// Between every rank of 1, 2 or 4 and every other that shares a head with it.
TEST(KvConvertTest, EveryRankIntoEveryOther) {
  std::mt19937 random = TestRandom();
  std::vector<std::pair<int32_t, int32_t>> all;
  for (const int32_t ranks : {1, 2, 4}) {
    for (int32_t rank = 0; rank < ranks; ++rank) all.emplace_back(rank, ranks);
  }
  int converted = 0;
  for (const auto& [from_rank, from_ranks] : all) {
    for (const auto& [to_rank, to_ranks] : all) {
      for (const KvDType to : {KvDType::kInt8, KvDType::kBF16}) {
        const KvShard source = *ShardOf({2, 4, 32, 8, KvDType::kInt8}, from_rank, from_ranks);
        const KvShard target = *ShardOf({2, 4, 32, 32, to}, to_rank, to_ranks);
        if (!CheckConvertible(source, target).ok()) continue;
        ++converted;
        ExpectConverts(source, target, 0, 45, random);
      }
    }
  }
  EXPECT_EQ(converted, 2 * (7 + 2 * (1 + 3) + 4 * (1 + 1 + 1)));
}

// A target fed by all ranks of its source holds what one that had all heads would have given.
TEST(KvConvertTest, RanksTogetherGiveTheWhole) {
  std::mt19937 random = TestRandom();
  const KvLayout whole{2, 4, 16, 16, KvDType::kF16};
  const KvShard target{{2, 4, 16, 32, KvDType::kFp8}, 0};
  Blocks source = RandomBlocks({whole, 0}, 50, random);
  Blocks expected(target, 50, std::byte{0});
  ConvertBlocks(source, 0, 50, CpuIsa::kAuto, expected);
  for (const int32_t ranks : {2, 4}) {
    Blocks found(target, 50, std::byte{0});
    for (int32_t rank = 0; rank < ranks; ++rank) {
      Blocks part(*ShardOf(whole, rank, ranks), 50, std::byte{0});
      ConvertBlocks(source, 0, 50, CpuIsa::kAuto, part);
      ConvertBlocks(part, 0, 50, CpuIsa::kAuto, found);
    }
    EXPECT_TRUE(found.bytes == expected.bytes) << ranks;
  }
}

TEST(KvConvertTest, RefusesWhatCannotBeWithBothSides) {
  const KvLayout layout{30, 4, 64, 16, KvDType::kF16};
  const auto refused = [&](const KvShard& target) {
    return KvConverter::Create({layout, 0}, target).status().ToString();
  };
  EXPECT_THAT(refused({{29, 4, 64, 16, KvDType::kF16}, 0}),
              AllOf(HasSubstr("layers=30"), HasSubstr("layers=29")));
  EXPECT_THAT(refused({{30, 4, 80, 16, KvDType::kF16}, 0}),
              AllOf(HasSubstr("head_dim=64"), HasSubstr("head_dim=80")));
  EXPECT_THAT(refused({{30, 4, 64, 12, KvDType::kF16}, 0}), HasSubstr("block_tokens=12"));
  EXPECT_THAT(refused({{30, 2, 64, 16, KvDType::kF16}, 4}), HasSubstr("kv_heads=2 head_dim=64 "
                                                                      "block_tokens=16 dtype=F16 "
                                                                      "order=2 first_head=4"));
}

}  // namespace
}  // namespace baton::kernels
