#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "common/status_macros.h"
#include "worker_link/convert.h"

namespace baton::worker_link {
namespace {

using std::chrono::milliseconds;

constexpr int64_t kMaxTimeoutMs = int64_t{7} * 24 * 3600 * 1000;

int64_t TimeoutMs(Duration timeout) {
  const int64_t ms = std::chrono::ceil<milliseconds>(timeout).count();
  return std::clamp<int64_t>(ms, 0, kMaxTimeoutMs);
}

absl::StatusOr<Duration> TimeoutFromWire(int64_t timeout_ms) {
  if (timeout_ms < 0 || timeout_ms > kMaxTimeoutMs) {
    return absl::InvalidArgumentError(
        fmt::format("timeout_ms is {}, but must be in [0, {}]", timeout_ms, kMaxTimeoutMs));
  }
  return milliseconds(timeout_ms);
}

void SamplingToWire(const SamplingParams& params, v1::WireSampling* wire) {
  wire->set_temperature(params.temperature);
  wire->set_top_k(params.top_k);
  wire->set_top_p(params.top_p);
  wire->set_min_p(params.min_p);
  wire->set_repetition_penalty(params.repetition_penalty);
  wire->set_presence_penalty(params.presence_penalty);
  wire->set_frequency_penalty(params.frequency_penalty);
  for (const auto& [token, bias] : params.logit_bias) {
    wire->add_bias_tokens(token);
    wire->add_bias_values(bias);
  }
  wire->set_seed(params.seed);
  wire->set_max_tokens(params.max_tokens);
  wire->set_min_tokens(params.min_tokens);
  wire->mutable_stop_token_ids()->Add(params.stop_token_ids.begin(), params.stop_token_ids.end());
  wire->set_ignore_eos(params.ignore_eos);
  wire->set_logprobs(params.logprobs);
  wire->set_prompt_logprobs(params.prompt_logprobs + 1);
  wire->set_watermark(params.watermark);
  wire->set_constraint(params.constraint);
  wire->mutable_allowed_token_ids()->Add(params.allowed_token_ids.begin(),
                                         params.allowed_token_ids.end());
  for (const std::vector<TokenId>& word : params.bad_words) {
    wire->mutable_bad_word_tokens()->Add(word.begin(), word.end());
    wire->add_bad_word_lengths(static_cast<int32_t>(word.size()));
  }
}

absl::StatusOr<std::vector<std::vector<TokenId>>> BadWordsFromWire(const v1::WireSampling& wire) {
  std::vector<std::vector<TokenId>> words;
  auto begin = wire.bad_word_tokens().begin();
  for (const int32_t length : wire.bad_word_lengths()) {
    if (length < 1 || length > wire.bad_word_tokens().end() - begin) {
      return absl::InvalidArgumentError(
          fmt::format("bad_words has a word of {} tokens, but {} are left", length,
                      wire.bad_word_tokens().end() - begin));
    }
    words.emplace_back(begin, begin + length);
    begin += length;
  }
  if (begin == wire.bad_word_tokens().end()) return words;
  return absl::InvalidArgumentError(
      fmt::format("bad_words has {} tokens of no word", wire.bad_word_tokens().end() - begin));
}

absl::StatusOr<SamplingParams> SamplingFromWire(const v1::WireSampling& wire) {
  if (wire.bias_tokens_size() != wire.bias_values_size()) {
    return absl::InvalidArgumentError(fmt::format("logit_bias has {} tokens but {} values",
                                                  wire.bias_tokens_size(),
                                                  wire.bias_values_size()));
  }
  SamplingParams params;
  params.temperature = wire.temperature();
  params.top_k = wire.top_k();
  params.top_p = wire.top_p();
  params.min_p = wire.min_p();
  params.repetition_penalty = wire.repetition_penalty();
  params.presence_penalty = wire.presence_penalty();
  params.frequency_penalty = wire.frequency_penalty();
  params.logit_bias.reserve(static_cast<size_t>(wire.bias_tokens_size()));
  for (int i = 0; i < wire.bias_tokens_size(); ++i) {
    params.logit_bias.emplace_back(wire.bias_tokens(i), wire.bias_values(i));
  }
  params.seed = wire.seed();
  params.max_tokens = wire.max_tokens();
  params.min_tokens = wire.min_tokens();
  params.stop_token_ids.assign(wire.stop_token_ids().begin(), wire.stop_token_ids().end());
  params.ignore_eos = wire.ignore_eos();
  params.logprobs = wire.logprobs();
  params.prompt_logprobs = std::clamp(wire.prompt_logprobs(), 0, kMaxTopLogprobs + 1) - 1;
  params.watermark = wire.watermark();
  params.constraint = wire.constraint();
  params.allowed_token_ids.assign(wire.allowed_token_ids().begin(), wire.allowed_token_ids().end());
  BATON_ASSIGN_OR_RETURN(params.bad_words, BadWordsFromWire(wire));
  BATON_RETURN_IF_ERROR(CheckSamplingParams(params, INT32_MAX));
  return params;
}

// The fields that all requests share.
template <typename PlainCommand, typename WireCommand>
void RequestToWire(const PlainCommand& command, WireCommand* wire) {
  ToWire(command.attempt, wire->mutable_attempt());
  wire->mutable_prompt()->Add(command.prompt.begin(), command.prompt.end());
  wire->set_cache_salt(command.cache_salt);
  wire->set_timeout_ms(TimeoutMs(command.timeout));
}

template <typename PlainCommand, typename WireCommand>
absl::Status RequestFromWire(const WireCommand& wire, PlainCommand* command) {
  if (wire.prompt_size() == 0) return absl::InvalidArgumentError("prompt is empty");
  BATON_RETURN_IF_ERROR(
      CheckLength("prompt", static_cast<size_t>(wire.prompt_size()), kMaxPromptTokens, "tokens"));
  BATON_RETURN_IF_ERROR(
      CheckLength("cache_salt", wire.cache_salt().size(), kMaxSaltBytes, "bytes"));
  command->attempt = FromWire(wire.attempt());
  command->prompt.assign(wire.prompt().begin(), wire.prompt().end());
  command->cache_salt = wire.cache_salt();
  BATON_ASSIGN_OR_RETURN(command->timeout, TimeoutFromWire(wire.timeout_ms()));
  return absl::OkStatus();
}

// A W3C traceparent, or nothing: it goes into log lines as it is.
absl::StatusOr<std::string> TraceparentFromWire(const std::string& text) {
  constexpr std::string_view kKnown = "0123456789abcdef-";
  BATON_RETURN_IF_ERROR(CheckLength("traceparent", text.size(), kTraceparentBytes, "bytes"));
  if (text.find_first_not_of(kKnown) == std::string::npos) return text;
  return absl::InvalidArgumentError("traceparent has other than hexadecimal digits");
}

// A prompt has at least one token that is no output.
absl::StatusOr<int32_t> OutputTokensFromWire(int32_t output_tokens, int prompt_tokens) {
  if (output_tokens >= 0 && output_tokens < prompt_tokens) return output_tokens;
  return absl::InvalidArgumentError(
      fmt::format("output_tokens is {}, but must be in [0, {})", output_tokens, prompt_tokens));
}

// The fields that PrefillCommand and ServePrefixCommand share.
template <typename PlainCommand, typename WireCommand>
absl::Status TargetFromWire(const WireCommand& wire, PlainCommand* command) {
  BATON_RETURN_IF_ERROR(
      CheckLength("target_address", wire.target_address().size(), kMaxAddressBytes, "bytes"));
  BATON_RETURN_IF_ERROR(
      CheckLength("target_name", wire.target_name().size(), kMaxNameBytes, "bytes"));
  command->target_address = wire.target_address();
  command->target_name = wire.target_name();
  return absl::OkStatus();
}

absl::StatusOr<Command> PrefillFromWire(const v1::WirePrefill& wire) {
  PrefillCommand command;
  BATON_RETURN_IF_ERROR(RequestFromWire(wire, &command));
  BATON_ASSIGN_OR_RETURN(command.sampling, SamplingFromWire(wire.sampling()));
  BATON_RETURN_IF_ERROR(TargetFromWire(wire, &command));
  if (wire.prefix_tokens() < 0 || wire.prefix_tokens() >= wire.prompt_size()) {
    return absl::InvalidArgumentError(fmt::format("prefix_tokens is {}, but must be in [0, {})",
                                                  wire.prefix_tokens(), wire.prompt_size()));
  }
  command.prefix_tokens = wire.prefix_tokens();
  BATON_ASSIGN_OR_RETURN(command.output_tokens,
                         OutputTokensFromWire(wire.output_tokens(), wire.prompt_size()));
  BATON_ASSIGN_OR_RETURN(command.traceparent, TraceparentFromWire(wire.traceparent()));
  return command;
}

absl::StatusOr<Command> ServePrefixFromWire(const v1::WireServePrefix& wire) {
  ServePrefixCommand command;
  BATON_RETURN_IF_ERROR(RequestFromWire(wire, &command));
  BATON_RETURN_IF_ERROR(TargetFromWire(wire, &command));
  return command;
}

absl::StatusOr<Command> DecodeFromWire(const v1::WireDecode& wire) {
  DecodeCommand command;
  BATON_RETURN_IF_ERROR(RequestFromWire(wire, &command));
  BATON_ASSIGN_OR_RETURN(command.sampling, SamplingFromWire(wire.sampling()));
  command.handoff = wire.handoff();
  BATON_ASSIGN_OR_RETURN(command.output_tokens,
                         OutputTokensFromWire(wire.output_tokens(), wire.prompt_size()));
  BATON_ASSIGN_OR_RETURN(command.traceparent, TraceparentFromWire(wire.traceparent()));
  return command;
}

absl::StatusOr<Command> DutyFromWire(const v1::WireDuty& wire) {
  DutyCommand command;
  BATON_ASSIGN_OR_RETURN(command.role, RoleFromName(wire.role()));
  command.takes_work = wire.takes_work();
  BATON_ASSIGN_OR_RETURN(command.grace, TimeoutFromWire(wire.grace_ms()));
  return command;
}

}  // namespace

void ToWire(const Attempt& attempt, v1::WireAttempt* wire) {
  wire->set_request_high(attempt.request.high);
  wire->set_request_low(attempt.request.low);
  wire->set_epoch(attempt.epoch);
}

Attempt FromWire(const v1::WireAttempt& wire) {
  return {.request = {.high = wire.request_high(), .low = wire.request_low()},
          .epoch = wire.epoch()};
}

absl::Status CheckLength(const char* field, size_t size, size_t limit, const char* unit) {
  if (size <= limit) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("{} has {} {}, but at most {} are taken", field, size, unit, limit));
}

absl::Status CheckCount(const char* field, int64_t value) {
  if (value >= 0) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("{} is {}, but must not be negative", field, value));
}

absl::StatusOr<Role> RoleFromName(const std::string& name) {
  for (const Role role : {Role::kPrefill, Role::kDecode}) {
    if (name == RoleName(role)) return role;
  }
  return absl::InvalidArgumentError(
      fmt::format("role is '{}', but must be prefill or decode", name.substr(0, 64)));
}

void ToWire(const Command& command, v1::RouterMessage* wire) {
  if (const auto* prefill = std::get_if<PrefillCommand>(&command)) {
    v1::WirePrefill* out = wire->mutable_prefill();
    RequestToWire(*prefill, out);
    SamplingToWire(prefill->sampling, out->mutable_sampling());
    out->set_target_address(prefill->target_address);
    out->set_target_name(prefill->target_name);
    out->set_prefix_tokens(prefill->prefix_tokens);
    out->set_output_tokens(prefill->output_tokens);
    out->set_traceparent(prefill->traceparent);
  } else if (const auto* decode = std::get_if<DecodeCommand>(&command)) {
    v1::WireDecode* out = wire->mutable_decode();
    RequestToWire(*decode, out);
    SamplingToWire(decode->sampling, out->mutable_sampling());
    out->set_handoff(decode->handoff);
    out->set_output_tokens(decode->output_tokens);
    out->set_traceparent(decode->traceparent);
  } else if (const auto* serve = std::get_if<ServePrefixCommand>(&command)) {
    v1::WireServePrefix* out = wire->mutable_serve_prefix();
    RequestToWire(*serve, out);
    out->set_target_address(serve->target_address);
    out->set_target_name(serve->target_name);
  } else if (const auto* duty = std::get_if<DutyCommand>(&command)) {
    v1::WireDuty* out = wire->mutable_duty();
    out->set_role(std::string(RoleName(duty->role)));
    out->set_takes_work(duty->takes_work);
    out->set_grace_ms(TimeoutMs(duty->grace));
  } else if (std::holds_alternative<TellBlocksCommand>(command)) {
    wire->mutable_tell_blocks();
  } else if (const auto* cancel = std::get_if<CancelCommand>(&command)) {
    ToWire(cancel->attempt, wire->mutable_cancel());
  } else {
    ToWire(std::get<NoOfferCommand>(command).attempt, wire->mutable_no_offer());
  }
}

absl::StatusOr<Command> CommandFromWire(const v1::RouterMessage& wire) {
  switch (wire.message_case()) {
    case v1::RouterMessage::kPrefill:
      return PrefillFromWire(wire.prefill());
    case v1::RouterMessage::kDecode:
      return DecodeFromWire(wire.decode());
    case v1::RouterMessage::kCancel:
      return CancelCommand{FromWire(wire.cancel())};
    case v1::RouterMessage::kNoOffer:
      return NoOfferCommand{FromWire(wire.no_offer())};
    case v1::RouterMessage::kServePrefix:
      return ServePrefixFromWire(wire.serve_prefix());
    case v1::RouterMessage::kDuty:
      return DutyFromWire(wire.duty());
    case v1::RouterMessage::kTellBlocks:
      return TellBlocksCommand{};
    case v1::RouterMessage::kBatch:  // the stream takes batches apart
      return absl::InvalidArgumentError("a batch within a batch");
    case v1::RouterMessage::kHello:
      return absl::InvalidArgumentError("a second hello on one stream");
    case v1::RouterMessage::MESSAGE_NOT_SET:
      break;
  }
  return absl::InvalidArgumentError("a router's message without a known kind");
}

}  // namespace baton::worker_link
