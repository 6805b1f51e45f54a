#include "router/otlp_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>
#include <string_view>
#include <utility>

namespace baton::router {
namespace {

namespace json = boost::json;

// Of opentelemetry-proto.
constexpr int kInternal = 1;
constexpr int kServer = 2;
constexpr int kError = 2;

// 64-bit integers are strings in protobuf's JSON.
json::object Int(std::string_view key, int64_t value) {
  return {{"key", json::string_view(key.data(), key.size())},
          {"value", json::object{{"intValue", std::to_string(value)}}}};
}
json::object Text(std::string_view key, std::string_view value) {
  return {{"key", json::string_view(key.data(), key.size())},
          {"value", json::object{{"stringValue", json::string_view(value.data(), value.size())}}}};
}
json::object Number(std::string_view key, double value) {
  return {{"key", json::string_view(key.data(), key.size())},
          {"value", json::object{{"doubleValue", value}}}};
}

class SpanMaker {
 public:
  SpanMaker(const RequestRecord& record, const std::function<uint64_t()>& new_id,
            json::array* spans)
      : record_(record), trace_(record.call->trace), new_id_(new_id), spans_(spans) {}

  void Make() {
    const bool is_call = record_.choice == 0;
    const uint64_t id = is_call ? trace_.span : new_id_();
    const std::string& endpoint = record_.call->endpoint;
    const std::string name = !is_call                    ? fmt::format("choice {}", record_.choice)
                             : endpoint.starts_with('/') ? "POST " + endpoint
                                                         : endpoint;
    json::object& root = Add(name, id, is_call ? trace_.parent : trace_.span,
                             is_call ? kServer : kInternal, Duration{}, At(Stage::kEnded));
    root["attributes"] = Attributes();
    if (record_.http_status >= 500) {
      root["status"] =
          json::object{{"code", kError}, {"message", std::string(record_.status.message())}};
    }
    json::array events;
    for (const RequestRecord::Move& move : record_.moves) {
      events.push_back(json::object{
          {"timeUnixNano", Nano(move.at)},
          {"name", "moved"},
          {"attributes", json::array{Text("baton.reason", MoveReasonName(move.reason)),
                                     Int("gen_ai.usage.output_tokens", move.output_tokens)}}});
    }
    if (!events.empty()) root["events"] = std::move(events);
    MakeParts(id);
  }

 private:
  void MakeParts(uint64_t parent) {
    const auto part = [&](const char* name, Stage from, Stage to) -> json::object* {
      if (!record_.stages.Has(from) || !record_.stages.Has(to)) return nullptr;
      return &Add(name, new_id_(), parent, kInternal, At(from), std::max(At(from), At(to)));
    };
    if (record_.stages.Has(Stage::kTokenized)) {
      Add("tokenize", new_id_(), parent, kInternal, Duration{}, At(Stage::kTokenized));
    }
    part("queue", Stage::kTokenized, Stage::kPlaced);
    part("prefill queue", Stage::kPlaced, Stage::kPrefillStarted);
    if (auto* prefill = part("prefill", Stage::kPrefillStarted, Stage::kPrefillFinished)) {
      (*prefill)["attributes"] = json::array{Text("baton.worker", record_.prefill_worker),
                                             Int("baton.cached_tokens", record_.cached_tokens),
                                             Int("baton.chunks", record_.prefill_chunks)};
    }
    if (auto* handoff = part("handoff", Stage::kHandoffGranted, Stage::kHandoffFinished)) {
      (*handoff)["attributes"] = json::array{Text("baton.transport", record_.transport),
                                             Int("baton.kv_bytes", record_.kv_bytes)};
    }
    if (auto* decode = part("decode", Stage::kFirstToken, Stage::kLastToken)) {
      (*decode)["attributes"] = json::array{Text("baton.worker", record_.decode_worker),
                                            Int("baton.steps", record_.decode_steps),
                                            Int("baton.preemptions", record_.preemptions)};
    }
  }

  Duration At(Stage stage) const { return record_.stages.At(stage); }
  std::string Nano(Duration since_arrival) const {
    return std::to_string(record_.call->arrival_us * 1000 + since_arrival.count());
  }

  json::object& Add(std::string_view name, uint64_t id, uint64_t parent, int kind, Duration from,
                    Duration to) {
    json::object span{{"traceId", TraceIdText(trace_)},
                      {"spanId", SpanIdText(id)},
                      {"flags", 1},
                      {"name", json::string_view(name.data(), name.size())},
                      {"kind", kind},
                      {"startTimeUnixNano", Nano(from)},
                      {"endTimeUnixNano", Nano(to)}};
    if (parent != 0) span["parentSpanId"] = SpanIdText(parent);
    if (!trace_.state.empty()) span["traceState"] = trace_.state;
    spans_->push_back(std::move(span));
    return spans_->back().as_object();
  }

  json::array Attributes() const {
    json::array out{Int("http.response.status_code", record_.http_status),
                    Text("baton.request_id", record_.call->request_id)};
    if (!record_.tenant.empty()) out.push_back(Text("baton.tenant", record_.tenant));
    if (record_.id.empty()) return out;
    const bool chat = record_.call->endpoint.find("chat") != std::string::npos;
    out.push_back(Text("gen_ai.operation.name", chat ? "chat" : "text_completion"));
    out.push_back(Text("gen_ai.request.model", record_.model));
    out.push_back(Int("gen_ai.request.max_tokens", record_.max_tokens));
    out.push_back(Int("gen_ai.usage.input_tokens", record_.input_tokens));
    out.push_back(Int("gen_ai.usage.output_tokens", record_.output_tokens));
    out.push_back(Int("baton.cached_tokens", record_.cached_tokens));
    out.push_back(Int("baton.migrations", record_.migrations));
    out.push_back(Text("baton.id", record_.id));
    if (record_.stages.Has(Stage::kFirstToken)) {
      out.push_back(Number("gen_ai.latency.time_to_first_token", Seconds(At(Stage::kFirstToken))));
    }
    out.push_back(Number("gen_ai.latency.e2e", Seconds(At(Stage::kEnded))));
    if (!record_.finish_reason.empty()) {
      const json::string reason(record_.finish_reason.data(), record_.finish_reason.size());
      const json::array values{json::object{{"stringValue", reason}}};
      const json::object list{{"arrayValue", json::object{{"values", values}}}};
      out.push_back(json::object{{"key", "gen_ai.response.finish_reasons"}, {"value", list}});
    }
    return out;
  }

  const RequestRecord& record_;
  const CallTrace& trace_;
  const std::function<uint64_t()>& new_id_;
  json::array* const spans_;
};

}  // namespace

OtlpTraces ToOtlp(std::span<const RecordPtr> records, const std::string& router,
                  const std::function<uint64_t()>& new_id) {
  json::array spans;
  for (const RecordPtr& record : records) SpanMaker(*record, new_id, &spans).Make();
  OtlpTraces traces;
  traces.spans = spans.size();
  json::object scope{{"scope", json::object{{"name", "baton.router"}}}};
  scope["spans"] = std::move(spans);
  const json::object resource{{"attributes", json::array{Text("service.name", "baton"),
                                                         Text("service.instance.id", router)}}};
  const json::object resource_spans{{"resource", resource}, {"scopeSpans", json::array{scope}}};
  traces.body = json::serialize(json::object{{"resourceSpans", json::array{resource_spans}}});
  return traces;
}

}  // namespace baton::router
