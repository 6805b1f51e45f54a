#include "router/request_record.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <iterator>
#include <utility>

#include "router/json_text.h"

namespace baton::router {
namespace {

constexpr size_t kMaxIdBytes = 128;
constexpr size_t kMaxErrorBytes = 512;

constexpr std::array<std::string_view, kStages> kStageNames = {
    "tokenized",        "placed",         "prefill_started",  "handoff_offered",
    "handoff_granted",  "first_chunk",    "prefill_finished", "first_token",
    "handoff_finished", "decode_started", "last_token",       "ended"};

void AddName(std::string_view name, std::string* out) {
  out->append(out->back() == '{' ? "\"" : ",\"").append(name).append("\":");
}

void AddText(std::string_view name, std::string_view text, std::string* out) {
  AddName(name, out);
  AppendJsonString(text, out);
}

void AddInt(std::string_view name, int64_t value, std::string* out) {
  AddName(name, out);
  AppendJsonInt(value, out);
}

// Microseconds are enough, and shorter to read.
void AddSeconds(std::string_view name, double seconds, std::string* out) {
  AddName(name, out);
  fmt::format_to(std::back_inserter(*out), "{:.6f}", seconds);
}

std::string WallClock(int64_t unix_us) {
  const std::time_t seconds = unix_us / 1'000'000;
  return fmt::format("{:%Y-%m-%dT%H:%M:%S}.{:06}Z", fmt::gmtime(seconds), unix_us % 1'000'000);
}

void AddResult(const RequestRecord& record, std::string* out) {
  if (!record.state.empty()) {
    AddText("state", record.state, out);
  } else {
    AddInt("status", record.http_status, out);
    AddText("code", absl::StatusCodeToString(record.status.code()), out);
    const auto why = record.status.message().substr(0, kMaxErrorBytes);
    if (!why.empty()) AddText("error", {why.data(), why.size()}, out);
  }
  if (!record.finish_reason.empty()) AddText("finish_reason", record.finish_reason, out);
}

void AddMoves(const std::vector<RequestRecord::Move>& moves, std::string* out) {
  if (moves.empty()) return;
  out->append(R"(,"moves":[)");
  for (const RequestRecord::Move& move : moves) {
    if (out->back() != '[') out->push_back(',');
    out->push_back('{');
    AddSeconds("at_s", Seconds(move.at), out);
    AddText("reason", MoveReasonName(move.reason), out);
    AddInt("output_tokens", move.output_tokens, out);
    if (!move.why.empty()) AddText("why", move.why.substr(0, kMaxErrorBytes), out);
    out->push_back('}');
  }
  out->push_back(']');
}

void AddWork(const RequestRecord& record, std::string* out) {
  AddInt("input_tokens", record.input_tokens, out);
  AddInt("cached_tokens", record.cached_tokens, out);
  AddInt("output_tokens", record.output_tokens, out);
  AddInt("max_tokens", record.max_tokens, out);
  if (!record.prefill_worker.empty()) AddText("prefill_worker", record.prefill_worker, out);
  if (!record.decode_worker.empty()) AddText("decode_worker", record.decode_worker, out);
  if (!record.transport.empty()) {
    AddText("transport", record.transport, out);
    AddInt("kv_bytes", record.kv_bytes, out);
  }
  AddInt("migrations", record.migrations, out);
  AddMoves(record.moves, out);
  if (record.prefill_chunks > 0) AddInt("prefill_chunks", record.prefill_chunks, out);
  if (record.decode_steps > 0) AddInt("decode_steps", record.decode_steps, out);
  if (record.preemptions > 0) AddInt("preemptions", record.preemptions, out);
  if (record.stages.Has(Stage::kFirstToken)) {
    AddSeconds("ttft_s", Seconds(record.stages.At(Stage::kFirstToken)), out);
  }
  if (record.output_tokens > 1) AddSeconds("itl_s", record.itl_s, out);
}

}  // namespace

std::string_view SoundRequestId(std::string_view given) {
  const bool sound =
      !given.empty() && given.size() <= kMaxIdBytes && std::ranges::all_of(given, [](char c) {
        return std::isalnum(static_cast<unsigned char>(c)) != 0 ||
               std::string_view("-_.:/+=@~").find(c) != std::string_view::npos;
      });
  return sound ? given : std::string_view();
}

std::string_view StageName(Stage stage) { return kStageNames[static_cast<size_t>(stage)]; }

RequestRecord RecordOfCall(std::shared_ptr<const CallInfo> call, int http_status,
                           absl::Status status, Duration took) {
  RequestRecord record;
  record.call = std::move(call);
  record.http_status = http_status;
  record.status = std::move(status);
  record.stages.Set(Stage::kEnded, took);
  return record;
}

Stages StagesOf(const FlowTimes& times, TimePoint arrival, TimePoint tokenized,
                const Placements& placed, bool by_handoff) {
  Stages stages;
  const auto since = [arrival](TimePoint time) { return time - arrival; };
  stages.Set(Stage::kTokenized, since(tokenized));
  if (placed.first == TimePoint{}) return stages;
  stages.Set(Stage::kPlaced, since(placed.first));
  if (times.first_token) stages.Set(Stage::kFirstToken, *times.first_token);
  if (times.last_token) stages.Set(Stage::kLastToken, since(*times.last_token));
  if (times.prefill && times.first_token) {
    const worker_link::PrefillTimes& prefill = *times.prefill;
    // A part is not longer than the whole, whatever a worker says.
    const auto set = [&](Stage stage, Duration at) {
      stages.Set(stage, std::min(since(placed.of_first_token) + at, *times.first_token));
    };
    const Duration computing = prefill.queue + prefill.fetch;
    set(Stage::kPrefillStarted, prefill.queue);
    if (by_handoff) set(Stage::kHandoffOffered, computing);
    set(Stage::kFirstChunk, computing + prefill.first_chunk);
    set(Stage::kPrefillFinished, computing + prefill.compute);
  }
  if (!times.finished || times.finished->transport.empty()) return stages;
  const worker_link::FinishedEvent& finished = *times.finished;
  const Duration granted = since(placed.last) + finished.queue;
  const auto set = [&](Stage stage, Duration at) {
    stages.Set(stage, std::min(at, since(*times.last_token)));
  };
  if (!times.last_token) return stages;
  set(Stage::kHandoffGranted, granted);
  set(Stage::kHandoffFinished, granted + finished.handoff);
  if (finished.handover != Duration{}) {
    set(Stage::kDecodeStarted,
        granted + finished.handoff - finished.handoff_exposed + finished.handover);
  }
  return stages;
}

void AppendRecord(const RequestRecord& record, std::string* out) {
  const CallInfo& call = *record.call;
  out->append(R"({"time":")").append(WallClock(call.arrival_us)).push_back('"');
  AddInt("arrival_us", call.arrival_us, out);
  AddText("request_id", call.request_id, out);
  if (!call.client.empty()) AddText("client", call.client, out);
  if (!record.id.empty()) {
    AddText("id", record.id, out);
    AddInt("choice", record.choice, out);
  }
  AddText("endpoint", call.endpoint, out);
  if (!record.key.empty()) {
    AddText("key", record.key, out);
    AddText("tenant", record.tenant, out);
  }
  if (!record.model.empty()) AddText("model", record.model, out);
  AddResult(record, out);
  if (!record.id.empty()) AddWork(record, out);
  AddSeconds("e2e_s", Seconds(record.stages.At(Stage::kEnded)), out);
  AddName("stages", out);
  out->push_back('{');
  for (size_t i = 0; i < kStages; ++i) {
    const Stage stage = static_cast<Stage>(i);
    if (record.stages.Has(stage))
      AddSeconds(StageName(stage), Seconds(record.stages.At(stage)), out);
  }
  out->push_back('}');
  if (call.trace.on()) AddText("trace_id", TraceIdText(call.trace), out);
  out->push_back('}');
}

}  // namespace baton::router
