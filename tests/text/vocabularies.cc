#include "tests/text/vocabularies.h"

#include "tests/common/temp_dir.h"
#include "tests/text/golden.h"
#include "text/utf8.h"

namespace baton::text::test {
namespace {

std::unique_ptr<const Tokenizer> SentencePieceGolden() {
  std::vector<std::string> tokens;
  std::vector<float> scores;
  std::vector<int32_t> types;
  for (const auto& fields : ReadGolden("sentence_piece_vocab.txt")) {
    tokens.push_back(fields.at(0));
    scores.push_back(std::stof(fields.at(1)));
    types.push_back(std::stoi(fields.at(2)));
  }
  GgufWriter writer;
  writer.Add("tokenizer.ggml.model", "llama");
  writer.AddStrings("tokenizer.ggml.tokens", tokens);
  writer.AddNumbers<float>("tokenizer.ggml.scores", GgufWriter::kF32, scores);
  writer.AddNumbers<int32_t>("tokenizer.ggml.token_type", GgufWriter::kI32, types);
  writer.AddU32("tokenizer.ggml.unknown_token_id", 0);
  writer.AddU32("tokenizer.ggml.bos_token_id", 1);
  writer.AddU32("tokenizer.ggml.eos_token_id", 2);
  return CreateFrom(writer).value();
}

}  // namespace

std::string ByteCharacter(int byte) {
  int next = 0x100;
  for (int b = 0; b <= byte; ++b) {
    const bool prints = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b != 0xAD);
    if (b == byte) {
      std::string out;
      AppendUtf8(static_cast<char32_t>(prints ? b : next), out);
      return out;
    }
    if (!prints) ++next;
  }
  return "";
}

void AddByteVocabulary(GgufWriter& writer, const std::vector<std::string>& merges,
                       const std::vector<std::pair<std::string, int32_t>>& added) {
  std::vector<std::string> tokens;
  for (int byte = 0; byte < 256; ++byte) tokens.push_back(ByteCharacter(byte));
  for (const std::string& merge : merges) {
    const size_t space = merge.find(' ');
    tokens.push_back(merge.substr(0, space) + merge.substr(space + 1));
  }
  std::vector<int32_t> types(tokens.size(), 1);
  for (const auto& [text, type] : added) {
    tokens.push_back(text);
    types.push_back(type);
  }
  writer.Add("tokenizer.ggml.model", "gpt2");
  writer.AddStrings("tokenizer.ggml.tokens", tokens);
  writer.AddNumbers<int32_t>("tokenizer.ggml.token_type", GgufWriter::kI32, types);
  writer.AddStrings("tokenizer.ggml.merges", merges);
}

absl::StatusOr<std::shared_ptr<const GgufFile>> Reopen(const GgufWriter& writer) {
  const baton::test::TempDir dir;
  const std::string path = dir.File("tokenizer.gguf");
  writer.WriteTo(path);
  return GgufFile::Open(path);
}

absl::StatusOr<std::unique_ptr<const Tokenizer>> CreateFrom(const GgufWriter& writer) {
  BATON_ASSIGN_OR_RETURN(const auto file, Reopen(writer));
  return Tokenizer::Create(*file);
}

std::shared_ptr<const GgufFile> DemoModel() {
  return GgufFile::Open("models/SmolLM2-135M-Instruct.Q4_1.gguf").value();
}

std::unique_ptr<const Tokenizer> GoldenTokenizer(const std::string& name) {
  if (name == "sentence_piece") return SentencePieceGolden();
  const auto demo = DemoModel();
  const auto strings = [&](std::string_view key) {
    const auto views = demo->Strings(key).value();
    return std::vector<std::string>(views.begin(), views.end());
  };
  std::vector<std::string> tokens = strings("tokenizer.ggml.tokens");
  std::vector<std::string> merges = strings("tokenizer.ggml.merges");
  const auto demo_types = demo->Ints("tokenizer.ggml.token_type").value();
  std::vector<int32_t> types(demo_types.begin(), demo_types.end());
  const auto add = [&](const std::string& left, const std::string& right) {
    tokens.push_back(left + right);
    types.push_back(1);
    merges.push_back(left + " " + right);
  };
  for (char a = '0'; a <= '9'; ++a) {
    for (char b = '0'; b <= '9'; ++b) add({a}, {b});
  }
  for (char a = '1'; a <= '2'; ++a) {
    for (char b = '0'; b <= '9'; ++b) {
      for (char c = '0'; c <= '9'; ++c) add({a, b}, {c});
    }
  }
  GgufWriter writer;
  writer.Add("tokenizer.ggml.model", "gpt2");
  writer.Add("tokenizer.ggml.pre", name);
  writer.AddStrings("tokenizer.ggml.tokens", tokens);
  writer.AddNumbers<int32_t>("tokenizer.ggml.token_type", GgufWriter::kI32, types);
  writer.AddStrings("tokenizer.ggml.merges", merges);
  writer.AddU32("tokenizer.ggml.bos_token_id", 1);
  writer.AddU32("tokenizer.ggml.eos_token_id", 2);
  return CreateFrom(writer).value();
}

}  // namespace baton::text::test
