#pragma once

// Deltas and a finish to the answers of OpenAI's Responses API: one message of text. No I/O; used
// by one thread at a time.

#include <cstdint>
#include <string>
#include <string_view>

#include "router/request.h"
#include "router/responses_request.h"

namespace baton::router {

class ResponsesAnswer {
 public:
  ResponsesAnswer(ResponsesOptions options, bool stream)
      : options_(std::move(options)), stream_(stream) {}

  // In a stream: the API's events, from response.created to response.completed or
  // response.incomplete.
  void Add(const Delta& delta, std::string* out);
  void Add(const Finish& finish, std::string* out);
  bool complete() const { return complete_; }
  std::string Body() const;  // once complete: the response

 private:
  void Begin(std::string* out);
  // "event: TYPE\ndata: {"type":TYPE,"sequence_number":N" and the rest of an object.
  void AppendEvent(std::string_view type, std::string_view rest, std::string* out);
  std::string Status() const;
  std::string Part() const;
  std::string Item() const;
  std::string Response() const;

  const ResponsesOptions options_;
  const bool stream_;
  std::string text_;
  bool begun_ = false;
  int64_t events_ = 0;
  Finish finish_;
  bool complete_ = false;
};

}  // namespace baton::router
