#include "router/grpc_convert.h"

#include <utility>

#include "common/status_macros.h"
#include "grammar/constraint.h"

namespace baton::router {
namespace {

std::vector<text::ChatMessage> ToMessages(const v1::ChatMessages& chat) {
  std::vector<text::ChatMessage> messages;
  messages.reserve(static_cast<size_t>(chat.messages_size()));
  for (const v1::ChatMessage& message : chat.messages()) {
    messages.push_back({message.role(), message.content()});
  }
  return messages;
}

absl::Status NoInput() {
  return absl::InvalidArgumentError("the request has no input: set text, chat or tokens");
}

// Fields that are not set keep SamplingParams' own defaults.
void ReadSampling(const v1::SamplingParams& from, GenerateInput& input) {
  SamplingParams& to = input.sampling;
  if (from.has_temperature()) to.temperature = from.temperature();
  if (from.has_top_k()) to.top_k = from.top_k();
  if (from.has_top_p()) to.top_p = from.top_p();
  if (from.has_min_p()) to.min_p = from.min_p();
  if (from.has_repetition_penalty()) to.repetition_penalty = from.repetition_penalty();
  if (from.has_presence_penalty()) to.presence_penalty = from.presence_penalty();
  if (from.has_frequency_penalty()) to.frequency_penalty = from.frequency_penalty();
  for (const v1::LogitBias& bias : from.logit_bias()) {
    to.logit_bias.emplace_back(bias.token(), bias.bias());
  }
  input.has_seed = from.has_seed();
  if (from.has_seed()) to.seed = from.seed();
  input.has_max_tokens = from.has_max_tokens();
  if (from.has_max_tokens()) to.max_tokens = from.max_tokens();
  if (from.has_min_tokens()) to.min_tokens = from.min_tokens();
  to.stop_token_ids.assign(from.stop_token_ids().begin(), from.stop_token_ids().end());
  if (from.has_ignore_eos()) to.ignore_eos = from.ignore_eos();
  if (from.has_logprobs()) to.logprobs = from.logprobs();
  if (from.has_prompt_logprobs()) to.prompt_logprobs = from.prompt_logprobs();
  to.constraint = from.constraint();
  to.watermark = from.watermark();
  to.allowed_token_ids.assign(from.allowed_token_ids().begin(), from.allowed_token_ids().end());
  input.bad_words.assign(from.bad_words().begin(), from.bad_words().end());
}

void Fill(TokenId token, const std::string& text, float logprob, v1::TokenLogprob* to) {
  to->set_token(token);
  to->set_text(text);
  to->set_logprob(logprob);
}

void FillBest(const TokenDetail& detail, v1::TopLogprobs* to) {
  for (const TokenLogprobText& top : detail.top) {
    Fill(top.token, top.text, top.logprob, to->add_best());
  }
}

}  // namespace

absl::StatusOr<GenerateInput> ToInput(const v1::GenerateRequest& request) {
  GenerateInput input;
  input.model = request.model();
  switch (request.input_case()) {
    case v1::GenerateRequest::kText:
      input.prompt = request.text();
      break;
    case v1::GenerateRequest::kChat:
      input.prompt = ToMessages(request.chat());
      break;
    case v1::GenerateRequest::kTokens:
      input.prompt =
          std::vector<TokenId>(request.tokens().ids().begin(), request.tokens().ids().end());
      break;
    case v1::GenerateRequest::INPUT_NOT_SET:
      return NoInput();
  }
  ReadSampling(request.sampling(), input);
  input.stop.assign(request.stop().begin(), request.stop().end());
  input.cache_salt = request.cache_salt();
  input.session = request.session();
  input.resume_tokens.assign(request.resume_tokens().begin(), request.resume_tokens().end());
  return input;
}

absl::Status CheckConstraint(const GenerateInput& input) {
  if (input.sampling.constraint.empty()) return absl::OkStatus();
  return grammar::CompileConstraint(input.sampling.constraint).status();
}

absl::StatusOr<GenerateInput> ToInput(const v1::TokenizeRequest& request) {
  GenerateInput input;
  input.model = request.model();
  switch (request.input_case()) {
    case v1::TokenizeRequest::kText:
      input.prompt = request.text();
      break;
    case v1::TokenizeRequest::kChat:
      input.prompt = ToMessages(request.chat());
      break;
    case v1::TokenizeRequest::INPUT_NOT_SET:
      return NoInput();
  }
  return input;
}

v1::TokenDelta FromDelta(const Delta& delta, bool with_logprobs) {
  v1::TokenDelta message;
  message.set_index(delta.index);
  message.set_text(delta.text);
  if (!delta.prompt.empty()) message.set_prompt_index(delta.prompt_index);
  for (const TokenDetail& detail : delta.prompt) {
    Fill(detail.token, detail.text, detail.logprob, message.add_prompt_logprobs());
    FillBest(detail, message.add_prompt_top_logprobs());
  }
  for (const TokenDetail& detail : delta.tokens) {
    message.add_tokens(detail.token);
    if (!with_logprobs) continue;
    Fill(detail.token, detail.text, detail.logprob, message.add_logprobs());
    FillBest(detail, message.add_top_logprobs());
  }
  return message;
}

v1::Finish FromFinish(const Finish& finish) {
  v1::Finish message;
  message.set_reason(finish.reason == FinishReason::kStop ? v1::FINISH_REASON_STOP
                                                          : v1::FINISH_REASON_LENGTH);
  message.set_prompt_tokens(finish.prompt_tokens);
  message.set_output_tokens(finish.output_tokens);
  v1::RequestStats* stats = message.mutable_stats();
  stats->set_request_id(finish.stats.request_id);
  stats->set_prefill_worker(finish.stats.prefill_worker);
  stats->set_decode_worker(finish.stats.decode_worker);
  stats->set_transport(finish.stats.transport);
  stats->set_kv_blocks_moved(finish.stats.kv_blocks_moved);
  stats->set_kv_bytes_moved(finish.stats.kv_bytes_moved);
  stats->set_cached_prompt_tokens(finish.stats.cached_prompt_tokens);
  stats->set_ttft_s(finish.stats.ttft_s);
  stats->set_mean_itl_s(finish.stats.mean_itl_s);
  stats->set_total_s(finish.stats.total_s);
  stats->set_handover_s(finish.stats.handover_s);
  stats->set_migrations(finish.stats.migrations);
  return message;
}

v1::Model FromModel(const ModelInfo& model) {
  v1::Model message;
  message.set_name(model.name);
  message.set_context_tokens(model.context_tokens);
  message.set_vocab_size(model.vocab_size);
  return message;
}

v1::Worker FromWorker(const WorkerView& worker) {
  v1::Worker message;
  message.set_name(worker.name);
  message.set_role(worker.role);
  message.set_address(worker.address);
  message.set_state(worker.state);
  message.set_running(worker.running);
  message.set_waiting(worker.waiting);
  message.set_blocks_free(worker.blocks_free);
  message.set_blocks_held(worker.blocks_held);
  message.set_blocks_cached(worker.blocks_cached);
  message.set_blocks_total(worker.blocks_total);
  message.set_transfers(worker.transfers);
  for (const worker_link::KvPath& path : worker.paths) {
    v1::KvPath* const added = message.add_paths();
    added->set_source(path.source);
    added->set_transport(path.transport);
    added->set_bytes_per_s(path.bytes_per_s);
    added->set_expected_bytes_per_s(path.expected_bytes_per_s);
    added->set_in_use(path.in_use);
  }
  return message;
}

v1::Discovery FromDiscovery(const DiscoveryView& source) {
  v1::Discovery message;
  message.set_source(source.source);
  message.set_where(source.where);
  message.set_current(source.current);
  message.set_trouble(source.trouble);
  message.set_failures(source.failures);
  message.set_workers(static_cast<int32_t>(source.workers));
  return message;
}

}  // namespace baton::router
