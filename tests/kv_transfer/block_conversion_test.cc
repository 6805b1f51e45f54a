#include "kv_transfer/block_conversion.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <vector>

namespace baton::kv_transfer {
namespace {

using kernels::KvDType;
using kernels::KvLayout;
using ::testing::HasSubstr;

KvLayout TinyLayout(int32_t block_tokens) { return {1, 1, 1, block_tokens, KvDType::kF32}; }

std::vector<int32_t> Reversed(int32_t count) {
  std::vector<int32_t> blocks;
  for (int32_t i = count - 1; i >= 0; --i) blocks.push_back(i);
  return blocks;
}

TEST(BlockConversionTest, AsksFromTheBlockThatTheCachedPrefixEndsIn) {
  struct Case {
    int32_t source_tokens, target_tokens, tokens, first_block, first_source_block;
  };
  constexpr Case kCases[] = {{32, 8, 100, 0, 0},  {32, 8, 100, 3, 0}, {32, 8, 100, 4, 1},
                             {32, 8, 100, 12, 3}, {32, 8, 96, 12, 3}, {32, 8, 40, 5, 2},
                             {8, 32, 100, 0, 0},  {8, 32, 100, 1, 4}, {8, 32, 100, 3, 12},
                             {8, 32, 96, 3, 12},  {16, 16, 33, 1, 1}, {16, 16, 33, 3, 3}};
  for (const Case& c : kCases) {
    SCOPED_TRACE(testing::Message() << c.source_tokens << " to " << c.target_tokens << ", "
                                    << c.tokens << " tokens from block " << c.first_block);
    const KvLayout target = TinyLayout(c.target_tokens);
    auto conversion = BlockConversion::Create(TinyLayout(c.source_tokens), target, c.tokens);
    ASSERT_TRUE(conversion.ok()) << conversion.status();
    const auto first =
        conversion->SetTarget(c.first_block, Reversed(target.BlocksFor(c.tokens) - c.first_block));
    ASSERT_TRUE(first.ok()) << first.status();
    EXPECT_EQ(*first, c.first_source_block);
  }
}

TEST(BlockConversionTest, RefusesBlocksThatAreNotTheRestOfThePrompt) {
  auto conversion = BlockConversion::Create(TinyLayout(32), TinyLayout(8), 33);
  ASSERT_TRUE(conversion.ok());
  EXPECT_EQ(conversion->SetTarget(1, {7, 8, 9}).status().message(),
            "granted 3 blocks from block 1 of a prompt of 33 tokens, which takes 5");
  EXPECT_FALSE(conversion->SetTarget(-1, {1, 2, 3, 4, 5, 6}).ok());
  EXPECT_FALSE(conversion->SetTarget(6, {}).ok());
  EXPECT_THAT(
      BlockConversion::Create(TinyLayout(32), {1, 1, 2, 8, KvDType::kF32}, 33).status().ToString(),
      HasSubstr("head_dim=2"));
}

// Token t's key is t + 1, its value -t - 1. Blocks come in any order.
TEST(BlockConversionTest, PutsEveryWantedTokenIntoItsPlaceAndNothingElse) {
  for (const int32_t from : {8, 16, 32}) {
    for (const int32_t to : {8, 16, 32}) {
      for (const int32_t tokens : {1, 7, 8, 31, 33, 64, 90}) {
        const KvLayout source = TinyLayout(from), target = TinyLayout(to);
        const int32_t count = target.BlocksFor(tokens);
        for (int32_t first_block = 0; first_block <= count; ++first_block) {
          SCOPED_TRACE(testing::Message() << from << " to " << to << ", " << tokens
                                          << " tokens from block " << first_block);
          auto conversion = BlockConversion::Create(source, target, tokens);
          ASSERT_TRUE(conversion.ok());
          const std::vector<int32_t> blocks = Reversed(count - first_block);
          std::vector<std::byte> slab(static_cast<size_t>(12 * target.block_bytes()));
          std::vector<std::byte> expected = slab;
          const int32_t first_source = *conversion->SetTarget(first_block, blocks);
          for (int32_t i = source.BlocksFor(tokens) - 1; i >= first_source; --i) {
            std::vector<float> block(static_cast<size_t>(2 * from));
            for (int32_t t = 0; t < from; ++t) {
              block[static_cast<size_t>(t)] = static_cast<float>(i * from + t + 1);
              block[static_cast<size_t>(from + t)] = -block[static_cast<size_t>(t)];
            }
            conversion->Convert(i, std::as_bytes(std::span(block)), slab);
          }
          for (int32_t t = first_block * to; t < tokens; ++t) {
            const int32_t block = blocks[static_cast<size_t>(t / to - first_block)];
            const float key = static_cast<float>(t + 1), value = -key;
            std::byte* const at = expected.data() + block * target.block_bytes();
            std::memcpy(at + target.key_offset(0, 0) + target.key_element(t % to, 0), &key, 4);
            std::memcpy(at + target.value_offset(0, 0) + target.value_element(t % to, 0), &value,
                        4);
          }
          ASSERT_TRUE(slab == expected);
        }
      }
    }
  }
}

}  // namespace
}  // namespace baton::kv_transfer
