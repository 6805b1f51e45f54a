#pragma once

// Tokenizers for tests: the demo model's, its vocabulary under other pre-tokenizers, and small
// ones.

#include <memory>
#include <string>
#include <vector>

#include "model_file/gguf.h"
#include "tests/model_file/gguf_writer.h"
#include "text/tokenizer.h"

namespace baton::text::test {

using ::baton::test::GgufWriter;

// The GPT-2 way to write a byte as a printable character.
std::string ByteCharacter(int byte);

// All 256 bytes as tokens 0..255, then one token for each merge.
void AddByteVocabulary(GgufWriter& writer, const std::vector<std::string>& merges,
                       const std::vector<std::pair<std::string, int32_t>>& added);

absl::StatusOr<std::shared_ptr<const GgufFile>> Reopen(const GgufWriter& writer);
absl::StatusOr<std::unique_ptr<const Tokenizer>> CreateFrom(const GgufWriter& writer);

std::shared_ptr<const GgufFile> DemoModel();

// The tokenizer that tests/golden/make_text_golden.py builds for `name`: smollm, llama-bpe, qwen2,
// gpt-2 or sentence_piece.
std::unique_ptr<const Tokenizer> GoldenTokenizer(const std::string& name);

}  // namespace baton::text::test
