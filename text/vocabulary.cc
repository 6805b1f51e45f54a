#include "text/vocabulary.h"

#include <fmt/format.h>

#include <algorithm>

#include "common/status_macros.h"
#include "model_file/end_tokens.h"

namespace baton::text {

absl::StatusOr<Vocabulary> Vocabulary::Load(const GgufFile& file, const TokenDecoder& decoder,
                                            bool add_bos) {
  Vocabulary vocabulary;
  BATON_RETURN_IF_ERROR(vocabulary.LoadTokens(file, decoder));
  BATON_RETURN_IF_ERROR(vocabulary.LoadSpecialIds(file));
  BATON_ASSIGN_OR_RETURN(add_bos, file.BoolOr("tokenizer.ggml.add_bos_token", add_bos));
  vocabulary.add_bos_ = add_bos && vocabulary.bos_ >= 0;
  return vocabulary;
}

absl::Status Vocabulary::LoadKinds(const GgufFile& file, size_t count) {
  constexpr std::string_view kKey = "tokenizer.ggml.token_type";
  if (!file.Has(kKey)) {
    kinds_.assign(count, TokenKind::kNormal);
    return absl::OkStatus();
  }
  BATON_ASSIGN_OR_RETURN(const auto types, file.Ints(kKey));
  if (types.size() != count) {
    return absl::InvalidArgumentError(
        fmt::format("{}: {} has {} entries for {} tokens", file.path(), kKey, types.size(), count));
  }
  for (size_t i = 0; i < count; ++i) {
    if (types[i] < 1 || types[i] > 6) {
      return absl::InvalidArgumentError(
          fmt::format("{}: token {} has type {}, not 1 to 6", file.path(), i, types[i]));
    }
    kinds_.push_back(static_cast<TokenKind>(types[i]));
  }
  return absl::OkStatus();
}

absl::Status Vocabulary::LoadTokens(const GgufFile& file, const TokenDecoder& decoder) {
  BATON_ASSIGN_OR_RETURN(const auto tokens, file.Strings("tokenizer.ggml.tokens"));
  if (tokens.empty() || tokens.size() > kMaxTokens) {
    return absl::InvalidArgumentError(fmt::format("{}: the vocabulary has {} tokens, not 1 to {}",
                                                  file.path(), tokens.size(), kMaxTokens));
  }
  BATON_RETURN_IF_ERROR(LoadKinds(file, tokens.size()));
  std::vector<size_t> ends;
  for (size_t i = 0; i < tokens.size(); ++i) {
    const auto token = static_cast<TokenId>(i);
    if (tokens[i].size() > kMaxTokenBytes) {
      return absl::InvalidArgumentError(fmt::format("{}: token {} has {} bytes, at most {} allowed",
                                                    file.path(), i, tokens[i].size(),
                                                    kMaxTokenBytes));
    }
    if (IsSpecial(token)) {
      special_names_.emplace(token, tokens[i]);
    } else {
      BATON_ASSIGN_OR_RETURN(const std::string bytes, decoder(tokens[i], kinds_[i]));
      arena_.insert(arena_.end(), bytes.begin(), bytes.end());
    }
    ends.push_back(arena_.size());
  }
  for (size_t i = 0, begin = 0; i < ends.size(); begin = ends[i++]) {
    bytes_.emplace_back(arena_.data() + begin, ends[i] - begin);
  }
  return absl::OkStatus();
}

absl::StatusOr<TokenId> Vocabulary::LoadId(const GgufFile& file, std::string_view key) const {
  BATON_ASSIGN_OR_RETURN(const int64_t id, file.IntOr(key, -1));
  if (id < -1 || id >= size()) {
    return absl::InvalidArgumentError(
        fmt::format("{}: {} is {}, the vocabulary has {} tokens", file.path(), key, id, size()));
  }
  return static_cast<TokenId>(id);
}

absl::Status Vocabulary::LoadSpecialIds(const GgufFile& file) {
  BATON_ASSIGN_OR_RETURN(bos_, LoadId(file, "tokenizer.ggml.bos_token_id"));
  BATON_ASSIGN_OR_RETURN(unknown_, LoadId(file, "tokenizer.ggml.unknown_token_id"));
  BATON_ASSIGN_OR_RETURN(end_tokens_, ReadEndTokens(file, size()));
  return absl::OkStatus();
}

}  // namespace baton::text
