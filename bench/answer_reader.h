#pragma once

// One HTTP answer of an OpenAI endpoint, read as its bytes come: a stream of server-sent events, or
// one JSON object. Any server's: nothing is assumed but OpenAI's fields.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace baton::bench {

// What an answer said of itself; -1 for numbers that it did not tell.
struct AnswerFacts {
  int status = 0;         // HTTP
  bool finished = false;  // a finish reason came
  int64_t prompt_tokens = -1;
  int64_t output_tokens = -1;
  std::string error;  // of an error body or event; "" when there was none
};

// Bounded: a head of 64 KiB, an event or a whole body of kMaxBodyBytes. Not thread-safe.
class AnswerReader {
 public:
  static constexpr size_t kMaxBodyBytes = size_t{64} << 20;

  AnswerReader();
  ~AnswerReader();

  struct Progress {
    size_t consumed = 0;  // bytes of this answer; the rest belongs to what comes after it
    int32_t pieces = 0;   // events with generated text that these bytes completed
  };
  // Takes the connection's next bytes, with those before them that were not consumed.
  // InvalidArgument for what is no HTTP answer, or over a bound.
  absl::StatusOr<Progress> Push(std::string_view bytes);
  // The server closed the connection. InvalidArgument unless that ends the answer.
  absl::Status Close();

  bool complete() const;
  bool keep_alive() const;  // once complete: the connection can take another request
  const AnswerFacts& facts() const;
  const std::string& body() const;  // of an answer in one piece, once complete

 private:
  class Parser;
  std::unique_ptr<Parser> parser_;
};

}  // namespace baton::bench
