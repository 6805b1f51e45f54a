#include "bench/answer_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <boost/beast/http/basic_parser.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/json.hpp>

namespace baton::bench {
namespace {

namespace http = boost::beast::http;
namespace json = boost::json;
using boost::beast::string_view;
using boost::system::error_code;

constexpr uint32_t kMaxHeadBytes = 64 << 10;
constexpr size_t kMaxErrorBytes = 1024;  // of a server's error text, kept for the report

const json::object* Object(const json::object& object, std::string_view key) {
  const json::value* value = object.if_contains(key);
  return value == nullptr ? nullptr : value->if_object();
}

bool HasText(const json::object& object, std::string_view key) {
  const json::value* value = object.if_contains(key);
  const json::string* text = value == nullptr ? nullptr : value->if_string();
  return text != nullptr && !text->empty();
}

int64_t Count(const json::object& object, std::string_view key) {
  const json::value* value = object.if_contains(key);
  return value != nullptr && value->is_int64() ? value->get_int64() : -1;
}

// Generated text of a choice, whatever it is for.
bool HasOutput(const json::object& choice) {
  if (HasText(choice, "text")) return true;
  const json::object* delta = Object(choice, "delta");
  if (delta == nullptr) delta = Object(choice, "message");
  if (delta == nullptr) return false;
  return HasText(*delta, "content") || HasText(*delta, "reasoning_content") ||
         HasText(*delta, "reasoning") || delta->contains("tool_calls");
}

std::string ErrorText(const json::value& error) {
  std::string text;
  if (const json::object* object = error.if_object()) {
    if (const json::value* message = object->if_contains("message")) {
      if (message->is_string()) text = std::string(message->get_string());
    }
  } else if (error.is_string()) {
    text = std::string(error.get_string());
  }
  return text.empty() ? json::serialize(error).substr(0, kMaxErrorBytes)
                      : text.substr(0, kMaxErrorBytes);
}

}  // namespace

class AnswerReader::Parser final : public http::basic_parser<false> {
 public:
  Parser() {
    eager(true);
    header_limit(kMaxHeadBytes);
    body_limit(boost::none);
  }

  AnswerFacts facts;
  int32_t pieces = 0;
  absl::Status unsound;
  const std::string& body() const { return text_; }

 private:
  void on_request_impl(http::verb, string_view, string_view, int, error_code&) override {}
  void on_response_impl(int status, string_view, int, error_code&) override {
    facts.status = status;
  }
  void on_field_impl(http::field name, string_view, string_view value, error_code&) override {
    if (name == http::field::content_type) events_ = value.starts_with("text/event-stream");
  }
  void on_header_impl(error_code&) override {}
  void on_body_init_impl(const boost::optional<uint64_t>&, error_code&) override {}
  size_t on_body_impl(string_view bytes, error_code& error) override {
    Take({bytes.data(), bytes.size()}, error);
    return bytes.size();
  }
  void on_chunk_header_impl(uint64_t, string_view, error_code&) override {}
  size_t on_chunk_body_impl(uint64_t, string_view bytes, error_code& error) override {
    Take({bytes.data(), bytes.size()}, error);
    return bytes.size();
  }
  void on_finish_impl(error_code&) override {
    if (events_) return;
    if (!TakeJson(text_)) facts.error = text_.substr(0, kMaxErrorBytes);
  }

  void Take(std::string_view bytes, error_code& error) {
    if (text_.size() + bytes.size() > kMaxBodyBytes) {
      unsound = absl::InvalidArgumentError(fmt::format(
          "{} has more than {} bytes", events_ ? "an event" : "the answer", kMaxBodyBytes));
      error = http::error::body_limit;
      return;
    }
    text_.append(bytes);
    if (events_) TakeEvents();
  }

  // An event is some `data: ` lines and an empty line; text_ keeps what has no empty line yet.
  void TakeEvents() {
    std::string_view rest = text_;
    std::string data;
    while (true) {
      std::string_view scan = rest;
      bool whole = false;
      data.clear();
      while (!whole) {
        const size_t end = scan.find('\n');
        if (end == std::string_view::npos) break;
        std::string_view line = scan.substr(0, end);
        scan.remove_prefix(end + 1);
        if (line.ends_with('\r')) line.remove_suffix(1);
        if (line.empty()) {
          whole = true;
        } else if (line.starts_with("data:")) {
          line.remove_prefix(line.starts_with("data: ") ? 6 : 5);
          if (!data.empty()) data += '\n';
          data += line;
        }
      }
      if (!whole) break;
      rest = scan;
      if (!data.empty() && data != "[DONE]") TakeJson(data);
    }
    text_.erase(0, text_.size() - rest.size());
  }

  // False when it is no JSON object.
  bool TakeJson(std::string_view text) {
    unsigned char memory[4096];  // enough for a token's event
    json::monotonic_resource resource(memory, sizeof(memory));
    error_code error;
    const json::value value = json::parse(text, error, &resource);
    const json::object* object = error ? nullptr : value.if_object();
    if (object == nullptr) return false;
    if (const json::value* why = object->if_contains("error"); why != nullptr && !why->is_null()) {
      facts.error = ErrorText(*why);
    }
    if (const json::object* usage = Object(*object, "usage")) {
      facts.prompt_tokens = Count(*usage, "prompt_tokens");
      facts.output_tokens = Count(*usage, "completion_tokens");
    }
    const json::value* choices = object->if_contains("choices");
    if (choices == nullptr || !choices->is_array()) return true;
    bool output = false;
    for (const json::value& choice : choices->get_array()) {
      const json::object* one = choice.if_object();
      if (one == nullptr) continue;
      output |= HasOutput(*one);
      facts.finished |= HasText(*one, "finish_reason");
    }
    pieces += output ? 1 : 0;
    return true;
  }

  bool events_ = false;
  std::string text_;
};

AnswerReader::AnswerReader() : parser_(std::make_unique<Parser>()) {}
AnswerReader::~AnswerReader() = default;

absl::StatusOr<AnswerReader::Progress> AnswerReader::Push(std::string_view bytes) {
  Progress progress;
  const int32_t before = parser_->pieces;
  while (progress.consumed < bytes.size() && !parser_->is_done()) {
    error_code error;
    const size_t taken = parser_->put(
        boost::asio::buffer(bytes.data() + progress.consumed, bytes.size() - progress.consumed),
        error);
    progress.consumed += taken;
    if (error == http::error::need_more || (!error && taken == 0)) break;
    if (error) {
      if (!parser_->unsound.ok()) return parser_->unsound;
      return absl::InvalidArgumentError(fmt::format("no HTTP answer: {}", error.message()));
    }
  }
  progress.pieces = parser_->pieces - before;
  return progress;
}

absl::Status AnswerReader::Close() {
  error_code error;
  if (!parser_->is_done()) parser_->put_eof(error);
  if (!error && parser_->is_done()) return absl::OkStatus();
  return absl::InvalidArgumentError("the connection closed before the answer's end");
}

bool AnswerReader::complete() const { return parser_->is_done(); }
bool AnswerReader::keep_alive() const { return parser_->is_done() && parser_->keep_alive(); }
const AnswerFacts& AnswerReader::facts() const { return parser_->facts; }
const std::string& AnswerReader::body() const { return parser_->body(); }

}  // namespace baton::bench
