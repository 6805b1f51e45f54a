#include "common/block_hash.h"

#include <gtest/gtest.h>

#include <numeric>
#include <set>

namespace baton {
namespace {

std::vector<TokenId> Count(int n) {
  std::vector<TokenId> tokens(n);
  std::iota(tokens.begin(), tokens.end(), 0);
  return tokens;
}

TEST(BlockHash, FullBlocksOnly) {
  const BlockHash root = ChainRoot("model", "");
  EXPECT_EQ(ChainFullBlocks(root, Count(15), 16).size(), 0u);
  EXPECT_EQ(ChainFullBlocks(root, Count(16), 16).size(), 1u);
  EXPECT_EQ(ChainFullBlocks(root, Count(47), 16).size(), 2u);
}

TEST(BlockHash, ChainIsAPrefixProperty) {
  const BlockHash root = ChainRoot("model", "");
  const std::vector<BlockHash> short_chain = ChainFullBlocks(root, Count(32), 16);
  const std::vector<BlockHash> long_chain = ChainFullBlocks(root, Count(64), 16);
  ASSERT_EQ(long_chain.size(), 4u);
  EXPECT_EQ(short_chain[0], long_chain[0]);
  EXPECT_EQ(short_chain[1], long_chain[1]);
  const std::vector<TokenId> tokens = Count(32);
  EXPECT_EQ(ChainBlock(long_chain[0], std::span(tokens).subspan(16)), long_chain[1]);
}

// Every part of a block's past changes its name: model, tenant, any earlier token, its place.
TEST(BlockHash, EverythingBeforeMatters) {
  std::set<BlockHash> seen;
  std::vector<TokenId> tokens = Count(32);
  seen.insert(ChainFullBlocks(ChainRoot("model", ""), tokens, 16)[1]);
  seen.insert(ChainFullBlocks(ChainRoot("other", ""), tokens, 16)[1]);
  seen.insert(ChainFullBlocks(ChainRoot("model", "tenant"), tokens, 16)[1]);
  seen.insert(ChainFullBlocks(ChainRoot("modelt", "enant"), tokens, 16)[1]);
  seen.insert(ChainFullBlocks(ChainRoot("model", ""), tokens, 32)[0]);
  for (const size_t changed : {size_t{0}, size_t{15}, size_t{16}, size_t{31}}) {
    std::vector<TokenId> other = tokens;
    other[changed] = 999;
    seen.insert(ChainFullBlocks(ChainRoot("model", ""), other, 16)[1]);
  }
  EXPECT_EQ(seen.size(), 9u);
}

}  // namespace
}  // namespace baton
