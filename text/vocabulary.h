#pragma once

// The tokens of a model: what each one is, and the bytes it stands for.

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/ids.h"
#include "model_file/gguf.h"

namespace baton::text {

// tokenizer.ggml.token_type
enum class TokenKind : uint8_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,      // BOS, "<|im_end|>": shown to nobody, written by templates only
  kUserDefined = 4,  // always one token, wherever its text stands
  kUnused = 5,
  kByte = 6,  // "<0x0A>"
};

// How the text of a token in the file becomes the bytes that it stands for. Control and unknown
// tokens stand for nothing and are not asked for.
using TokenDecoder =
    std::function<absl::StatusOr<std::string>(std::string_view text, TokenKind kind)>;

// Owns all texts, so it does not need the file any more. Immutable after Load. Movable, but not
// while something points to texts().
class Vocabulary {
 public:
  static constexpr size_t kMaxTokens = size_t{1} << 21;
  static constexpr size_t kMaxTokenBytes = 1024;

  // Reads tokenizer.ggml.{tokens,token_type,*_token_id,add_bos_token}. InvalidArgument when they
  // are missing or contradict each other. `add_bos` is the model family's default.
  static absl::StatusOr<Vocabulary> Load(const GgufFile& file, const TokenDecoder& decoder,
                                         bool add_bos);

  int32_t size() const { return static_cast<int32_t>(kinds_.size()); }
  bool Contains(TokenId token) const { return token >= 0 && token < size(); }
  TokenKind kind(TokenId token) const { return kinds_[token]; }
  // Whether the token may come out of ordinary text by merging.
  bool IsText(TokenId token) const {
    return kinds_[token] == TokenKind::kNormal || kinds_[token] == TokenKind::kUserDefined;
  }
  // Whether a template may write the token by its name and a user may not.
  bool IsSpecial(TokenId token) const {
    return kinds_[token] == TokenKind::kControl || kinds_[token] == TokenKind::kUnknown;
  }

  // The bytes each token stands for; "" for special tokens. Indexed by token.
  const std::vector<std::string_view>& bytes() const { return bytes_; }
  std::string_view Bytes(TokenId token) const {
    return Contains(token) ? bytes_[token] : std::string_view();
  }
  // The names of the special tokens.
  const std::map<TokenId, std::string>& special_names() const { return special_names_; }

  TokenId bos() const { return bos_; }          // -1: none
  TokenId unknown() const { return unknown_; }  // -1: none
  bool add_bos() const { return add_bos_; }
  const std::vector<TokenId>& end_tokens() const { return end_tokens_; }

 private:
  absl::Status LoadTokens(const GgufFile& file, const TokenDecoder& decoder);
  absl::Status LoadKinds(const GgufFile& file, size_t count);
  absl::Status LoadSpecialIds(const GgufFile& file);
  absl::StatusOr<TokenId> LoadId(const GgufFile& file, std::string_view key) const;

  std::vector<TokenKind> kinds_;
  std::vector<char> arena_;  // a vector, so that moving keeps the views
  std::vector<std::string_view> bytes_;
  std::map<TokenId, std::string> special_names_;
  TokenId bos_ = -1;
  TokenId unknown_ = -1;
  bool add_bos_ = false;
  std::vector<TokenId> end_tokens_;
};

}  // namespace baton::text
