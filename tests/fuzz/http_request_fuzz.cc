// Any bytes as the body of every request that the HTTP front end parses.
//
// Real fuzzing: as chat_template_fuzz.cc, with the router's sources and -lboost_json.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "router/openai_request.h"
#include "router/responses_request.h"
#include "router/tgi_request.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace baton::router;
  const std::string_view body(reinterpret_cast<const char*>(data), size);
  std::string param;
  for (const Endpoint endpoint : {Endpoint::kChat, Endpoint::kCompletions}) {
    const auto request = ParseOpenAiRequest(endpoint, body, RequestLimits{}, &param);
    if (!request.ok()) continue;
    for (int32_t choice = 0; choice < request->choices(); ++choice) (void)request->Choice(choice);
    if (request->tools.choice == ToolUse::Choice::kNone) continue;
    (void)ToolConstraint(ToolFormat::kHermes, request->tools);
  }
  ResponsesOptions responses;
  (void)ParseResponsesRequest(body, RequestLimits{}, &responses, &param);
  TgiOptions options;
  (void)ParseTgiRequest(body, false, RequestLimits{}, &options, &param);
  return 0;
}
