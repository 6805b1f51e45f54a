#pragma once

// One completions call of the HTTP API: its body becomes requests to the dispatcher (one a choice),
// their deltas become the answer's bytes.
//
// The dispatcher's threads leave deltas in a mailbox; the connection's thread takes them out with
// Advance. So encoding and socket writes happen on one thread, and several deltas that came in the
// meantime cost one wake-up and one write.

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "router/dispatcher.h"
#include "router/openai_answer.h"
#include "router/request_record.h"
#include "router/responses_answer.h"
#include "router/tgi_answer.h"

namespace baton::router {

class CompletionCall : public std::enable_shared_from_this<CompletionCall> {
 public:
  enum class Progress {
    kWaiting,       // nothing new to send
    kStreaming,     // events were appended; more follow
    kStreamed,      // the last events were appended
    kStreamFailed,  // an error event was appended; the stream ends there
    kAnswered,      // the whole JSON answer was appended
    kFailed,        // nothing was sent yet: answer with error() and error_param()
  };

  // `wake` is called on any thread, at most once between two calls of Advance, and never after
  // Cancel has returned or Advance has told the ending; it is freed then. It is told whether the
  // call is the first. It must not call back into this object, nor block. `telemetry` is told of a
  // call that becomes no request; may be null.
  CompletionCall(Dispatcher* dispatcher, const RequestLimits& limits, Endpoint endpoint,
                 std::shared_ptr<const CallInfo> call, Telemetry* telemetry,
                 std::shared_ptr<Visit> visit, std::function<void(bool)> wake);

  // Once, on any thread: parses, tokenizes (so it takes milliseconds for a long prompt) and
  // submits. Every outcome comes through Advance.
  void Start(std::string_view body);

  // Encodes what has come. The connection's thread; not again after an ending.
  Progress Advance(std::string* out);
  const absl::Status& error() const { return error_; }
  const std::string& error_param() const { return error_param_; }
  bool is_tgi() const {
    return endpoint_ == Endpoint::kGenerate || endpoint_ == Endpoint::kGenerateStream;
  }

  // Ends the call: the dispatcher cancels what is running. Any thread; idempotent.
  void Cancel();

 private:
  using Piece = std::variant<Delta, Finish, absl::Status>;
  struct Event {
    int32_t choice;
    Piece piece;
  };

  absl::Status Submit(std::string_view body);
  void Note(const absl::Status& status) const;
  absl::Status SubmitResponses(std::string_view body);
  absl::Status SubmitOpenAi(std::string_view body);
  absl::Status SubmitChoices(OpenAiRequest request);
  absl::Status PutReady();
  absl::Status ConstrainToTools(OpenAiRequest* request);
  ToolFormat ToolFormatHere() const;
  std::string ModelName(const GenerateInput& input) const;
  absl::StatusOr<AnswerShape> MakeShape(const OpenAiRequest& request) const;
  ResponseSink SinkOf(int32_t choice);
  void Put(Event event);
  void WakeLocked();
  void Apply(const Event& event, std::string* out);
  // No more wakes and pieces. What was running.
  std::vector<Dispatcher::Handle> End();

  Dispatcher* const dispatcher_;
  const RequestLimits limits_;
  const Endpoint endpoint_;
  const std::shared_ptr<const CallInfo> call_;
  Telemetry* const telemetry_;
  const std::shared_ptr<Visit> visit_;

  std::mutex mutex_;
  std::function<void(bool)> wake_;           // guarded by mutex_
  std::vector<Event> mailbox_;               // guarded by mutex_
  std::vector<Dispatcher::Handle> handles_;  // guarded by mutex_
  bool submitted_ = false;                   // guarded by mutex_: wakes begin
  bool woken_ = false;                       // guarded by mutex_: Advance is due
  bool advanced_ = false;                    // guarded by mutex_: it was due before
  bool ended_ = false;                       // guarded by mutex_

  // Written by Start before the first wake, then the connection's thread's.
  std::optional<std::variant<StreamAnswer, WholeAnswer, TgiAnswer, ResponsesAnswer>> answer_;
  std::string ready_body_;  // of calls that need no worker
  bool streams_ = true;     // written before the first piece
  std::string error_param_;
  absl::Status error_;
  std::vector<Event> taken_;
  bool began_ = false;  // bytes of the stream were handed out
};

}  // namespace baton::router
