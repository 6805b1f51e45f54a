#include "grammar/token_trie.h"

#include <gtest/gtest.h>

#include <set>

namespace baton::grammar {
namespace {

const std::vector<std::string_view> kTexts = {"a", "", "ab", "abc", "b", "ab", " ", " a", "\xFF"};

// Tokens whose bytes all are among `bytes`.
std::set<TokenId> Walked(const TokenTrie& trie, std::string_view bytes, bool drop, int* asked) {
  std::set<TokenId> allowed;
  trie.Walk(
      0, drop,
      [&](int32_t, uint8_t byte) {
        ++*asked;
        return bytes.find(static_cast<char>(byte)) == std::string_view::npos ? -1 : 1;
      },
      [&](TokenId token, int32_t) { EXPECT_TRUE(allowed.insert(token).second); });
  return allowed;
}

TEST(TokenTrieTest, WalksWholeTokensAndSharesBeginnings) {
  const TokenTrie trie(kTexts);
  EXPECT_EQ(trie.vocab_size(), kTexts.size());
  EXPECT_EQ(trie.text(3), "abc");
  EXPECT_EQ(trie.text(1), "");
  int asked = 0;
  EXPECT_EQ(Walked(trie, "ab", false, &asked), (std::set<TokenId>{0, 2, 4, 5}));
  EXPECT_LE(asked, 7);
  EXPECT_EQ(Walked(trie, "ab ", false, &asked), (std::set<TokenId>{0, 2, 4, 5, 6, 7}));
  EXPECT_TRUE(Walked(trie, "", false, &asked).empty());
  EXPECT_EQ(Walked(trie, "\xFF", false, &asked), (std::set<TokenId>{8}));
}

TEST(TokenTrieTest, AFirstSpaceThatIsDroppedIsNotRead) {
  const TokenTrie trie(kTexts);
  int asked = 0;
  EXPECT_EQ(Walked(trie, "a", true, &asked), (std::set<TokenId>{0, 7}));
}

}  // namespace
}  // namespace baton::grammar
