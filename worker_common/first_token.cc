#include "worker_common/first_token.h"

#include <fmt/format.h>

#include <bit>
#include <cstring>

namespace baton::worker_common {
namespace {

// A token and its logprob, little-endian; then the same for each of the best tokens.
struct Entry {
  int32_t token;
  float logprob;
};
static_assert(sizeof(Entry) == 8 && std::endian::native == std::endian::little);
constexpr size_t kMaxTop = 20;  // as in SamplingParams

void Append(const Entry& entry, std::string* payload) {
  char bytes[sizeof(Entry)];
  std::memcpy(bytes, &entry, sizeof(Entry));
  payload->append(bytes, sizeof(Entry));
}

}  // namespace

std::string EncodeFirstToken(const OutputToken& token) {
  std::string payload;
  Append({token.token, token.logprob}, &payload);
  for (const TokenLogprob& best : token.top) Append({best.token, best.logprob}, &payload);
  return payload;
}

absl::StatusOr<OutputToken> DecodeFirstToken(std::string_view payload, int32_t vocab_size) {
  const size_t entries = payload.size() / sizeof(Entry);
  if (entries * sizeof(Entry) != payload.size() || entries < 1 || entries > 1 + kMaxTop) {
    return absl::InvalidArgumentError(
        fmt::format("a first token of {} bytes came with the KV", payload.size()));
  }
  OutputToken first;
  for (size_t i = 0; i < entries; ++i) {
    Entry entry;
    std::memcpy(&entry, payload.data() + i * sizeof(Entry), sizeof(Entry));
    if (entry.token < 0 || entry.token >= vocab_size) {
      return absl::InvalidArgumentError(fmt::format(
          "first token {} came with the KV, vocabulary is [0, {})", entry.token, vocab_size));
    }
    if (i == 0) {
      first.token = entry.token;
      first.logprob = entry.logprob;
    } else {
      first.top.push_back({.token = entry.token, .logprob = entry.logprob});
    }
  }
  return first;
}

}  // namespace baton::worker_common
