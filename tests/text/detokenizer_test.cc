// Streaming never cuts a character, and never loses a byte.

#include "text/detokenizer.h"

#include <gtest/gtest.h>

#include <random>

#include "tests/text/vocabularies.h"
#include "text/utf8.h"

namespace baton::text {
namespace {

// Token b is byte b.
std::unique_ptr<const Tokenizer> ByteTokenizer() {
  test::GgufWriter writer;
  test::AddByteVocabulary(writer, {}, {{"<|im_end|>", 3}});
  writer.Add("tokenizer.ggml.pre", "gpt-2");
  return test::CreateFrom(writer).value();
}

TEST(Detokenizer, HoldsBackUntilACharacterIsWhole) {
  const auto tokenizer = ByteTokenizer();
  Detokenizer detokenizer(tokenizer.get());
  EXPECT_EQ(detokenizer.Push('a'), "a");
  EXPECT_EQ(detokenizer.Push(0xF0), "");
  EXPECT_EQ(detokenizer.Push(0x9F), "");
  EXPECT_EQ(detokenizer.Push(256), "");  // a control token says nothing
  EXPECT_EQ(detokenizer.Push(0x98), "");
  EXPECT_EQ(detokenizer.Push(0x80), "\U0001F600");
  EXPECT_EQ(detokenizer.Flush(), "");
}

TEST(Detokenizer, EveryStrayByteBecomesOneReplacementCharacter) {
  const auto tokenizer = ByteTokenizer();
  Detokenizer detokenizer(tokenizer.get());
  EXPECT_EQ(detokenizer.Push(0x80), "\uFFFD");
  EXPECT_EQ(detokenizer.Push(0xE2), "");
  EXPECT_EQ(detokenizer.Push(0x82), "");
  EXPECT_EQ(detokenizer.Push('x'), "\uFFFD\uFFFDx");
  EXPECT_EQ(detokenizer.Push(0xE2), "");
  EXPECT_EQ(detokenizer.Push(0x82), "");
  EXPECT_EQ(detokenizer.Flush(), "\uFFFD\uFFFD");
  EXPECT_EQ(detokenizer.Flush(), "");
}

// `bytes` with U+FFFD for each byte that belongs to no character, worked out at once.
std::string Repaired(std::string_view bytes) {
  std::string out;
  for (size_t at = 0; at < bytes.size(); at += DecodeUtf8(bytes, at).bytes) {
    AppendUtf8(DecodeUtf8(bytes, at).code, out);
  }
  return out;
}

TEST(Detokenizer, RandomBytesComeOutAsDecodedAtOnce) {
  const uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  const auto tokenizer = ByteTokenizer();
  constexpr TokenId kLikely[] = {0xE2, 0x82, 0xAC, 0xF0, 0x9F, 0x98, 0x80, 0xC3, 0xA9, 'a', 0xED};
  for (int round = 0; round < 2000; ++round) {
    std::vector<TokenId> tokens(random() % 40);
    for (TokenId& token : tokens) {
      token = random() % 3 > 0 ? kLikely[random() % std::size(kLikely)]
                               : static_cast<TokenId>(random() % 257);
    }
    Detokenizer detokenizer(tokenizer.get());
    std::string streamed;
    for (const TokenId token : tokens) streamed += detokenizer.Push(token);
    streamed += detokenizer.Flush();
    ASSERT_EQ(streamed, Repaired(tokenizer->Decode(tokens)));
  }
}

}  // namespace
}  // namespace baton::text
