#include "router/tool_call_parser.h"

#include <algorithm>
#include <boost/json.hpp>
#include <utility>

#include "common/view.h"

namespace baton::router {
namespace {

namespace json = boost::json;

constexpr std::string_view kCallOpen = "<tool_call>";
constexpr std::string_view kCallClose = "</tool_call>";
constexpr std::string_view kPythonMark = "<|python_tag|>";
constexpr std::string_view kBlanks = " \t\r\n";

// How much of the end of `text` may be the beginning of `mark`.
size_t PartialMark(std::string_view text, std::string_view mark) {
  for (size_t length = std::min(text.size(), mark.size() - 1); length > 0; --length) {
    if (text.ends_with(mark.substr(0, length))) return length;
  }
  return 0;
}

std::string Unquoted(const std::string& text) {
  json::error_code error;
  const json::value value = json::parse(text, error);
  return !error && value.is_string() ? std::string(View(value.get_string())) : "";
}

}  // namespace

// One call's JSON, byte by byte. boost::json says what is JSON; beside it this follows which member
// of the outer object a byte is in.
class ToolCallParser::CallReader {
 public:
  enum class State { kReading, kComplete, kBroken };

  // Whether the byte belongs to the call. False makes it kBroken, the byte being the first that
  // does not.
  bool Push(char byte) {
    json::error_code error;
    parser_.write_some(&byte, 1, error);
    if (error || !Follow(byte)) {
      state_ = State::kBroken;
      return false;
    }
    if (parser_.done()) state_ = name_.empty() ? State::kBroken : State::kComplete;
    return true;
  }

  State state() const { return state_; }
  const std::string& name() const { return name_; }
  // What of the arguments is there; "" where they have not begun.
  const std::string& arguments() const { return arguments_; }

 private:
  // False for what is JSON, but no call.
  bool Follow(char byte) {
    if (in_arguments_) arguments_ += byte;
    if (in_string_) {
      if (depth_ == 1) string_ += byte;
      if (escaped_) {
        escaped_ = false;
      } else if (byte == '\\') {
        escaped_ = true;
      } else if (byte == '"') {
        in_string_ = false;
        if (depth_ == 1) EndString();
      }
      return true;
    }
    if (kBlanks.find(byte) != std::string_view::npos) return true;
    if (depth_ == 0) {
      ++depth_;
      return byte == '{';
    }
    const bool value_begins = depth_ == 1 && behind_colon_ && !value_begun_;
    if (value_begins) {
      value_begun_ = true;
      const bool is_arguments = key_ == "arguments" || key_ == "parameters";
      if (is_arguments && byte != '{') return false;
      if (key_ == "name" && byte != '"') return false;
      if (is_arguments && arguments_.empty()) {
        in_arguments_ = true;
        arguments_ = byte;
      }
    }
    switch (byte) {
      case '"':
        in_string_ = true;
        if (depth_ == 1) string_ = byte;
        break;
      case '{':
      case '[':
        ++depth_;
        break;
      case '}':
      case ']':
        if (--depth_ == 1) in_arguments_ = false;
        break;
      case ':':
        if (depth_ == 1) behind_colon_ = true;
        break;
      case ',':
        if (depth_ == 1) behind_colon_ = value_begun_ = false;
        break;
      default:
        break;
    }
    return true;
  }

  void EndString() {
    if (!behind_colon_) {
      key_ = Unquoted(string_);
    } else if (key_ == "name" && name_.empty()) {
      name_ = Unquoted(string_);
    }
  }

  json::stream_parser parser_;
  State state_ = State::kReading;
  int depth_ = 0;
  bool in_string_ = false;
  bool escaped_ = false;
  bool behind_colon_ = false;  // of the outer object's member
  bool value_begun_ = false;
  bool in_arguments_ = false;
  std::string key_;
  std::string string_;  // of the outer object, with its quotes
  std::string name_;
  std::string arguments_;
};

ToolCallParser::ToolCallParser(ToolFormat format, std::string_view tools, Delivery delivery)
    : format_(format),
      delivery_(delivery),
      state_(format == ToolFormat::kHermes ? State::kText : State::kBeforeCall) {
  json::error_code error;
  const json::value array = json::parse({tools.data(), tools.size()}, error);
  if (error || !array.is_array()) return;
  for (const json::value& tool : array.get_array()) {
    const json::value* name = tool.find_pointer("/function/name", error);
    if (name != nullptr && name->is_string()) names_.emplace_back(View(name->get_string()));
  }
}

// What may stand before a call of kLlama.
std::string_view ToolCallParser::Between() const { return calls_ > 0 ? " \t\r\n;" : kBlanks; }

ToolCallParser::~ToolCallParser() = default;
ToolCallParser::ToolCallParser(ToolCallParser&&) noexcept = default;
ToolCallParser& ToolCallParser::operator=(ToolCallParser&&) noexcept = default;

ToolCallParser::Piece ToolCallParser::Push(std::string_view text) {
  Piece piece;
  held_ += text;
  Read(&piece);
  return piece;
}

// Each returns whether there may be more to read now.
void ToolCallParser::Read(Piece* piece) {
  bool more = true;
  while (more) {
    switch (state_) {
      case State::kText:
        more = ReadText(piece);
        break;
      case State::kBeforeCall:
        more = ReadBeforeCall();
        break;
      case State::kInside:
        more = ReadInside(piece);
        break;
      case State::kBehind:
        more = ReadBehind();
        break;
      case State::kRest:
        piece->text += std::exchange(held_, "");
        more = false;
        break;
    }
  }
}

// White space around calls belongs to their form, not to the answer.
void ToolCallParser::Show(std::string_view text, Piece* piece) {
  if (text.empty()) return;
  white_space_ += text;
  const size_t last = white_space_.find_last_not_of(kBlanks);
  if (last == std::string::npos) return;
  const size_t first = calls_ > 0 && !shown_ ? white_space_.find_first_not_of(kBlanks) : 0;
  piece->text.append(white_space_, first, last + 1 - first);
  white_space_.erase(0, last + 1);
  shown_ = true;
}

bool ToolCallParser::ReadText(Piece* piece) {
  const size_t open = held_.find(kCallOpen);
  const bool found = open != std::string::npos;
  const size_t shown = found ? open : held_.size() - PartialMark(held_, kCallOpen);
  Show(std::string_view(held_).substr(0, shown), piece);
  held_.erase(0, found ? shown + kCallOpen.size() : shown);
  if (!found) return false;
  Begin();
  form_ = kCallOpen;
  return true;
}

bool ToolCallParser::ReadBeforeCall() {
  const size_t begin = held_.find_first_not_of(Between());
  if (begin == std::string::npos) return false;
  const std::string_view text = std::string_view(held_).substr(begin);
  if (text.size() < kPythonMark.size() && kPythonMark.starts_with(text)) return false;
  const bool tagged = text.starts_with(kPythonMark);
  if (!tagged && !text.starts_with('{')) {
    state_ = State::kRest;
    return true;
  }
  const size_t form = tagged ? begin + kPythonMark.size() : begin;
  Begin();
  form_ = held_.substr(0, form);
  held_.erase(0, form);
  return true;
}

void ToolCallParser::Begin() {
  state_ = State::kInside;
  reader_ = std::make_unique<CallReader>();
  begun_ = false;
  told_ = 0;
}

bool ToolCallParser::ReadInside(Piece* piece) {
  size_t read = 0;
  while (read < held_.size() && reader_->state() == CallReader::State::kReading) {
    if (reader_->Push(held_[read])) ++read;
  }
  form_.append(held_, 0, read);
  held_.erase(0, read);
  // In kLlama only a tool's name tells a call from another JSON object.
  const bool known =
      format_ == ToolFormat::kHermes || std::ranges::find(names_, reader_->name()) != names_.end();
  const bool complete = reader_->state() == CallReader::State::kComplete;
  const bool as_it_comes = delivery_ == Delivery::kAsItComes && !reader_->name().empty() &&
                           !reader_->arguments().empty();
  if (known && (complete || as_it_comes)) Tell(piece);
  if (complete && known) {
    state_ = format_ == ToolFormat::kHermes ? State::kBehind : State::kBeforeCall;
    return true;
  }
  if (complete || reader_->state() == CallReader::State::kBroken) {
    GiveUp(piece);
    return true;
  }
  return false;
}

// What is there of the call that the client does not have yet.
void ToolCallParser::Tell(Piece* piece) {
  ToolCallDelta delta;
  if (!begun_) {
    delta.name = reader_->name();
    ++calls_;
    white_space_.clear();
  }
  delta.index = calls_ - 1;
  delta.arguments = reader_->arguments().substr(told_);
  told_ = reader_->arguments().size();
  // There were none, and there will be none.
  const bool complete = reader_->state() == CallReader::State::kComplete;
  if (complete && told_ == 0) delta.arguments = "{}";
  if (!begun_ || !delta.arguments.empty()) piece->calls.push_back(std::move(delta));
  begun_ = true;
}

// It is no call, or no longer.
void ToolCallParser::GiveUp(Piece* piece) {
  if (!begun_ && format_ == ToolFormat::kHermes) {
    Show(form_, piece);
  } else if (!begun_) {
    held_.insert(0, form_);
  }
  state_ = format_ == ToolFormat::kHermes ? State::kText : State::kRest;
}

bool ToolCallParser::ReadBehind() {
  const size_t begin = held_.find_first_not_of(kBlanks);
  if (begin == std::string::npos) return false;
  const std::string_view text = std::string_view(held_).substr(begin);
  if (text.size() < kCallClose.size() && kCallClose.starts_with(text)) return false;
  if (text.starts_with(kCallClose)) held_.erase(0, begin + kCallClose.size());
  state_ = State::kText;
  return true;
}

ToolCallParser::Piece ToolCallParser::Finish() {
  Piece piece;
  if (state_ == State::kInside) GiveUp(&piece);
  if (state_ == State::kText || state_ == State::kBehind) {
    Show(std::exchange(held_, ""), &piece);
    if (calls_ == 0) piece.text += std::exchange(white_space_, "");
  } else if (calls_ == 0 || held_.find_first_not_of(Between()) != std::string::npos) {
    piece.text += std::exchange(held_, "");
  }
  return piece;
}

}  // namespace baton::router
