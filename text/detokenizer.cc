#include "text/detokenizer.h"

#include <algorithm>
#include <string_view>

#include "text/utf8.h"

namespace baton::text {
namespace {

bool IsAscii(std::string_view bytes) {
  return std::ranges::all_of(bytes, [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

}  // namespace

std::string Detokenizer::Push(TokenId token) {
  std::string_view bytes = tokenizer_->TokenBytes(token);
  if (first_ && !bytes.empty()) {
    first_ = false;
    if (tokenizer_->strips_leading_space() && bytes.front() == ' ') bytes.remove_prefix(1);
  }
  if (held_.empty() && IsAscii(bytes)) return std::string(bytes);
  held_ += bytes;
  std::string out;
  size_t at = 0;
  while (at < held_.size()) {
    const Utf8Char c = DecodeUtf8(held_, at);
    if (c.valid) {
      out.append(held_, at, c.bytes);
    } else if (IsIncompleteUtf8(std::string_view(held_).substr(at))) {
      break;
    } else {
      AppendUtf8(kReplacementCharacter, out);
    }
    at += c.bytes;
  }
  held_.erase(0, at);
  return out;
}

std::string Detokenizer::Flush() {
  std::string out;
  for (size_t i = 0; i < held_.size(); ++i) AppendUtf8(kReplacementCharacter, out);
  held_.clear();
  return out;
}

}  // namespace baton::text
