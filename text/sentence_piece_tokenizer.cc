// SentencePiece-style BPE (tokenizer.ggml.model "llama"): the pair whose union has the best score
// merges first; spaces are part of the tokens; characters without a token fall back to bytes.

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <utility>

#include "common/status_macros.h"
#include "text/text_index.h"
#include "text/utf8.h"
#include "text/vocabulary_tokenizer.h"

namespace baton::text {
namespace {

constexpr std::string_view kMetaSpace = "\xE2\x96\x81";  // U+2581, how these vocabularies write ' '

// In memory tokens and texts have spaces where the vocabulary has U+2581: the two are one character
// to these tokenizers.
void AppendWithSpaces(std::string_view text, std::string& out) {
  for (size_t at = 0; at < text.size();) {
    const size_t found = std::min(text.find(kMetaSpace, at), text.size());
    out += text.substr(at, found - at);
    if (found < text.size()) out += ' ';
    at = found + kMetaSpace.size();
  }
}

absl::StatusOr<std::string> DecodePiece(std::string_view text, TokenKind kind) {
  std::string bytes;
  if (kind != TokenKind::kByte) {
    AppendWithSpaces(text, bytes);
    return bytes;
  }
  int byte = -1;
  if (text.size() == 6 && text.starts_with("<0x") && text.ends_with('>')) {
    const char* const end = text.data() + 5;
    if (std::from_chars(text.data() + 3, end, byte, 16).ptr != end) byte = -1;
  }
  if (byte < 0) {
    return absl::InvalidArgumentError(
        fmt::format("a byte token is called '{}', not like '<0x0A>'", text));
  }
  bytes += static_cast<char>(byte);
  return bytes;
}

class SentencePieceTokenizer final : public VocabularyTokenizer {
 public:
  struct Pair {
    TokenId left, right, merged;
  };

  SentencePieceTokenizer(Vocabulary vocabulary, bool add_space_prefix);

  // The two halves of every token, for all cuts whose halves are tokens too.
  std::vector<Pair> FindPairs() const;
  void LoadMerges(const std::vector<Pair>& pairs, std::span<const double> scores);
  void FindWholeWords();

  bool strips_leading_space() const final { return add_space_prefix_; }

 private:
  void EncodeRun(std::string_view run, Scratch& scratch, std::vector<TokenId>& out) const final;
  void EncodeWord(std::string_view word, Scratch& scratch, std::vector<TokenId>& out) const;
  void MergeWord(std::string_view word, Scratch& scratch) const;
  size_t WordEnd(std::string_view text, size_t begin) const;

  const bool add_space_prefix_;
  TextIndex all_words_;
  TextIndex whole_words_;  // the words that merge to one token
  MergeTable merges_;
  std::array<TokenId, 256> byte_tokens_;  // -1: none
  // No token has a space behind another character, so nothing merges across a word's beginning.
  bool words_begin_with_space_ = true;
};

SentencePieceTokenizer::SentencePieceTokenizer(Vocabulary vocabulary, bool add_space_prefix)
    : VocabularyTokenizer(std::move(vocabulary)),
      add_space_prefix_(add_space_prefix),
      all_words_(&vocabulary_.bytes()),
      whole_words_(&vocabulary_.bytes()),
      merges_(0) {
  byte_tokens_.fill(-1);
  for (TokenId token = 0; token < vocabulary_.size(); ++token) {
    const std::string_view bytes = vocabulary_.Bytes(token);
    if (vocabulary_.kind(token) == TokenKind::kByte) {
      byte_tokens_[static_cast<unsigned char>(bytes[0])] = token;
    } else if (vocabulary_.IsText(token) && !bytes.empty()) {
      all_words_.Add(token);
      const size_t first_other = std::min(bytes.find_first_not_of(' '), bytes.size());
      if (bytes.find(' ', first_other) != std::string_view::npos) words_begin_with_space_ = false;
    }
  }
}

std::vector<SentencePieceTokenizer::Pair> SentencePieceTokenizer::FindPairs() const {
  std::vector<Pair> pairs;
  for (TokenId token = 0; token < vocabulary_.size(); ++token) {
    const std::string_view bytes = vocabulary_.Bytes(token);
    if (!vocabulary_.IsText(token) || all_words_.Find(bytes) != token) continue;
    for (size_t cut = DecodeUtf8(bytes, 0).bytes; cut < bytes.size();
         cut += DecodeUtf8(bytes, cut).bytes) {
      const TokenId left = all_words_.Find(bytes.substr(0, cut));
      if (left < 0) continue;
      const TokenId right = all_words_.Find(bytes.substr(cut));
      if (right >= 0) pairs.push_back({left, right, token});
    }
  }
  return pairs;
}

void SentencePieceTokenizer::LoadMerges(const std::vector<Pair>& pairs,
                                        std::span<const double> scores) {
  std::vector<double> order;  // the best score has rank 0, equal scores have equal ranks
  for (const Pair& pair : pairs) order.push_back(-scores[pair.merged]);
  std::sort(order.begin(), order.end());
  order.erase(std::unique(order.begin(), order.end()), order.end());
  merges_ = MergeTable(pairs.size());
  for (const Pair& pair : pairs) {
    const auto rank = std::lower_bound(order.begin(), order.end(), -scores[pair.merged]);
    merges_.Add(pair.left, pair.right, {static_cast<int32_t>(rank - order.begin()), pair.merged});
  }
}

void SentencePieceTokenizer::FindWholeWords() {
  Scratch scratch;
  for (TokenId token = 0; token < vocabulary_.size(); ++token) {
    if (!vocabulary_.IsText(token)) continue;
    MergeWord(vocabulary_.Bytes(token), scratch);
    if (scratch.word.size() == 1 && scratch.word[0] == token) whole_words_.Add(token);
  }
}

void SentencePieceTokenizer::MergeWord(std::string_view word, Scratch& scratch) const {
  scratch.word.clear();
  bool after_unknown = false;
  for (size_t at = 0; at < word.size();) {
    const std::string_view c = word.substr(at, DecodeUtf8(word, at).bytes);
    at += c.size();
    const TokenId token = all_words_.Find(c);
    const bool has_bytes = std::all_of(c.begin(), c.end(), [this](char byte) {
      return byte_tokens_[static_cast<unsigned char>(byte)] >= 0;
    });
    if (token >= 0) {
      scratch.word.push_back(token);
    } else if (has_bytes) {
      for (const char byte : c) {
        scratch.word.push_back(byte_tokens_[static_cast<unsigned char>(byte)]);
      }
    } else if (vocabulary_.unknown() >= 0 && !after_unknown) {
      scratch.word.push_back(vocabulary_.unknown());  // one for a whole stretch of unknowns
    }
    after_unknown = token < 0 && !has_bytes;
  }
  scratch.merge.Apply(merges_, scratch.word);
}

void SentencePieceTokenizer::EncodeWord(std::string_view word, Scratch& scratch,
                                        std::vector<TokenId>& out) const {
  if (const TokenId whole = whole_words_.Find(word); whole >= 0) {
    out.push_back(whole);
    return;
  }
  MergeWord(word, scratch);
  out.insert(out.end(), scratch.word.begin(), scratch.word.end());
}

size_t SentencePieceTokenizer::WordEnd(std::string_view text, size_t begin) const {
  const size_t first_other = text.find_first_not_of(' ', begin);
  if (!words_begin_with_space_ || first_other == std::string_view::npos) return text.size();
  return std::min(text.find(' ', first_other), text.size());
}

void SentencePieceTokenizer::EncodeRun(std::string_view run, Scratch& scratch,
                                       std::vector<TokenId>& out) const {
  scratch.text.clear();
  if (add_space_prefix_) scratch.text += ' ';
  AppendWithSpaces(run, scratch.text);
  const std::string_view text = scratch.text;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = WordEnd(text, begin);
    EncodeWord(text.substr(begin, end - begin), scratch, out);
    begin = end;
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<const Tokenizer>> CreateSentencePieceTokenizer(
    const GgufFile& file) {
  BATON_RETURN_IF_ERROR(file.Ints("tokenizer.ggml.token_type").status());
  BATON_ASSIGN_OR_RETURN(Vocabulary vocabulary, Vocabulary::Load(file, DecodePiece, true));
  BATON_ASSIGN_OR_RETURN(const auto scores, file.Floats("tokenizer.ggml.scores"));
  if (static_cast<int64_t>(scores.size()) != vocabulary.size()) {
    return absl::InvalidArgumentError(
        fmt::format("{}: tokenizer.ggml.scores has {} entries for {} tokens", file.path(),
                    scores.size(), vocabulary.size()));
  }
  if (std::any_of(scores.begin(), scores.end(), [](double score) { return std::isnan(score); })) {
    return absl::InvalidArgumentError(
        fmt::format("{}: tokenizer.ggml.scores holds a NaN", file.path()));
  }
  BATON_ASSIGN_OR_RETURN(const bool add_space_prefix,
                         file.BoolOr("tokenizer.ggml.add_space_prefix", true));
  auto tokenizer =
      std::make_unique<SentencePieceTokenizer>(std::move(vocabulary), add_space_prefix);
  tokenizer->LoadMerges(tokenizer->FindPairs(), scores);
  tokenizer->FindWholeWords();
  return tokenizer;
}

}  // namespace baton::text
