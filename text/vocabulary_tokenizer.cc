#include "text/vocabulary_tokenizer.h"

#include <utility>

namespace baton::text {

VocabularyTokenizer::VocabularyTokenizer(Vocabulary vocabulary)
    : vocabulary_(std::move(vocabulary)) {
  for (const auto& [token, name] : vocabulary_.special_names()) {
    added_tokens_.Add(name, token, true);
  }
  for (TokenId token = 0; token < vocabulary_.size(); ++token) {
    if (vocabulary_.kind(token) == TokenKind::kUserDefined) {
      added_tokens_.Add(vocabulary_.Bytes(token), token, false);
    }
  }
  added_tokens_.Finish();
}

std::vector<TokenId> VocabularyTokenizer::EncodeRanges(
    std::string_view text, const TemplateRanges& template_ranges) const {
  std::vector<TokenId> out;
  Scratch scratch;
  size_t at = 0;
  while (at < text.size()) {
    const auto match = added_tokens_.FindNext(text, at, template_ranges);
    const size_t run_end = match ? match->begin : text.size();
    if (run_end > at) EncodeRun(text.substr(at, run_end - at), scratch, out);
    if (!match) break;
    out.push_back(match->token);
    at = match->end;
  }
  return out;
}

std::vector<TokenId> VocabularyTokenizer::Encode(std::string_view text,
                                                 SpecialTokens special) const {
  TemplateRanges ranges;
  if (special == SpecialTokens::kParseSpecial) ranges.Add(0, text.size());
  return EncodeRanges(text, ranges);
}

std::vector<TokenId> VocabularyTokenizer::EncodePieces(const std::vector<TextPiece>& pieces) const {
  std::string text;
  TemplateRanges ranges;
  for (const TextPiece& piece : pieces) {
    const size_t begin = text.size();
    text += piece.text;
    if (piece.special == SpecialTokens::kParseSpecial) ranges.Add(begin, text.size());
  }
  return EncodeRanges(text, ranges);
}

std::string VocabularyTokenizer::TokenText(TokenId token) const {
  const auto name = vocabulary_.special_names().find(token);
  if (name != vocabulary_.special_names().end()) return name->second;
  return std::string(TokenBytes(token));
}

std::string VocabularyTokenizer::Decode(const std::vector<TokenId>& tokens) const {
  std::string text;
  for (const TokenId token : tokens) text += TokenBytes(token);
  if (strips_leading_space() && text.starts_with(' ')) text.erase(0, 1);
  return text;
}

}  // namespace baton::text
