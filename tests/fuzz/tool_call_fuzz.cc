// Any bytes as an answer that may hold calls of tools. However it is cut into pieces, text and
// calls are the same, and where there is no call, the text is the answer.
//
// Real fuzzing: as chat_template_fuzz.cc, with router/tool_call_parser.cc and -lboost_json.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "router/tool_call_parser.h"

namespace baton::router {
namespace {

constexpr std::string_view kCallable =
    R"([{"type": "function", "function": {"name": "now"}},
        {"type": "function", "function": {"name": "weather"}}])";

struct Told {
  std::string text, calls;
  bool operator==(const Told&) const = default;
};

Told Tell(ToolFormat format, ToolCallParser::Delivery delivery, std::string_view answer,
          size_t piece_bytes) {
  ToolCallParser parser(format, kCallable, delivery);
  Told told;
  const auto take = [&told](const ToolCallParser::Piece& piece) {
    told.text += piece.text;
    for (const ToolCallDelta& call : piece.calls) {
      if (!call.name.empty()) told.calls += '\n' + call.name + ' ';
      told.calls += call.arguments;
    }
  };
  for (size_t at = 0; at < answer.size(); at += piece_bytes) {
    take(parser.Push(answer.substr(at, piece_bytes)));
  }
  take(parser.Finish());
  return told;
}

void Check(bool sound) {
  if (!sound) std::abort();
}

}  // namespace
}  // namespace baton::router

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace baton::router;
  const std::string_view answer(reinterpret_cast<const char*>(data), size);
  for (const ToolFormat format : {ToolFormat::kHermes, ToolFormat::kLlama}) {
    for (const auto delivery :
         {ToolCallParser::Delivery::kWhole, ToolCallParser::Delivery::kAsItComes}) {
      const Told told = Tell(format, delivery, answer, size + 1);
      for (const size_t bytes : {1, 3, 16}) Check(Tell(format, delivery, answer, bytes) == told);
      if (told.calls.empty()) Check(told.text == answer);
    }
  }
  return 0;
}
