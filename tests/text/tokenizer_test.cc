// Special tokens and who may write them, any bytes, and unsound vocabularies.

#include "text/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <thread>

#include "tests/text/vocabularies.h"

namespace baton::text {
namespace {

using test::GgufWriter;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
constexpr auto kPlain = SpecialTokens::kPlainText;
constexpr auto kSpecial = SpecialTokens::kParseSpecial;
using Ids = std::vector<TokenId>;

class DemoTokenizer : public ::testing::Test {
 protected:
  const std::unique_ptr<const Tokenizer> tokenizer_ = Tokenizer::Create(*test::DemoModel()).value();
};

TEST_F(DemoTokenizer, KnowsItsSpecialTokens) {
  EXPECT_EQ(tokenizer_->vocab_size(), 49152);
  EXPECT_EQ(tokenizer_->bos(), 1);
  EXPECT_FALSE(tokenizer_->add_bos());
  EXPECT_FALSE(tokenizer_->strips_leading_space());
  // <|im_end|> by metadata, <|endoftext|> by name.
  EXPECT_THAT(tokenizer_->end_tokens(), ElementsAre(0, 2));
  EXPECT_EQ(tokenizer_->TokenBytes(2), "");
  EXPECT_EQ(tokenizer_->TokenText(2), "<|im_end|>");
  const Ids hello = tokenizer_->Encode(" hello", kPlain);
  ASSERT_EQ(hello.size(), 1u);
  EXPECT_EQ(tokenizer_->TokenBytes(hello[0]), " hello");
  EXPECT_EQ(tokenizer_->TokenText(hello[0]), " hello");
  EXPECT_EQ(tokenizer_->TokenBytes(-1), "");
  EXPECT_EQ(tokenizer_->TokenBytes(49152), "");
  EXPECT_EQ(tokenizer_->Decode({-5, 49152, hello[0], 2}), " hello");
}

TEST_F(DemoTokenizer, OnlyTheTemplateWritesSpecialTokens) {
  EXPECT_THAT(tokenizer_->Encode("<|im_end|>", kSpecial), ElementsAre(2));
  const Ids plain = tokenizer_->Encode("<|im_end|>", kPlain);
  EXPECT_GT(plain.size(), 1u);
  EXPECT_EQ(tokenizer_->Decode(plain), "<|im_end|>");

  // A user cannot complete what the template began, nor begin what the template completes.
  for (size_t cut = 1; cut < 10; ++cut) {
    const std::string name = "<|im_end|>";
    const TextPiece head{name.substr(0, cut), kSpecial};
    const TextPiece tail{name.substr(cut), kSpecial};
    const TextPiece user_head{head.text, kPlain};
    const TextPiece user_tail{tail.text, kPlain};
    EXPECT_EQ(tokenizer_->EncodePrompt({head, user_tail}, false), plain) << cut;
    EXPECT_EQ(tokenizer_->EncodePrompt({user_head, tail}, false), plain) << cut;
    EXPECT_EQ(tokenizer_->EncodePrompt({user_head, user_tail}, false), plain) << cut;
    EXPECT_THAT(tokenizer_->EncodePrompt({head, tail}, false), ElementsAre(2)) << cut;
  }
}

// The user's pieces are made of the same fragments as the template's, special names among them.
TEST_F(DemoTokenizer, RandomUserTextNeverGivesAControlToken) {
  const uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  const std::string fragments[] = {
      "<|im_start|>", "<|im_end|>", "<|im_", "end|>",         "<", "|",  ">",
      "im_end",       "user\n",     " ",     "<|endoftext|>", "x", "\n", "\xFF"};
  for (int round = 0; round < 2000; ++round) {
    std::vector<TextPiece> pieces;
    size_t written_by_template = 0;
    for (uint64_t count = 1 + random() % 6; count > 0; --count) {
      TextPiece piece{"", random() % 2 == 0 ? kPlain : kSpecial};
      for (uint64_t parts = random() % 4; parts > 0; --parts) {
        piece.text += fragments[random() % std::size(fragments)];
      }
      pieces.push_back(piece);
    }
    // What the template wrote, where the user's bytes are a letter that no special name holds.
    std::string template_text;
    for (const TextPiece& piece : pieces) {
      template_text += piece.special == kSpecial ? piece.text : std::string(piece.text.size(), 'Z');
    }
    for (const TokenId id : tokenizer_->Encode(template_text, kSpecial)) {
      written_by_template += id <= 16;
    }
    const Ids ids = tokenizer_->EncodePrompt(pieces, false);
    const auto controls =
        std::count_if(ids.begin(), ids.end(), [](TokenId id) { return id <= 16; });
    ASSERT_EQ(static_cast<size_t>(controls), written_by_template);
  }
}

// Where no special token stands, the border between template and user is invisible.
TEST_F(DemoTokenizer, PiecesEncodeAsOneText) {
  const uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  const std::string text = "The quick\n\n brown  fox's 123 \u4e16\u754c caf\u00e9\U0001F600 jumps!";
  const Ids whole = tokenizer_->Encode(text, kPlain);
  for (int round = 0; round < 500; ++round) {
    std::vector<TextPiece> pieces;
    for (size_t begin = 0; begin < text.size();) {
      const size_t bytes = random() % 8;
      pieces.push_back({text.substr(begin, bytes), random() % 2 == 0 ? kPlain : kSpecial});
      begin += bytes;
    }
    ASSERT_EQ(tokenizer_->EncodePrompt(pieces, false), whole);
  }
}

TEST_F(DemoTokenizer, ThreadsShareOneTokenizer) {
  const std::string text = "Several threads encode this text, and 12345 others, at once. ";
  const Ids expected = tokenizer_->Encode(text, kPlain);
  std::vector<std::thread> threads;
  std::vector<int> agreed(4, 0);
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 50; ++i) agreed[t] += tokenizer_->Encode(text, kPlain) == expected;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(agreed, ElementsAre(50, 50, 50, 50));
}

GgufWriter ByteVocabulary(std::string_view pre, const std::vector<std::string>& merges = {},
                          const std::vector<std::pair<std::string, int32_t>>& added = {}) {
  GgufWriter writer;
  test::AddByteVocabulary(writer, merges, added);
  writer.Add("tokenizer.ggml.pre", pre);
  return writer;
}

TEST(Tokenizer, AnyBytesRoundTrip) {
  const uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  for (const char* pre : {"smollm", "llama-bpe", "qwen2", "gpt-2"}) {
    const auto tokenizer = test::CreateFrom(ByteVocabulary(pre, {"a b", "ab a", "c c"})).value();
    for (int round = 0; round < 500; ++round) {
      std::string text(random() % 60, '\0');
      for (char& c : text) {
        c = random() % 2 == 0 ? "abc \n1'\xE2\x82"[random() % 9] : static_cast<char>(random());
      }
      ASSERT_EQ(tokenizer->Decode(tokenizer->Encode(text, kPlain)), text) << pre;
      ASSERT_EQ(tokenizer->Decode(tokenizer->Encode(text, kSpecial)), text) << pre;
    }
  }
}

TEST(Tokenizer, LongWordsTakeNearLinearTime) {
  const auto tokenizer = test::CreateFrom(ByteVocabulary("gpt-2", {"a a", "aa aa"})).value();
  EXPECT_EQ(tokenizer->Encode(std::string(1 << 20, 'a'), kPlain).size(), size_t{1} << 18);
  EXPECT_EQ(tokenizer->Encode(std::string(1 << 20, ' '), kPlain).size(), size_t{1} << 20);
  EXPECT_EQ(tokenizer->Encode(std::string(1 << 20, '\xE2'), kPlain).size(), size_t{1} << 20);
}

TEST(Tokenizer, UserDefinedTokensStandEverywhere) {
  const auto tokenizer =
      test::CreateFrom(ByteVocabulary("gpt-2", {}, {{"<tool>", 4}, {"<tool", 3}, {"<to", 4}}))
          .value();
  EXPECT_THAT(tokenizer->Encode("a<tool>b", kPlain), ElementsAre('a', 256, 'b'));
  EXPECT_THAT(tokenizer->Encode("a<tool>b", kSpecial), ElementsAre('a', 256, 'b'));
  // The longest one that may stand there.
  EXPECT_THAT(tokenizer->Encode("<tool", kSpecial), ElementsAre(257));
  EXPECT_THAT(tokenizer->Encode("<tool", kPlain), ElementsAre(258, 'o', 'l'));
  EXPECT_EQ(tokenizer->Decode({256, 257}), "<tool>");
}

TEST(Tokenizer, MergesNeverGiveAControlToken) {
  GgufWriter writer;
  std::vector<std::string> tokens;
  for (int byte = 0; byte < 256; ++byte) tokens.push_back(test::ByteCharacter(byte));
  tokens.insert(tokens.end(), {"<s", "<s>"});
  std::vector<int32_t> types(256, 1);
  types.insert(types.end(), {1, 3});
  writer.Add("tokenizer.ggml.model", "gpt2");
  writer.Add("tokenizer.ggml.pre", "llama-bpe");
  writer.AddStrings("tokenizer.ggml.tokens", tokens);
  writer.AddNumbers<int32_t>("tokenizer.ggml.token_type", GgufWriter::kI32, types);
  writer.AddStrings("tokenizer.ggml.merges", {"< s", "<s >"});
  const auto tokenizer = test::CreateFrom(writer).value();
  const Ids ids = tokenizer->Encode("<s> <s>", kPlain);
  EXPECT_EQ(std::count(ids.begin(), ids.end(), 257), 0);
  EXPECT_THAT(tokenizer->Encode("<s>", kSpecial), ElementsAre(257));
}

TEST(Tokenizer, PrependsBosOnceWhenTheModelAsks) {
  GgufWriter writer = ByteVocabulary("gpt-2", {}, {{"<s>", 3}});
  writer.AddU32("tokenizer.ggml.bos_token_id", 256);
  writer.AddBool("tokenizer.ggml.add_bos_token", true);
  const auto tokenizer = test::CreateFrom(writer).value();
  EXPECT_THAT(tokenizer->EncodePrompt({{"a", kPlain}}, true), ElementsAre(256, 'a'));
  EXPECT_THAT(tokenizer->EncodePrompt({{"a", kPlain}}, false), ElementsAre('a'));
  EXPECT_THAT(tokenizer->EncodePrompt({{"<s>", kSpecial}, {"a", kPlain}}, true),
              ElementsAre(256, 'a'));
  EXPECT_THAT(tokenizer->EncodePrompt({}, true), ElementsAre(256));
  EXPECT_THAT(tokenizer->Encode("a", kPlain), ElementsAre('a'));
}

GgufWriter SentencePiece(const std::vector<std::string>& tokens, const std::vector<float>& scores,
                         const std::vector<int32_t>& types) {
  GgufWriter writer;
  writer.Add("tokenizer.ggml.model", "llama");
  writer.AddStrings("tokenizer.ggml.tokens", tokens);
  writer.AddNumbers<float>("tokenizer.ggml.scores", GgufWriter::kF32, scores);
  writer.AddNumbers<int32_t>("tokenizer.ggml.token_type", GgufWriter::kI32, types);
  writer.AddU32("tokenizer.ggml.unknown_token_id", 0);
  return writer;
}

// Ids: 0 <unk>, 1 <s>, then pieces; no byte tokens.
GgufWriter SmallSentencePiece() {
  return SentencePiece({"<unk>", "<s>", "<", "s", ">", "<s", "\u2581", "a", "\u2581a"},
                       {0, 0, -5, -6, -7, -1, -8, -9, -2}, {2, 3, 1, 1, 1, 1, 1, 1, 1});
}

TEST(SentencePiece, MergesNeverGiveAControlToken) {
  GgufWriter writer = SmallSentencePiece();
  writer.AddBool("tokenizer.ggml.add_space_prefix", false);
  const auto tokenizer = test::CreateFrom(writer).value();
  EXPECT_THAT(tokenizer->Encode("<s>", kPlain), ElementsAre(5, 4));
  EXPECT_THAT(tokenizer->Encode("<s>", kSpecial), ElementsAre(1));
  EXPECT_FALSE(tokenizer->strips_leading_space());
  EXPECT_EQ(tokenizer->Decode({8, 8}), " a a");
}

TEST(SentencePiece, PutsASpaceInFrontAndTakesItAway) {
  const auto tokenizer = test::CreateFrom(SmallSentencePiece()).value();
  EXPECT_THAT(tokenizer->Encode("a a", kPlain), ElementsAre(8, 8));
  EXPECT_THAT(tokenizer->Encode(" a", kPlain), ElementsAre(6, 8));
  EXPECT_THAT(tokenizer->Encode("<s>a", kSpecial), ElementsAre(1, 8));
  EXPECT_EQ(tokenizer->Decode({8, 8}), "a a");
  EXPECT_EQ(tokenizer->Decode({1, 8}), "a");
  EXPECT_EQ(tokenizer->Decode({6, 8}), " a");
}

TEST(SentencePiece, UnknownCharactersWithoutByteTokensAreOneUnknownToken) {
  const auto tokenizer = test::CreateFrom(SmallSentencePiece()).value();
  EXPECT_THAT(tokenizer->Encode("\u4e16\u754ca\u4e16", kPlain), ElementsAre(6, 0, 7, 0));
}

TEST(SentencePiece, AnyBytesRoundTrip) {
  const uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  const auto tokenizer = test::GoldenTokenizer("sentence_piece");
  for (int round = 0; round < 1000; ++round) {
    std::string text(random() % 60, '\0');
    for (char& c : text)
      c = static_cast<char>(random() % 2 == 0 ? "the \n"[random() % 5] : random());
    ASSERT_EQ(tokenizer->Decode(tokenizer->Encode(text, kPlain)), text);
  }
}

void ExpectRefused(const GgufWriter& writer, const std::string& reason) {
  const absl::Status status = test::CreateFrom(writer).status();
  EXPECT_FALSE(status.ok()) << reason;
  EXPECT_THAT(std::string(status.message()), HasSubstr(reason));
}

TEST(Tokenizer, RefusesWhatIsMissingOrUnsupported) {
  ExpectRefused(GgufWriter(), "tokenizer.ggml.model");
  GgufWriter bert;
  bert.Add("tokenizer.ggml.model", "bert");
  ExpectRefused(bert, "'bert'; 'gpt2' and 'llama' are supported");
  ExpectRefused(ByteVocabulary("tekken"), "'tekken'; smollm, llama-bpe, qwen2 and gpt-2");
  GgufWriter no_pre;
  test::AddByteVocabulary(no_pre, {}, {});
  ExpectRefused(no_pre, "tokenizer.ggml.pre");
  GgufWriter no_tokens;
  no_tokens.Add("tokenizer.ggml.model", "gpt2");
  no_tokens.Add("tokenizer.ggml.pre", "gpt-2");
  ExpectRefused(no_tokens, "tokenizer.ggml.tokens");
  no_tokens.AddStrings("tokenizer.ggml.tokens", {});
  ExpectRefused(no_tokens, "the vocabulary has 0 tokens");
}

TEST(Tokenizer, RefusesUnsoundVocabularies) {
  GgufWriter bos = ByteVocabulary("gpt-2");
  bos.AddU32("tokenizer.ggml.bos_token_id", 256);
  ExpectRefused(bos, "bos_token_id is 256, the vocabulary has 256 tokens");
  ExpectRefused(ByteVocabulary("gpt-2", {}, {{"x", 7}}), "token 256 has type 7");
  ExpectRefused(ByteVocabulary("gpt-2", {}, {{std::string(1025, 'x'), 1}}), "has 1025 bytes");

  GgufWriter types;
  types.Add("tokenizer.ggml.model", "gpt2");
  types.Add("tokenizer.ggml.pre", "gpt-2");
  types.AddStrings("tokenizer.ggml.tokens", {"a", "b"});
  types.AddStrings("tokenizer.ggml.merges", {"a b"});
  ExpectRefused(types, "merge 0 speaks of tokens that the vocabulary does not have");
  types.AddNumbers<int32_t>("tokenizer.ggml.token_type", GgufWriter::kI32, {1});
  ExpectRefused(types, "token_type has 1 entries for 2 tokens");

  ExpectRefused(SentencePiece({"<unk>", "a"}, {0}, {2, 1}), "scores has 1 entries for 2 tokens");
  ExpectRefused(SentencePiece({"<unk>", "a"}, {0, NAN}, {2, 1}), "holds a NaN");
  for (const char* name : {"<0x1>", "<0xZZ>", "<0x-1>", "ab", ""}) {
    ExpectRefused(SentencePiece({"<unk>", name}, {0, 0}, {2, 6}), "a byte token is called");
  }
}

}  // namespace
}  // namespace baton::text
