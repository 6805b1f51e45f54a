#pragma once

// An answer's text back to calls of tools, piece by piece as it comes.

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "router/tool_calls.h"

namespace baton::router {

// A piece of a call. A call's first piece has its name; its arguments' text, exactly as the model
// wrote it, is that of all its pieces one after the other.
struct ToolCallDelta {
  int32_t index = 0;  // of the call in the answer
  std::string name;   // "": more of a call that has begun
  std::string arguments;
};

// Sequential; not thread-safe. Text that is not a call, or stops being one before it has begun for
// the client, is shown as it stands, to the last byte; white space around calls belongs to their
// form.
//
// A call is {"name": NAME, "arguments" or "parameters": {...}}, strict JSON, the members in any
// order, others passed over; without arguments they are "{}". In kHermes it stands behind
// <tool_call>, wherever in the answer; </tool_call> may be missing. In kLlama calls begin the
// answer, perhaps behind <|python_tag|>, stand one after the other with white space or semicolons
// between them, and have the name of a tool; what follows them is text.
class ToolCallParser {
 public:
  enum class Delivery {
    kWhole,      // a call is told when it is complete; one that never is remains text
    kAsItComes,  // a call begins as soon as its name and its arguments' first brace are there. If
                 // it breaks off behind that, its arguments end there, and the rest is text
  };

  // `tools`: a JSON array.
  ToolCallParser(ToolFormat format, std::string_view tools, Delivery delivery);
  ~ToolCallParser();
  ToolCallParser(ToolCallParser&&) noexcept;
  ToolCallParser& operator=(ToolCallParser&&) noexcept;

  struct Piece {
    std::string text;
    std::vector<ToolCallDelta> calls;
  };
  Piece Push(std::string_view text);
  Piece Finish();
  int32_t calls() const { return calls_; }  // begun so far

 private:
  class CallReader;
  enum class State {
    kText,
    kBeforeCall,  // kLlama: behind a call, or at the answer's beginning
    kInside,      // of a call
    kBehind,      // kHermes: behind a call, where its closing mark may come
    kRest,        // kLlama: text to the end
  };

  void Read(Piece* piece);
  bool ReadText(Piece* piece);
  bool ReadBeforeCall();
  std::string_view Between() const;
  bool ReadInside(Piece* piece);
  bool ReadBehind();
  void Begin();
  void Tell(Piece* piece);
  void GiveUp(Piece* piece);
  void Show(std::string_view text, Piece* piece);

  ToolFormat format_;
  Delivery delivery_;
  std::vector<std::string> names_;
  State state_;
  std::string held_;                    // not read yet, or not decided yet
  std::string form_;                    // what the call being read has taken of the text so far
  std::unique_ptr<CallReader> reader_;  // of the call being read
  bool begun_ = false;                  // the client knows of it
  size_t told_ = 0;                     // bytes of its arguments
  std::string white_space_;             // shown only when text follows
  bool shown_ = false;
  int32_t calls_ = 0;
};

}  // namespace baton::router
