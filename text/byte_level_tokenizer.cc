// Byte-level BPE (GPT-2's scheme, tokenizer.ggml.model "gpt2"): text is cut into words by a
// pre-tokenizer, and each word's bytes are merged by rank.

#include <fmt/format.h>

#include <array>
#include <set>
#include <utility>

#include "common/status_macros.h"
#include "text/pre_tokenizer.h"
#include "text/text_index.h"
#include "text/utf8.h"
#include "text/vocabulary_tokenizer.h"

namespace baton::text {
namespace {

// Byte-level vocabularies write each byte as a printable character: itself where Latin-1 prints it,
// else the next free one from U+0100 on. -1 for characters that stand for no byte.
std::array<int, 0x144> BytesOfCharacters() {
  std::array<int, 0x144> byte_of;
  byte_of.fill(-1);
  char32_t next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const bool prints = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
    byte_of[prints ? static_cast<char32_t>(byte) : next++] = byte;
  }
  return byte_of;
}

// Characters outside that alphabet (in tokens added by hand) stand for themselves.
std::string DecodeByteLevel(std::string_view text) {
  static const std::array<int, 0x144> byte_of = BytesOfCharacters();
  std::string bytes;
  for (size_t at = 0; at < text.size();) {
    const Utf8Char c = DecodeUtf8(text, at);
    if (c.valid && c.code < byte_of.size() && byte_of[c.code] >= 0) {
      bytes += static_cast<char>(byte_of[c.code]);
    } else {
      bytes += text.substr(at, c.bytes);
    }
    at += c.bytes;
  }
  return bytes;
}

absl::StatusOr<std::string> DecodeByteLevelToken(std::string_view text, TokenKind kind) {
  return kind == TokenKind::kUserDefined ? std::string(text) : DecodeByteLevel(text);
}

class ByteLevelTokenizer final : public VocabularyTokenizer {
 public:
  ByteLevelTokenizer(Vocabulary vocabulary, PreTokenizerKind kind, size_t merge_count)
      : VocabularyTokenizer(std::move(vocabulary)),
        pre_tokenizer_(kind),
        merges_(merge_count),
        whole_words_(&vocabulary_.bytes()) {}

  absl::Status LoadMerges(const GgufFile& file, std::span<const std::string_view> merges);
  // Llama 3 takes any word that is a token whole, also where the merges would not build it.
  void FindWholeWords(bool ignore_merges);

  bool strips_leading_space() const final { return false; }

 private:
  void EncodeRun(std::string_view run, Scratch& scratch, std::vector<TokenId>& out) const final;
  void MergeWord(std::string_view word, Scratch& scratch) const;

  PreTokenizer pre_tokenizer_;
  std::array<TokenId, 256> byte_tokens_;  // -1: a byte that the vocabulary leaves out
  MergeTable merges_;
  TextIndex whole_words_;  // the words that are one token; most words of most texts
};

absl::Status ByteLevelTokenizer::LoadMerges(const GgufFile& file,
                                            std::span<const std::string_view> merges) {
  TextIndex all_words(&vocabulary_.bytes());
  for (TokenId token = 0; token < vocabulary_.size(); ++token) {
    if (vocabulary_.IsText(token)) all_words.Add(token);
  }
  for (int byte = 0; byte < 256; ++byte) {
    const char text = static_cast<char>(byte);
    byte_tokens_[byte] = all_words.Find(std::string_view(&text, 1));
  }
  std::set<std::string, std::less<>> special_names;
  for (const auto& [token, name] : vocabulary_.special_names()) special_names.insert(name);
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const size_t space = merges[rank].find(' ', 1);
    if (space == std::string_view::npos) {
      return absl::InvalidArgumentError(
          fmt::format("{}: merge {} is not a pair", file.path(), rank));
    }
    const std::string left = DecodeByteLevel(merges[rank].substr(0, space));
    const std::string right = DecodeByteLevel(merges[rank].substr(space + 1));
    const TokenId left_token = all_words.Find(left);
    const TokenId right_token = all_words.Find(right);
    const TokenId merged = all_words.Find(left + right);
    if (left_token >= 0 && right_token >= 0 && merged >= 0) {
      merges_.Add(left_token, right_token, {static_cast<int32_t>(rank), merged});
    } else if (!special_names.contains(left + right)) {
      return absl::InvalidArgumentError(fmt::format(
          "{}: merge {} speaks of tokens that the vocabulary does not have", file.path(), rank));
    }
    // Else ordinary text would give a control token, which it never may: no such merge.
  }
  return absl::OkStatus();
}

void ByteLevelTokenizer::FindWholeWords(bool ignore_merges) {
  Scratch scratch;
  for (TokenId token = 0; token < vocabulary_.size(); ++token) {
    if (!vocabulary_.IsText(token)) continue;
    if (!ignore_merges) {
      MergeWord(vocabulary_.Bytes(token), scratch);
      if (scratch.word.size() != 1 || scratch.word[0] != token) continue;
    }
    whole_words_.Add(token);
  }
}

void ByteLevelTokenizer::MergeWord(std::string_view word, Scratch& scratch) const {
  scratch.word.clear();
  for (const char byte : word) {
    const TokenId token = byte_tokens_[static_cast<unsigned char>(byte)];
    if (token >= 0) scratch.word.push_back(token);
  }
  scratch.merge.Apply(merges_, scratch.word);
}

void ByteLevelTokenizer::EncodeRun(std::string_view run, Scratch& scratch,
                                   std::vector<TokenId>& out) const {
  for (size_t begin = 0; begin < run.size();) {
    const size_t end = pre_tokenizer_.WordEnd(run, begin);
    const std::string_view word = run.substr(begin, end - begin);
    if (const TokenId whole = whole_words_.Find(word); whole >= 0) {
      out.push_back(whole);
    } else {
      MergeWord(word, scratch);
      out.insert(out.end(), scratch.word.begin(), scratch.word.end());
    }
    begin = end;
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<const Tokenizer>> CreateByteLevelTokenizer(const GgufFile& file) {
  BATON_ASSIGN_OR_RETURN(const std::string_view pre, file.String("tokenizer.ggml.pre"));
  const std::optional<PreTokenizerKind> kind = PreTokenizerFromName(pre);
  if (!kind) {
    return absl::InvalidArgumentError(
        fmt::format("{}: tokenizer.ggml.pre is '{}'; smollm, llama-bpe, qwen2 and gpt-2 are "
                    "supported",
                    file.path(), pre));
  }
  const bool is_llama3 = *kind == PreTokenizerKind::kLlamaBpe;
  BATON_ASSIGN_OR_RETURN(Vocabulary vocabulary,
                         Vocabulary::Load(file, DecodeByteLevelToken, is_llama3));
  BATON_ASSIGN_OR_RETURN(const auto merges, file.Strings("tokenizer.ggml.merges"));
  auto tokenizer =
      std::make_unique<ByteLevelTokenizer>(std::move(vocabulary), *kind, merges.size());
  BATON_RETURN_IF_ERROR(tokenizer->LoadMerges(file, merges));
  tokenizer->FindWholeWords(is_llama3);
  return tokenizer;
}

}  // namespace baton::text
