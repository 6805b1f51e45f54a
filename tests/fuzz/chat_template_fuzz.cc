// libFuzzer target for the template interpreter. Not part of the default build:
//   clang++ -std=c++20 -g -O1 -fsanitize=fuzzer,address,undefined -I.
//     tests/fuzz/chat_template_fuzz.cc text/chat_template.cc text/utf8.cc text/jinja/*.cc
//     common/status_macros.cc -labsl_status -labsl_statusor -labsl_cord -lboost_json -lfmt
// A good corpus: tests/golden/text/templates.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "text/chat_template.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view source(reinterpret_cast<const char*>(data), size);
  const auto chat_template = baton::text::ChatTemplate::Create(source, "<s>", "</s>");
  if (!chat_template.ok()) return 0;
  (void)(*chat_template)->Render({{"system", " a\n"}, {"user", "b \xFF"}, {"assistant", ""}}, true);
  const std::string calls = R"([{"function": {"name": "f", "arguments": "{\"a\": [1]}"}}])";
  const std::string_view tools = R"([{"function": {"name": "f", "parameters": {"a": 1}}}])";
  (void)(*chat_template)
      ->Render({{"user", "x"}, {"assistant", "", calls}, {"tool", "y", "", "1"}}, true, tools);
  return 0;
}
