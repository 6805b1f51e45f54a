#include "router/responses_answer.h"

#include <fmt/format.h>

#include <utility>

#include "router/json_text.h"

namespace baton::router {
namespace {

std::string Quoted(std::string_view text) {
  std::string quoted;
  AppendJsonString(text, &quoted);
  return quoted;
}

std::string Number(double value) {
  std::string number;
  AppendJsonNumber(value, &number);
  return number;
}

constexpr std::string_view kPlace = R"("output_index":0,"content_index":0)";

}  // namespace

void ResponsesAnswer::AppendEvent(std::string_view type, std::string_view rest, std::string* out) {
  out->append("event: ").append(type).append("\ndata: {\"type\":\"").append(type);
  out->append(R"(","sequence_number":)");
  AppendJsonInt(events_++, out);
  out->append(",").append(rest).append("}\n\n");
}

std::string ResponsesAnswer::Status() const {
  if (!complete_) return "in_progress";
  return finish_.reason == FinishReason::kLength ? "incomplete" : "completed";
}

std::string ResponsesAnswer::Part() const {
  return R"({"type":"output_text","text":)" + Quoted(text_) + R"(,"annotations":[],"logprobs":[]})";
}

std::string ResponsesAnswer::Item() const {
  const std::string content = complete_ ? Part() : "";
  return fmt::format(
      R"({{"type":"message","id":"msg_{}","status":"{}","role":"assistant","content":[{}]}})",
      options_.id, Status(), content);
}

std::string ResponsesAnswer::Response() const {
  std::string response = fmt::format(
      R"({{"id":"resp_{}","object":"response","created_at":{},"status":"{}","error":null,)",
      options_.id, options_.created_s, Status());
  response += R"("incomplete_details":)";
  response += Status() == "incomplete" ? R"({"reason":"max_output_tokens"})" : "null";
  response += fmt::format(
      R"(,"instructions":{},"max_output_tokens":{},"metadata":{},"model":{},"output":[{}],)",
      options_.instructions, options_.max_output_tokens, options_.metadata, Quoted(options_.model),
      complete_ ? Item() : "");
  response += fmt::format(
      R"("parallel_tool_calls":true,"previous_response_id":null,"store":false,"temperature":{},)"
      R"("text":{{"format":{}}},"tool_choice":"auto","tools":[],"top_p":{},)"
      R"("truncation":"disabled",)",
      Number(options_.temperature), options_.format, Number(options_.top_p));
  if (!complete_) return response + R"("usage":null})";
  return response +
         fmt::format(R"("usage":{{"input_tokens":{},"input_tokens_details":{{"cached_tokens":{}}},)"
                     R"("output_tokens":{},"output_tokens_details":{{"reasoning_tokens":0}},)"
                     R"("total_tokens":{}}}}})",
                     finish_.prompt_tokens, finish_.stats.cached_prompt_tokens,
                     finish_.output_tokens, finish_.prompt_tokens + finish_.output_tokens);
}

void ResponsesAnswer::Begin(std::string* out) {
  if (std::exchange(begun_, true)) return;
  AppendEvent("response.created", R"("response":)" + Response(), out);
  AppendEvent("response.in_progress", R"("response":)" + Response(), out);
  AppendEvent("response.output_item.added", R"("output_index":0,"item":)" + Item(), out);
  AppendEvent("response.content_part.added",
              fmt::format(R"("item_id":"msg_{}",{},"part":{})", options_.id, kPlace, Part()), out);
}

void ResponsesAnswer::Add(const Delta& delta, std::string* out) {
  if (stream_) Begin(out);
  text_ += delta.text;
  if (!stream_ || delta.text.empty()) return;
  AppendEvent("response.output_text.delta",
              fmt::format(R"("item_id":"msg_{}",{},"delta":{},"logprobs":[])", options_.id, kPlace,
                          Quoted(delta.text)),
              out);
}

void ResponsesAnswer::Add(const Finish& finish, std::string* out) {
  if (stream_) Begin(out);
  finish_ = finish;
  complete_ = true;
  if (!stream_) return;
  AppendEvent("response.output_text.done",
              fmt::format(R"("item_id":"msg_{}",{},"text":{},"logprobs":[])", options_.id, kPlace,
                          Quoted(text_)),
              out);
  AppendEvent("response.content_part.done",
              fmt::format(R"("item_id":"msg_{}",{},"part":{})", options_.id, kPlace, Part()), out);
  AppendEvent("response.output_item.done", R"("output_index":0,"item":)" + Item(), out);
  AppendEvent("response." + Status(), R"("response":)" + Response(), out);
}

std::string ResponsesAnswer::Body() const { return Response(); }

}  // namespace baton::router
