#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "common/status_macros.h"
#include "worker_link/convert.h"

namespace baton::worker_link {
namespace {

constexpr double kMaxSeconds = 1e9;  // far above any request, far below Duration's end

absl::StatusOr<Duration> SecondsFromWire(const char* field, double seconds) {
  if (!(seconds >= 0 && seconds <= kMaxSeconds)) {
    return absl::InvalidArgumentError(
        fmt::format("{} is {} s, but must be in [0, {}]", field, seconds, kMaxSeconds));
  }
  return FromSeconds(seconds);
}

void TimesToWire(const PrefillTimes& times, v1::WirePrefillTimes* wire) {
  wire->set_cached_prompt_tokens(times.cached_prompt_tokens);
  wire->set_chunks(times.chunks);
  wire->set_queue_s(Seconds(times.queue));
  wire->set_fetch_s(Seconds(times.fetch));
  wire->set_first_chunk_s(Seconds(times.first_chunk));
  wire->set_compute_s(Seconds(times.compute));
}

absl::StatusOr<PrefillTimes> TimesFromWire(const v1::WirePrefillTimes& wire) {
  PrefillTimes times{.cached_prompt_tokens = wire.cached_prompt_tokens(), .chunks = wire.chunks()};
  BATON_RETURN_IF_ERROR(CheckCount("cached_prompt_tokens", times.cached_prompt_tokens));
  BATON_RETURN_IF_ERROR(CheckCount("chunks", times.chunks));
  BATON_ASSIGN_OR_RETURN(times.queue, SecondsFromWire("queue_s", wire.queue_s()));
  BATON_ASSIGN_OR_RETURN(times.fetch, SecondsFromWire("fetch_s", wire.fetch_s()));
  BATON_ASSIGN_OR_RETURN(times.first_chunk, SecondsFromWire("first_chunk_s", wire.first_chunk_s()));
  BATON_ASSIGN_OR_RETURN(times.compute, SecondsFromWire("compute_s", wire.compute_s()));
  return times;
}

void TopToWire(const std::vector<TokenLogprob>& top, v1::WireTop* wire) {
  for (const TokenLogprob& best : top) {
    wire->add_tokens(best.token);
    wire->add_logprobs(best.logprob);
  }
}

absl::Status CheckTop(const v1::WireTop& top) {
  if (top.tokens_size() == top.logprobs_size() && top.tokens_size() <= kMaxTopLogprobs) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      fmt::format("{} best tokens with {} logprobs; at most {} are taken", top.tokens_size(),
                  top.logprobs_size(), kMaxTopLogprobs));
}

std::vector<TokenLogprob> TopFromWire(const v1::WireTop& wire) {
  std::vector<TokenLogprob> top;
  for (int i = 0; i < wire.tokens_size(); ++i) {
    top.push_back({.token = wire.tokens(i), .logprob = wire.logprobs(i)});
  }
  return top;
}

void TokensToWire(const TokensEvent& event, v1::WireTokens* wire) {
  ToWire(event.attempt, wire->mutable_attempt());
  if (event.prefill) TimesToWire(*event.prefill, wire->mutable_prefill());
  if (event.tokens.empty()) return;
  wire->set_first_position(event.tokens.front().position);
  bool logprobs = false;
  bool tops = false;
  for (size_t i = 0; i < event.tokens.size(); ++i) {
    const OutputToken& token = event.tokens[i];
    BATON_CHECK(token.position == event.tokens.front().position + static_cast<int32_t>(i),
                "the tokens of one event are consecutive");
    wire->add_tokens(token.token);
    logprobs |= token.logprob != 0;
    tops |= !token.top.empty();
  }
  for (const OutputToken& token : event.tokens) {
    if (logprobs || tops) wire->add_logprobs(token.logprob);
    if (tops) TopToWire(token.top, wire->add_top());
  }
}

absl::Status CheckTokens(const v1::WireTokens& wire) {
  const int count = wire.tokens_size();
  if (wire.first_position() < 0 || wire.first_position() > INT32_MAX - count) {
    return absl::InvalidArgumentError(
        fmt::format("{} tokens from position {} on", count, wire.first_position()));
  }
  if ((wire.logprobs_size() != 0 && wire.logprobs_size() != count) ||
      (wire.top_size() != 0 && wire.top_size() != count)) {
    return absl::InvalidArgumentError(
        fmt::format("{} tokens with {} logprobs and {} lists of best tokens", count,
                    wire.logprobs_size(), wire.top_size()));
  }
  for (const v1::WireTop& top : wire.top()) BATON_RETURN_IF_ERROR(CheckTop(top));
  for (const TokenId token : wire.tokens()) BATON_RETURN_IF_ERROR(CheckCount("token", token));
  return absl::OkStatus();
}

absl::StatusOr<Event> TokensFromWire(const v1::WireTokens& wire) {
  BATON_RETURN_IF_ERROR(CheckTokens(wire));
  TokensEvent event{.attempt = FromWire(wire.attempt()), .tokens = {}, .prefill = {}};
  if (wire.has_prefill()) {
    BATON_ASSIGN_OR_RETURN(event.prefill, TimesFromWire(wire.prefill()));
  }
  event.tokens.resize(static_cast<size_t>(wire.tokens_size()));
  for (int i = 0; i < wire.tokens_size(); ++i) {
    OutputToken& token = event.tokens[static_cast<size_t>(i)];
    token.token = wire.tokens(i);
    token.position = wire.first_position() + i;
    if (wire.logprobs_size() > 0) token.logprob = wire.logprobs(i);
    if (wire.top_size() > 0) token.top = TopFromWire(wire.top(i));
  }
  return event;
}

void PromptScoresToWire(const PromptScoresEvent& event, v1::WirePromptScores* wire) {
  ToWire(event.attempt, wire->mutable_attempt());
  BATON_CHECK(!event.scores.empty(), "there is something to say");
  wire->set_first_position(event.scores.front().position);
  for (const PromptScore& score : event.scores) {
    BATON_CHECK(score.position == event.scores.front().position + wire->tokens_size(),
                "the scores of one event are of consecutive positions");
    wire->add_tokens(score.token);
    wire->add_logprobs(score.logprob);
    wire->add_ranks(score.rank);
    TopToWire(score.top, wire->add_top());
  }
}

absl::StatusOr<Event> PromptScoresFromWire(const v1::WirePromptScores& wire) {
  const int count = wire.tokens_size();
  if (count < 1 || wire.first_position() < 1 || wire.first_position() > INT32_MAX - count ||
      wire.logprobs_size() != count || wire.ranks_size() != count || wire.top_size() != count) {
    return absl::InvalidArgumentError(fmt::format(
        "{} prompt tokens from position {} on with {} logprobs, {} ranks and {} lists of best "
        "tokens",
        count, wire.first_position(), wire.logprobs_size(), wire.ranks_size(), wire.top_size()));
  }
  PromptScoresEvent event{.attempt = FromWire(wire.attempt()), .scores = {}};
  event.scores.resize(static_cast<size_t>(count));
  for (int i = 0; i < count; ++i) {
    PromptScore& score = event.scores[static_cast<size_t>(i)];
    BATON_RETURN_IF_ERROR(CheckCount("token", wire.tokens(i)));
    BATON_RETURN_IF_ERROR(CheckTop(wire.top(i)));
    score.position = wire.first_position() + i;
    score.token = wire.tokens(i);
    score.logprob = wire.logprobs(i);
    score.rank = wire.ranks(i);
    score.top = TopFromWire(wire.top(i));
  }
  return event;
}

// baton.proto's FinishReason.
constexpr int kWireStop = 1;
constexpr int kWireLength = 2;

void FinishedToWire(const FinishedEvent& event, v1::WireFinished* wire) {
  ToWire(event.attempt, wire->mutable_attempt());
  wire->set_reason(event.reason == FinishReason::kStop ? kWireStop : kWireLength);
  wire->set_output_tokens(event.output_tokens);
  wire->set_cached_prompt_tokens(event.cached_prompt_tokens);
  wire->set_transport(event.transport);
  wire->set_kv_blocks_moved(event.kv_blocks_moved);
  wire->set_kv_bytes_moved(event.kv_bytes_moved);
  wire->set_handoff_s(Seconds(event.handoff));
  wire->set_handoff_exposed_s(Seconds(event.handoff_exposed));
  wire->set_handoff_moving_s(Seconds(event.handoff_moving));
  wire->set_handover_s(Seconds(event.handover));
  wire->set_queue_s(Seconds(event.queue));
  wire->set_steps(event.steps);
  wire->set_preemptions(event.preemptions);
}

absl::StatusOr<Event> FinishedFromWire(const v1::WireFinished& wire) {
  if (wire.reason() != kWireStop && wire.reason() != kWireLength) {
    return absl::InvalidArgumentError(fmt::format("finish reason {} is unknown", wire.reason()));
  }
  BATON_RETURN_IF_ERROR(CheckCount("output_tokens", wire.output_tokens()));
  BATON_RETURN_IF_ERROR(CheckCount("cached_prompt_tokens", wire.cached_prompt_tokens()));
  BATON_RETURN_IF_ERROR(CheckCount("kv_blocks_moved", wire.kv_blocks_moved()));
  BATON_RETURN_IF_ERROR(CheckCount("kv_bytes_moved", wire.kv_bytes_moved()));
  BATON_RETURN_IF_ERROR(CheckCount("steps", wire.steps()));
  BATON_RETURN_IF_ERROR(CheckCount("preemptions", wire.preemptions()));
  BATON_RETURN_IF_ERROR(CheckLength("transport", wire.transport().size(), kMaxNameBytes, "bytes"));
  FinishedEvent event;
  event.attempt = FromWire(wire.attempt());
  event.reason = wire.reason() == kWireStop ? FinishReason::kStop : FinishReason::kLength;
  event.output_tokens = wire.output_tokens();
  event.cached_prompt_tokens = wire.cached_prompt_tokens();
  event.transport = wire.transport();
  event.kv_blocks_moved = wire.kv_blocks_moved();
  event.kv_bytes_moved = wire.kv_bytes_moved();
  BATON_ASSIGN_OR_RETURN(event.handoff, SecondsFromWire("handoff_s", wire.handoff_s()));
  BATON_ASSIGN_OR_RETURN(event.handoff_exposed,
                         SecondsFromWire("handoff_exposed_s", wire.handoff_exposed_s()));
  BATON_ASSIGN_OR_RETURN(event.handoff_moving,
                         SecondsFromWire("handoff_moving_s", wire.handoff_moving_s()));
  BATON_ASSIGN_OR_RETURN(event.handover, SecondsFromWire("handover_s", wire.handover_s()));
  BATON_ASSIGN_OR_RETURN(event.queue, SecondsFromWire("queue_s", wire.queue_s()));
  event.steps = wire.steps();
  event.preemptions = wire.preemptions();
  return event;
}

void FailedToWire(const FailedEvent& event, v1::WireFailed* wire) {
  BATON_CHECK(!event.status.ok(), "a failure has an error");
  ToWire(event.attempt, wire->mutable_attempt());
  wire->set_code(static_cast<int>(event.status.code()));
  const auto text = event.status.message();
  // The wire carries UTF-8 alone; a name from elsewhere inside an error text may not be.
  std::string clean(text.data(), std::min(text.size(), kMaxErrorBytes));
  std::replace_if(
      clean.begin(), clean.end(), [](char c) { return static_cast<unsigned char>(c) >= 0x80; },
      '?');
  wire->set_text(std::move(clean));
}

absl::StatusOr<Event> FailedFromWire(const v1::WireFailed& wire) {
  if (wire.code() < static_cast<int>(absl::StatusCode::kCancelled) ||
      wire.code() > static_cast<int>(absl::StatusCode::kUnauthenticated)) {
    return absl::InvalidArgumentError(fmt::format("error code {} is unknown", wire.code()));
  }
  BATON_RETURN_IF_ERROR(CheckLength("error text", wire.text().size(), kMaxErrorBytes, "bytes"));
  return FailedEvent{
      .attempt = FromWire(wire.attempt()),
      .status = absl::Status(static_cast<absl::StatusCode>(wire.code()), wire.text())};
}

template <typename WireList, typename Convert>
absl::Status AppendAll(const WireList& list, Convert convert, std::vector<Event>* events) {
  for (const auto& wire : list) {
    BATON_ASSIGN_OR_RETURN(Event event, convert(wire));
    events->push_back(std::move(event));
  }
  return absl::OkStatus();
}

}  // namespace

void ToWire(const WorkerInfo& info, v1::WorkerHello* wire) {
  wire->set_name(info.name);
  wire->set_role(std::string(RoleName(info.role)));
  wire->set_model(info.model);
  wire->set_fingerprint(info.fingerprint);
  wire->set_kv_layout(info.kv_layout);
  wire->set_vocab_size(info.vocab_size);
  wire->set_context_tokens(info.context_tokens);
  wire->set_block_tokens(info.block_tokens);
  wire->set_handoff_address(info.handoff_address);
  wire->set_incarnation(info.incarnation);
  wire->set_protocol(kProtocol);
  wire->set_kv_bytes_per_token(info.kv_bytes_per_token);
  wire->set_max_sequences(info.max_sequences);
  wire->set_cache_chain(info.cache_chain);
}

absl::StatusOr<WorkerInfo> FromWire(const v1::WorkerHello& wire) {
  if (wire.protocol() != kProtocol) {
    return absl::FailedPreconditionError(fmt::format(
        "the worker speaks protocol {}, this router speaks {}", wire.protocol(), kProtocol));
  }
  BATON_RETURN_IF_ERROR(CheckLength("name", wire.name().size(), kMaxNameBytes, "bytes"));
  BATON_RETURN_IF_ERROR(CheckLength("model", wire.model().size(), kMaxNameBytes, "bytes"));
  BATON_RETURN_IF_ERROR(CheckLength("fingerprint", wire.fingerprint().size(), 1024, "bytes"));
  BATON_RETURN_IF_ERROR(CheckLength("kv_layout", wire.kv_layout().size(), 1024, "bytes"));
  BATON_RETURN_IF_ERROR(CheckLength("cache_chain", wire.cache_chain().size(), 2048, "bytes"));
  BATON_RETURN_IF_ERROR(
      CheckLength("handoff_address", wire.handoff_address().size(), kMaxAddressBytes, "bytes"));
  BATON_RETURN_IF_ERROR(CheckCount("kv_bytes_per_token", wire.kv_bytes_per_token()));
  BATON_RETURN_IF_ERROR(CheckCount("max_sequences", wire.max_sequences()));
  if (wire.vocab_size() < 1 || wire.context_tokens() < 1 || wire.block_tokens() < 1) {
    return absl::InvalidArgumentError(
        fmt::format("vocab_size {}, context_tokens {} and block_tokens {} must be positive",
                    wire.vocab_size(), wire.context_tokens(), wire.block_tokens()));
  }
  WorkerInfo info;
  BATON_ASSIGN_OR_RETURN(info.role, RoleFromName(wire.role()));
  info.name = wire.name();
  info.model = wire.model();
  info.fingerprint = wire.fingerprint();
  info.kv_layout = wire.kv_layout();
  info.vocab_size = wire.vocab_size();
  info.context_tokens = wire.context_tokens();
  info.block_tokens = wire.block_tokens();
  info.handoff_address = wire.handoff_address();
  info.incarnation = wire.incarnation();
  info.kv_bytes_per_token = wire.kv_bytes_per_token();
  info.max_sequences = wire.max_sequences();
  info.cache_chain = wire.cache_chain();
  return info;
}

void AppendEvent(const Event& event, v1::WireEvents* wire) {
  if (const auto* tokens = std::get_if<TokensEvent>(&event)) {
    TokensToWire(*tokens, wire->add_tokens());
  } else if (const auto* scores = std::get_if<PromptScoresEvent>(&event)) {
    PromptScoresToWire(*scores, wire->add_prompt_scores());
  } else if (const auto* prefilled = std::get_if<PrefilledEvent>(&event)) {
    ToWire(prefilled->attempt, wire->add_prefilled()->mutable_attempt());
  } else if (const auto* finished = std::get_if<FinishedEvent>(&event)) {
    FinishedToWire(*finished, wire->add_finished());
  } else {
    FailedToWire(std::get<FailedEvent>(event), wire->add_failed());
  }
}

absl::StatusOr<std::vector<Event>> FromWire(const v1::WireEvents& wire) {
  std::vector<Event> events;
  events.reserve(static_cast<size_t>(wire.prompt_scores_size() + wire.tokens_size() +
                                     wire.prefilled_size() + wire.finished_size() +
                                     wire.failed_size()));
  BATON_RETURN_IF_ERROR(AppendAll(wire.prompt_scores(), PromptScoresFromWire, &events));
  BATON_RETURN_IF_ERROR(AppendAll(wire.tokens(), TokensFromWire, &events));
  for (const v1::WirePrefilled& prefilled : wire.prefilled()) {
    events.emplace_back(PrefilledEvent{FromWire(prefilled.attempt())});
  }
  BATON_RETURN_IF_ERROR(AppendAll(wire.finished(), FinishedFromWire, &events));
  BATON_RETURN_IF_ERROR(AppendAll(wire.failed(), FailedFromWire, &events));
  return events;
}

}  // namespace baton::worker_link
