#include "router/completion_call.h"

#include <chrono>
#include <utility>

#include "common/status_macros.h"
#include "router/error_code.h"
#include "router/http_error.h"

namespace baton::router {
namespace {

constexpr size_t kMostWaiting = 128;  // pieces of an answer that is not streamed

}  // namespace

CompletionCall::CompletionCall(Dispatcher* dispatcher, const RequestLimits& limits,
                               Endpoint endpoint, std::string id, std::shared_ptr<Visit> visit,
                               std::function<void()> wake)
    : dispatcher_(dispatcher),
      limits_(limits),
      endpoint_(endpoint),
      id_(std::move(id)),
      visit_(std::move(visit)),
      wake_(std::move(wake)) {}

void CompletionCall::Start(std::string_view body) {
  const absl::Status status = Submit(body);
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

absl::Status CompletionCall::Submit(std::string_view body) {
  BATON_ASSIGN_OR_RETURN(const OpenAiRequest request,
                         ParseOpenAiRequest(endpoint_, body, limits_, &error_param_));
  BATON_ASSIGN_OR_RETURN(AnswerShape shape, MakeShape(request));
  streams_ = request.stream;
  if (request.stream) {
    answer_.emplace(StreamAnswer(std::move(shape)));
  } else {
    answer_.emplace(WholeAnswer(std::move(shape)));
  }
  for (int32_t choice = 0; choice < request.choices(); ++choice) {
    GenerateInput input = request.Choice(choice);
    input.visit = visit_;
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

absl::StatusOr<AnswerShape> CompletionCall::MakeShape(const OpenAiRequest& request) const {
  AnswerShape shape;
  shape.endpoint = endpoint_;
  shape.id = (endpoint_ == Endpoint::kChat ? "chatcmpl-" : "cmpl-") + id_;
  shape.model = request.prompts.front().model;
  if (shape.model.empty()) {
    const std::vector<ModelInfo> models = dispatcher_->Models();
    if (!models.empty()) shape.model = models.front().name;
  }
  shape.created_s = std::chrono::duration_cast<std::chrono::seconds>(
                        std::chrono::system_clock::now().time_since_epoch())
                        .count();
  shape.choices = request.choices();
  shape.choices_per_prompt = request.choices_per_prompt;
  shape.logprobs = request.prompts.front().sampling.logprobs >= 0;
  shape.include_usage = request.include_usage;
  shape.return_stats = request.return_stats;
  shape.return_token_ids = request.return_token_ids;
  if (!shape.return_token_ids) return shape;
  for (const GenerateInput& prompt : request.prompts) {
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
  // An answer in one piece has nothing to send before its end.
  const bool later = !streams_ && std::holds_alternative<Delta>(event.piece);
  mailbox_.push_back(std::move(event));
  if (submitted_ && (!later || mailbox_.size() >= kMostWaiting)) WakeLocked();
}

void CompletionCall::WakeLocked() {
  if (!std::exchange(woken_, true)) wake_();
}

void CompletionCall::Apply(const Event& event, std::string* out) {
  if (const auto* status = std::get_if<absl::Status>(&event.piece)) {
    if (error_.ok()) error_ = *status;
    return;
  }
  auto* stream = std::get_if<StreamAnswer>(&*answer_);
  auto* whole = std::get_if<WholeAnswer>(&*answer_);
  if (const auto* delta = std::get_if<Delta>(&event.piece)) {
    stream != nullptr ? stream->Add(event.choice, *delta, out) : whole->Add(event.choice, *delta);
  } else {
    const Finish& finish = std::get<Finish>(event.piece);
    stream != nullptr ? stream->Add(event.choice, finish, out) : whole->Add(event.choice, finish);
  }
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
    out->append("data: ").append(ErrorBody(error_, error_param_)).append("\n\n");
    return Progress::kStreamFailed;
  }
  if (!answer_.has_value()) return Progress::kWaiting;
  if (const auto* whole = std::get_if<WholeAnswer>(&*answer_)) {
    if (!whole->complete()) return Progress::kWaiting;
    End();
    out->append(whole->Body());
    return Progress::kAnswered;
  }
  if (std::get<StreamAnswer>(*answer_).complete()) {
    End();
    return Progress::kStreamed;
  }
  if (out->size() == before) return Progress::kWaiting;
  began_ = true;
  return Progress::kStreaming;
}

void CompletionCall::Cancel() {
  for (const Dispatcher::Handle handle : End()) dispatcher_->Cancel(handle);
}

std::vector<Dispatcher::Handle> CompletionCall::End() {
  std::vector<Dispatcher::Handle> handles;
  std::function<void()> wake;  // may own this object's owner: destroyed outside the lock
  const std::lock_guard lock(mutex_);
  ended_ = true;
  handles.swap(handles_);
  wake.swap(wake_);
  mailbox_.clear();
  return handles;
}

}  // namespace baton::router
