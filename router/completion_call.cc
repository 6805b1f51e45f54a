#include "router/completion_call.h"

#include <fmt/format.h>

#include <utility>

#include "common/status_macros.h"
#include "grammar/constraint.h"
#include "router/error_code.h"
#include "router/http_error.h"
#include "router/key_gate.h"
#include "router/telemetry.h"
#include "router/text_calls.h"

namespace baton::router {
namespace {

template <typename Piece>
void AddTo(StreamAnswer& answer, int32_t choice, const Piece& piece, std::string* out) {
  answer.Add(choice, piece, out);
}
template <typename Piece>
void AddTo(WholeAnswer& answer, int32_t choice, const Piece& piece, std::string*) {
  answer.Add(choice, piece);
}
template <typename Answer, typename Piece>
void AddTo(Answer& answer, int32_t, const Piece& piece, std::string* out) {
  answer.Add(piece, out);
}

}  // namespace

CompletionCall::CompletionCall(Dispatcher* dispatcher, const RequestLimits& limits,
                               Endpoint endpoint, std::shared_ptr<const CallInfo> call,
                               Telemetry* telemetry, std::shared_ptr<Visit> visit,
                               std::function<void(bool)> wake)
    : dispatcher_(dispatcher),
      limits_(limits),
      endpoint_(endpoint),
      call_(std::move(call)),
      telemetry_(telemetry),
      visit_(std::move(visit)),
      wake_(std::move(wake)) {}

void CompletionCall::Start(std::string_view body) {
  const absl::Status status = Submit(body);
  if (!status.ok() || !ready_body_.empty()) Note(status);
  const std::lock_guard lock(mutex_);
  if (ended_) return;
  if (!status.ok()) {
    // Whatever other choices have said already, the call's answer is this error.
    mailbox_.clear();
    mailbox_.push_back({0, status});
  }
  submitted_ = true;
  if (!mailbox_.empty()) WakeLocked();
}

void CompletionCall::Note(const absl::Status& status) const {
  if (telemetry_ == nullptr) return;
  RequestRecord record = RecordOfCall(call_, status.ok() ? 200 : ToHttpError(status).status, status,
                                      SystemClock().Now() - call_->received);
  if (visit_ != nullptr) {
    record.key = visit_->key().name;
    record.tenant = visit_->key().tenant;
  }
  telemetry_->Ended(std::move(record));
}

absl::Status CompletionCall::Submit(std::string_view body) {
  switch (endpoint_) {
    case Endpoint::kTokenize: {
      BATON_ASSIGN_OR_RETURN(ready_body_,
                             AnswerTokenize(*dispatcher_, body, limits_, &error_param_));
      return PutReady();
    }
    case Endpoint::kDetokenize: {
      BATON_ASSIGN_OR_RETURN(ready_body_, AnswerDetokenize(*dispatcher_, body, &error_param_));
      return PutReady();
    }
    case Endpoint::kEmbeddings:
      return absl::InvalidArgumentError("the model generates text; it gives no embeddings");
    case Endpoint::kResponses:
      return SubmitResponses(body);
    case Endpoint::kGenerate:
    case Endpoint::kGenerateStream: {
      const bool stream = endpoint_ == Endpoint::kGenerateStream;
      TgiOptions options;
      BATON_ASSIGN_OR_RETURN(OpenAiRequest request,
                             ParseTgiRequest(body, stream, limits_, &options, &error_param_));
      streams_ = stream;
      answer_.emplace(TgiAnswer(std::move(options), stream));
      return SubmitChoices(std::move(request));
    }
    default:
      return SubmitOpenAi(body);
  }
}

absl::Status CompletionCall::PutReady() {
  Put({0, Finish{}});
  return absl::OkStatus();
}

absl::Status CompletionCall::SubmitResponses(std::string_view body) {
  ResponsesOptions options;
  BATON_ASSIGN_OR_RETURN(OpenAiRequest request,
                         ParseResponsesRequest(body, limits_, &options, &error_param_));
  options.id = call_->request_id;
  options.model = ModelName(request.prompts.front());
  options.created_s = UnixSeconds();
  streams_ = request.stream;
  answer_.emplace(ResponsesAnswer(std::move(options), request.stream));
  return SubmitChoices(std::move(request));
}

absl::Status CompletionCall::SubmitOpenAi(std::string_view body) {
  BATON_ASSIGN_OR_RETURN(OpenAiRequest request,
                         ParseOpenAiRequest(endpoint_, body, limits_, &error_param_));
  BATON_RETURN_IF_ERROR(ConstrainToTools(&request));
  BATON_ASSIGN_OR_RETURN(AnswerShape shape, MakeShape(request));
  streams_ = request.stream;
  if (request.stream) {
    answer_.emplace(StreamAnswer(std::move(shape)));
  } else {
    answer_.emplace(WholeAnswer(std::move(shape)));
  }
  return SubmitChoices(std::move(request));
}

absl::Status CompletionCall::SubmitChoices(OpenAiRequest request) {
  const int32_t choices = request.choices();
  const bool tells_tokens = is_tgi() || request.return_token_ids;
  for (int32_t choice = 0; choice < choices; ++choice) {
    GenerateInput input = choices == 1 ? std::move(request).OnlyChoice() : request.Choice(choice);
    input.in_pieces = streams_;
    input.tells_tokens = tells_tokens || input.sampling.logprobs >= 0;
    input.visit = visit_;
    input.call = call_;
    input.choice = choice;
    absl::StatusOr<Dispatcher::Handle> handle =
        dispatcher_->Submit(std::move(input), SinkOf(choice));
    if (handle.status().code() == absl::StatusCode::kNotFound) error_param_ = "model";
    if (ErrorCode(handle.status()) == kContextLengthExceeded) {
      error_param_ = endpoint_ == Endpoint::kChat ? "messages" : "prompt";
    }
    BATON_RETURN_IF_ERROR(handle.status());
    bool gone = false;
    {
      const std::lock_guard lock(mutex_);
      gone = ended_;
      if (!gone) handles_.push_back(*handle);
    }
    if (gone) {  // the client left between two choices, or before the first
      dispatcher_->Cancel(*handle);
      return absl::CancelledError("the client is gone");
    }
  }
  return absl::OkStatus();
}

// A call is required, or may come instead of what the answer is else constrained to.
absl::Status CompletionCall::ConstrainToTools(OpenAiRequest* request) {
  std::string& constraint = request->prompts.front().sampling.constraint;
  const bool required = request->tools.choice == ToolUse::Choice::kRequired;
  if (!required && (constraint.empty() || request->tools.choice == ToolUse::Choice::kNone)) {
    return absl::OkStatus();
  }
  error_param_ = "tools";
  BATON_ASSIGN_OR_RETURN(const std::string calls, ToolConstraint(ToolFormatHere(), request->tools));
  constraint = required ? calls : fmt::format(R"({{"any_of":[{},{}]}})", calls, constraint);
  const auto compiled = grammar::CompileConstraint(constraint);
  BATON_RETURN_IF_ERROR(compiled.status());
  error_param_.clear();
  return absl::OkStatus();
}

ToolFormat CompletionCall::ToolFormatHere() const {
  const std::vector<ModelInfo> models = dispatcher_->Models();
  return models.empty() ? ToolFormat::kHermes : models.front().tool_format;
}

std::string CompletionCall::ModelName(const GenerateInput& input) const {
  if (!input.model.empty()) return input.model;
  const std::vector<ModelInfo> models = dispatcher_->Models();
  return models.empty() ? "" : models.front().name;
}

absl::StatusOr<AnswerShape> CompletionCall::MakeShape(const OpenAiRequest& request) const {
  AnswerShape shape;
  shape.endpoint = endpoint_;
  shape.id = (endpoint_ == Endpoint::kChat ? "chatcmpl-" : "cmpl-") + call_->request_id;
  shape.model = ModelName(request.prompts.front());
  shape.created_s = UnixSeconds();
  shape.tools = request.prompts.front().tools;
  if (!shape.tools.empty()) shape.tool_format = ToolFormatHere();
  shape.choices = request.choices();
  shape.choices_per_prompt = request.choices_per_prompt;
  shape.shown_per_prompt = request.shown_per_prompt;
  shape.logprobs = request.prompts.front().sampling.logprobs >= 0;
  shape.echo_logprobs = request.echo && shape.logprobs;
  shape.prompt_logprobs = request.prompt_logprobs;
  shape.include_usage = request.include_usage;
  shape.return_stats = request.return_stats;
  shape.return_token_ids = request.return_token_ids;
  for (const GenerateInput& prompt : request.prompts) {
    if (request.echo) {
      if (const auto* text = std::get_if<std::string>(&prompt.prompt)) {
        shape.echoes.push_back(*text);
      } else {
        BATON_ASSIGN_OR_RETURN(
            shape.echoes.emplace_back(),
            dispatcher_->Detokenize(prompt.model, std::get<std::vector<TokenId>>(prompt.prompt)));
      }
    }
    if (!shape.return_token_ids) continue;
    BATON_ASSIGN_OR_RETURN(std::vector<TokenId> tokens, dispatcher_->Tokenize(prompt));
    shape.prompt_token_ids.push_back(std::move(tokens));
  }
  return shape;
}

ResponseSink CompletionCall::SinkOf(int32_t choice) {
  ResponseSink sink;
  sink.on_delta = [self = shared_from_this(), choice](Delta delta) {
    self->Put({choice, std::move(delta)});
  };
  sink.on_finish = [self = shared_from_this(), choice](Finish finish) {
    self->Put({choice, std::move(finish)});
  };
  sink.on_error = [self = shared_from_this(), choice](absl::Status status) {
    self->Put({choice, std::move(status)});
  };
  return sink;
}

void CompletionCall::Put(Event event) {
  const std::lock_guard lock(mutex_);
  if (ended_) return;
  mailbox_.push_back(std::move(event));
  if (submitted_) WakeLocked();
}

void CompletionCall::WakeLocked() {
  if (std::exchange(woken_, true)) return;
  wake_(!std::exchange(advanced_, true));
}

void CompletionCall::Apply(const Event& event, std::string* out) {
  if (const auto* status = std::get_if<absl::Status>(&event.piece)) {
    if (error_.ok()) error_ = *status;
    return;
  }
  if (!answer_.has_value()) return;  // ready_body_ is all
  std::visit(
      [&](auto& answer) {
        if (const auto* delta = std::get_if<Delta>(&event.piece)) {
          AddTo(answer, event.choice, *delta, out);
        } else {
          AddTo(answer, event.choice, std::get<Finish>(event.piece), out);
        }
      },
      *answer_);
}

CompletionCall::Progress CompletionCall::Advance(std::string* out) {
  taken_.clear();
  {
    const std::lock_guard lock(mutex_);
    taken_.swap(mailbox_);
    woken_ = false;
  }
  const size_t before = out->size();
  for (const Event& event : taken_) {
    Apply(event, out);
    if (error_.ok()) continue;
    Cancel();  // the other choices
    if (!began_) {
      out->resize(before);
      return Progress::kFailed;
    }
    const std::string body = is_tgi() ? TgiErrorBody(error_) : ErrorBody(error_, error_param_);
    out->append("data: ").append(body).append("\n\n");
    return Progress::kStreamFailed;
  }
  if (!ready_body_.empty()) {
    End();
    out->append(ready_body_);
    return Progress::kAnswered;
  }
  if (!answer_.has_value()) return Progress::kWaiting;
  const bool complete = std::visit([](const auto& answer) { return answer.complete(); }, *answer_);
  if (complete) {
    End();
    if (streams_) return Progress::kStreamed;
    std::visit(
        [out](const auto& answer) {
          if constexpr (requires { answer.Body(); }) out->append(answer.Body());
        },
        *answer_);
    return Progress::kAnswered;
  }
  if (!streams_) return Progress::kWaiting;
  if (out->size() == before) return Progress::kWaiting;
  began_ = true;
  return Progress::kStreaming;
}

void CompletionCall::Cancel() {
  for (const Dispatcher::Handle handle : End()) dispatcher_->Cancel(handle);
}

std::vector<Dispatcher::Handle> CompletionCall::End() {
  std::vector<Dispatcher::Handle> handles;
  std::function<void(bool)> wake;  // may own this object's owner: destroyed outside the lock
  const std::lock_guard lock(mutex_);
  ended_ = true;
  handles.swap(handles_);
  wake.swap(wake_);
  mailbox_.clear();
  return handles;
}

}  // namespace baton::router
