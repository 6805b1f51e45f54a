#include "model_file/end_tokens.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/common/temp_dir.h"
#include "tests/model_file/gguf_writer.h"

namespace baton {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class EndTokensTest : public testing::Test {
 protected:
  absl::StatusOr<std::vector<TokenId>> Read(int64_t vocab_size) {
    const std::string path = directory_.File("model.gguf");
    writer_.WriteTo(path);
    const auto file = GgufFile::Open(path);
    if (!file.ok()) return file.status();
    return ReadEndTokens(**file, vocab_size);
  }

  const test::TempDir directory_;
  test::GgufWriter writer_;
};

TEST_F(EndTokensTest, KeysAndNamedControlTokensOnceAndInOrder) {
  writer_.AddStrings("tokenizer.ggml.tokens", {"a", "<|im_end|>", "<|eot_id|>", "<|endoftext|>"});
  writer_.AddNumbers<int32_t>("tokenizer.ggml.token_type", test::GgufWriter::kI32, {1, 3, 1, 3});
  writer_.AddU32("tokenizer.ggml.eos_token_id", 3);
  writer_.AddU32("tokenizer.ggml.eom_token_id", 0);
  EXPECT_THAT(*Read(4), ElementsAre(0, 1, 3));  // token 2 has the name, but is no control token
}

TEST_F(EndTokensTest, AFileWithoutATokenizerHasNone) { EXPECT_THAT(*Read(4), IsEmpty()); }

TEST_F(EndTokensTest, AnIdOutsideTheVocabularyIsAnError) {
  writer_.AddU32("tokenizer.ggml.eot_token_id", 4);
  const absl::Status status = Read(4).status();
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("tokenizer.ggml.eot_token_id is 4, the vocabulary has 4 tokens"));
}

}  // namespace
}  // namespace baton
