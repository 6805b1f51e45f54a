#include "router/prompt_chain.h"

#include <gtest/gtest.h>

#include "tests/router/counting_prompt.h"

namespace baton::router {
namespace {

TEST(PromptChainTest, NamesBlocksAsWorkersDo) {
  const std::vector<TokenId> prompt = CountingPrompt(100);
  const std::vector<BlockHash> hashes =
      ChainFullBlocks(ChainRoot("model f16", "tenant"), prompt, 16);
  PromptChain chain({"model f16", 16}, "tenant", prompt);
  ASSERT_EQ(chain.blocks(), 6);
  for (const int32_t place : {4, 1, 6}) {
    EXPECT_EQ(chain.KeyAt(place), KeyOfBlock(hashes[static_cast<size_t>(place) - 1], place));
  }
}

TEST(PromptChainTest, OtherTenantsModelsAndTokensHaveOtherNames) {
  const std::vector<TokenId> prompt = CountingPrompt(33);
  std::vector<TokenId> other = prompt;
  other[20] = -1;
  PromptChain chain({"model", 16}, "tenant", prompt);
  PromptChain twin({"model", 16}, "tenant", other);
  EXPECT_EQ(chain.KeyAt(1), twin.KeyAt(1));
  EXPECT_NE(chain.KeyAt(2), twin.KeyAt(2));
  EXPECT_NE(chain.KeyAt(1), PromptChain({"model", 16}, "", prompt).KeyAt(1));
  EXPECT_NE(chain.KeyAt(1), PromptChain({"model int8", 16}, "tenant", prompt).KeyAt(1));
}

TEST(PromptChainTest, TheLastTokenIsComputedInAnyCase) {
  EXPECT_EQ(PromptChain({"m", 16}, "", CountingPrompt(16)).blocks(), 0);
  EXPECT_EQ(PromptChain({"m", 16}, "", CountingPrompt(17)).blocks(), 1);
  EXPECT_EQ(PromptChain({"m", 16}, "", {}).blocks(), 0);
}

}  // namespace
}  // namespace baton::router
