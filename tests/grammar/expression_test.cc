#include "grammar/expression.h"

#include <gtest/gtest.h>

namespace baton::grammar {
namespace {

TEST(CharacterSetTest, NormalizedIsSortedMergedAndWithoutSurrogates) {
  EXPECT_EQ(Normalized({{'c', 'd'}, {'a', 'b'}, {'z', 'z'}}),
            (CharacterSet{{'a', 'd'}, {'z', 'z'}}));
  EXPECT_EQ(Normalized({{0xD000, 0xE001}}), (CharacterSet{{0xD000, 0xD7FF}, {0xE000, 0xE001}}));
  EXPECT_EQ(Normalized({{0xD800, 0xDFFF}}), CharacterSet{});
  EXPECT_EQ(Normalized({{0x10FFF0, 0x200000}}), (CharacterSet{{0x10FFF0, kLastCodePoint}}));
}

TEST(CharacterSetTest, ComplementOfComplementIsTheSet) {
  const CharacterSet set = {{'a', 'f'}, {0x100, 0x200}};
  EXPECT_EQ(Complement(Complement(set)), set);
  EXPECT_EQ(Complement({}), (CharacterSet{{0, 0xD7FF}, {0xE000, kLastCodePoint}}));
  EXPECT_TRUE(Complement(Complement({})).empty());
}

TEST(GrammarTest, TooManyExpressionsAreToldOnceAtTheEnd) {
  Grammar grammar;
  EXPECT_TRUE(grammar.status().ok());
  for (size_t i = 0; i < Grammar::kMaxExpressions + 10; ++i) grammar.Bytes("x");
  EXPECT_TRUE(absl::IsInvalidArgument(grammar.status()));
}

TEST(GrammarTest, OneOfSharesBeginnings) {
  Grammar grammar;
  const Expression& shared = grammar[grammar.OneOf({"prefix-a", "prefix-b", "prefix-a"})];
  ASSERT_EQ(shared.kind, Expression::Kind::kSequence);
  EXPECT_EQ(grammar[shared.parts[0]].bytes, "prefix-");
}

}  // namespace
}  // namespace baton::grammar
