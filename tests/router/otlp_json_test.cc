#include "router/otlp_json.h"

#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <map>
#include <string>
#include <vector>

#include "tests/router/record_testing.h"

namespace baton::router {
namespace {

namespace json = boost::json;
using std::chrono::milliseconds;

RecordPtr Traced(RequestRecord record, const std::string& state = "") {
  auto call = std::make_shared<CallInfo>(*record.call);
  call->trace = {.id_high = 0x0af7651916cd43dd,
                 .id_low = 0x8448eb211c80319c,
                 .span = 0xabc,
                 .parent = 0xb7ad6b7169203331,
                 .sampled = true,
                 .state = state};
  record.call = call;
  return std::make_shared<const RequestRecord>(std::move(record));
}

struct Parsed {
  json::object resource;
  std::vector<json::object> spans;
  const json::object& Named(std::string_view name) const {
    for (const json::object& span : spans) {
      if (std::string_view(span.at("name").as_string()) == name) return span;
    }
    ADD_FAILURE() << "no span " << name;
    return spans.front();
  }
};

Parsed Parse(const std::vector<RecordPtr>& records) {
  uint64_t last_id = 0;
  const OtlpTraces traces = ToOtlp(records, "router-7", [&last_id] { return ++last_id; });
  const json::value value = json::parse(traces.body);
  const json::array& all = value.at("resourceSpans").as_array();
  EXPECT_EQ(all.size(), 1u);
  Parsed parsed{all[0].at("resource").as_object(), {}};
  const json::array& scopes = all[0].at("scopeSpans").as_array();
  EXPECT_EQ(scopes.size(), 1u);
  for (const json::value& span : scopes[0].at("spans").as_array()) {
    parsed.spans.push_back(span.as_object());
  }
  EXPECT_EQ(parsed.spans.size(), traces.spans);
  return parsed;
}

// "intValue:12", by key.
std::map<std::string, std::string> AttributesOf(const json::object& span) {
  std::map<std::string, std::string> found;
  for (const json::value& attribute : span.at("attributes").as_array()) {
    const json::object& value = attribute.at("value").as_object();
    EXPECT_EQ(value.size(), 1u);
    const auto& [kind, content] = *value.begin();
    found[std::string(attribute.at("key").as_string())] =
        std::string(kind) + ":" +
        (content.is_string() ? std::string(content.as_string()) : json::serialize(content));
  }
  return found;
}

TEST(ToOtlp, HasASpanForTheCallAndItsParts) {
  const Parsed parsed = Parse({Traced(TestRecord(), "a=1")});
  EXPECT_EQ(AttributesOf(parsed.resource)["service.name"], "stringValue:baton");
  EXPECT_EQ(AttributesOf(parsed.resource)["service.instance.id"], "stringValue:router-7");
  ASSERT_EQ(parsed.spans.size(), 7u);
  const json::object& call = parsed.Named("POST /v1/chat/completions");
  EXPECT_EQ(call.at("traceId").as_string(), "0af7651916cd43dd8448eb211c80319c");
  EXPECT_EQ(call.at("spanId").as_string(), "0000000000000abc");
  EXPECT_EQ(call.at("parentSpanId").as_string(), "b7ad6b7169203331");
  EXPECT_EQ(call.at("traceState").as_string(), "a=1");
  EXPECT_EQ(call.at("kind").as_int64(), 2);
  EXPECT_EQ(call.at("startTimeUnixNano").as_string(), "1795309323000123000");
  EXPECT_EQ(call.at("endTimeUnixNano").as_string(), "1795309323012123000");
  EXPECT_FALSE(call.contains("status"));
  auto attributes = AttributesOf(call);
  EXPECT_EQ(attributes["gen_ai.usage.input_tokens"], "intValue:812");
  EXPECT_EQ(attributes["gen_ai.usage.output_tokens"], "intValue:64");
  EXPECT_EQ(attributes["gen_ai.request.model"], "stringValue:demo");
  EXPECT_EQ(attributes["gen_ai.operation.name"], "stringValue:chat");
  EXPECT_EQ(attributes["http.response.status_code"], "intValue:200");
  EXPECT_EQ(attributes["baton.request_id"], "stringValue:call-1");
  EXPECT_EQ(attributes["gen_ai.latency.time_to_first_token"].substr(0, 12), "doubleValue:");
  EXPECT_EQ(attributes["gen_ai.response.finish_reasons"],
            R"(arrayValue:{"values":[{"stringValue":"stop"}]})");
  for (const char* name : {"tokenize", "queue", "prefill queue", "prefill", "handoff", "decode"}) {
    const json::object& part = parsed.Named(name);
    EXPECT_EQ(part.at("parentSpanId").as_string(), "0000000000000abc") << name;
    EXPECT_EQ(part.at("traceId").as_string(), call.at("traceId").as_string()) << name;
    EXPECT_EQ(part.at("kind").as_int64(), 1) << name;
  }
  EXPECT_EQ(parsed.Named("prefill").at("startTimeUnixNano").as_string(), "1795309323003123000");
  EXPECT_EQ(parsed.Named("prefill").at("endTimeUnixNano").as_string(), "1795309323007123000");
  EXPECT_EQ(AttributesOf(parsed.Named("prefill"))["baton.worker"], "stringValue:p0");
  EXPECT_EQ(AttributesOf(parsed.Named("handoff"))["baton.kv_bytes"], "intValue:4096");
  EXPECT_EQ(AttributesOf(parsed.Named("decode"))["baton.steps"], "intValue:63");
}

TEST(ToOtlp, FurtherChoicesAreChildrenOfTheCall) {
  RequestRecord second = TestRecord();
  second.choice = 1;
  const Parsed parsed = Parse({Traced(TestRecord()), Traced(second)});
  const json::object& choice = parsed.Named("choice 1");
  EXPECT_EQ(choice.at("parentSpanId").as_string(), "0000000000000abc");
  EXPECT_NE(choice.at("spanId").as_string(), "0000000000000abc");
  EXPECT_EQ(choice.at("kind").as_int64(), 1);
}

TEST(ToOtlp, TellsFailuresAndMoves) {
  RequestRecord record = TestRecord();
  record.http_status = 503;
  record.status = absl::UnavailableError("no worker");
  record.moves.push_back({milliseconds(4), MoveReason::kStalled, 3, "d0 stalled"});
  const json::object call = Parse({Traced(record)}).Named("POST /v1/chat/completions");
  EXPECT_EQ(call.at("status").at("code").as_int64(), 2);
  EXPECT_EQ(call.at("status").at("message").as_string(), "no worker");
  const json::object& moved = call.at("events").as_array().at(0).as_object();
  EXPECT_EQ(moved.at("name").as_string(), "moved");
  EXPECT_EQ(moved.at("timeUnixNano").as_string(), "1795309323004123000");
  EXPECT_EQ(AttributesOf(moved)["baton.reason"], "stringValue:stalled");
}

TEST(ToOtlp, ARefusedCallIsASpanAlone) {
  auto call = TestCall();
  call->endpoint = "baton.v1.Baton/Generate";
  const RequestRecord record =
      RecordOfCall(call, 429, absl::ResourceExhaustedError("too much"), milliseconds(1));
  const Parsed parsed = Parse({Traced(record)});
  ASSERT_EQ(parsed.spans.size(), 1u);
  const json::object& span = parsed.Named("baton.v1.Baton/Generate");
  EXPECT_EQ(AttributesOf(span)["http.response.status_code"], "intValue:429");
  EXPECT_FALSE(span.contains("status")) << "the caller's fault is no error of the server";
}

}  // namespace
}  // namespace baton::router
