#pragma once

// Deltas and a finish to the answers of Text Generation Inference's /generate and /generate_stream.
// No I/O; used by one thread at a time.

#include <cstdint>
#include <string>
#include <vector>

#include "router/request.h"
#include "router/tgi_request.h"

namespace baton::router {

class TgiAnswer {
 public:
  TgiAnswer(TgiOptions options, bool stream) : options_(std::move(options)), stream_(stream) {}

  // In a stream an event a token: each when the next one, or the end, is here, for the last one
  // carries the whole text.
  void Add(const Delta& delta, std::string* out);
  void Add(const Finish& finish, std::string* out);
  bool complete() const { return complete_; }
  std::string Body() const;  // once complete, of /generate

 private:
  void AppendToken(const TokenDetail& token, std::string* out) const;
  void AddPrompt(const Delta& delta);
  void AppendEvent(size_t token, bool last, std::string* out) const;
  void AppendDetails(bool with_tokens, std::string* out) const;
  std::string_view FinishName() const;

  const TgiOptions options_;
  const bool stream_;
  std::string text_;
  std::string prompt_;  // its tokens, where asked for: array elements
  std::vector<TokenDetail> tokens_;
  size_t sent_ = 0;  // tokens
  Finish finish_;
  bool complete_ = false;
};

// {"error": ..., "error_type": ...}, as TGI has them.
std::string TgiErrorBody(const absl::Status& status);

}  // namespace baton::router
