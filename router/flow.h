#pragma once

// One request from placement to its one ending, as a state machine: events in, actions out, no I/O.
//
//             OnPlaced                 Finished, a stop string, an error,
//   waiting ───────────► running ─────────────────────────────────────────► ended
//      ▲                    │            deadline, Cancel
//      └────────────────────┘
//       its worker is lost, stalls, fails, refuses or drains: next epoch
//
// Tokens are delivered in the order of their positions, each once, whichever worker sent them. An
// attempt begins with what was delivered before it: prompt and delivered tokens are its prompt.

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/status/status.h"
#include "common/clock.h"
#include "common/ids.h"
#include "common/sampling.h"
#include "router/held_prefix.h"
#include "router/request.h"
#include "router/stop_matcher.h"
#include "text/detokenizer.h"
#include "text/tokenizer.h"
#include "worker_link/commands.h"

namespace baton::router {

struct FlowRequest {
  RequestId id;
  int32_t prompt_tokens = 0;
  SamplingParams sampling;
  std::vector<std::string> stop;
  bool include_stop = false;  // as GenerateInput's, and the next
  bool show_special_tokens = false;
  bool in_pieces = true;     // likewise
  bool tells_tokens = true;  // likewise
  TimePoint arrival;
  TimePoint tokenized;
  std::shared_ptr<Visit> visit;          // as GenerateInput's
  std::shared_ptr<const CallInfo> call;  // likewise
  int32_t choice = 0;                    // likewise
  std::vector<TokenId> resume_tokens;    // likewise: counted as delivered
  std::optional<uint64_t> session;       // session_memory.h
  TokenId first_prompt_token = 0;        // where sampling.prompt_logprobs asks for its text
  // How often it is placed again because a worker failed it. More would let one request that kills
  // its workers kill the fleet.
  int32_t max_migrations = 3;
};

// What an input asks of a flow, moved out of it. Prompt, times and bounds are the owner's to set.
FlowRequest TakeFlowRequest(GenerateInput* input);

struct FlowWorker {
  WorkerId id = 0;
  std::string name;
};

// Why a request is placed again.
enum class MoveReason { kLost, kStalled, kFailed, kRefused, kDrained };
std::string_view MoveReasonName(MoveReason reason);

// What the owner does after an event, in this order.
struct FlowActions {
  struct CancelAttempt {
    WorkerId worker;
    Attempt attempt;
  };
  std::vector<CancelAttempt> cancels;
  // This worker waits for attempt()'s KV in vain, if it still waits.
  std::optional<WorkerId> no_offer;
  // For the client. A Finish or a Status is the last.
  absl::InlinedVector<std::variant<Delta, Finish, absl::Status>, 1> outputs;
  struct Place {
    MoveReason reason = MoveReason::kLost;
    absl::Status why;  // the request's error, should it not be placed; OK for kDrained
  };
  // Find workers for attempt(): others than avoid() where there are any; for kRefused, only others.
  std::optional<Place> place;
};

// For metrics, as far as known. Times are since arrival unless said otherwise.
struct FlowTimes {
  std::optional<Duration> first_token;
  std::optional<worker_link::PrefillTimes> prefill;  // of the first token, as its worker says
  std::optional<TimePoint> last_token;               // when it came
  std::optional<worker_link::FinishedEvent> finished;
};

// Not thread-safe. After the end every event is ignored. `tokenizer` must outlive it.
class Flow {
 public:
  Flow(FlowRequest request, const text::Tokenizer* tokenizer);

  // Workers were chosen for attempt(). `prefill` empty: the decode worker prefills. `donor` hands
  // a cached prefix to the prefill worker.
  void OnPlaced(FlowWorker decode, std::optional<FlowWorker> prefill,
                std::optional<FlowWorker> donor = std::nullopt);
  // attempt() could not be told to all its workers: the next one is of the next epoch.
  void SkipAttempt() { ++epoch_; }
  // Before the first placement: ends the request when the tokens that it resumes after are all of
  // its answer.
  FlowActions OnResumed(TimePoint now);
  // From a worker; ignored unless it is of the current attempt and from one of its workers.
  FlowActions OnEvent(WorkerId from, worker_link::Event event, TimePoint now);
  FlowActions OnWorkerLost(WorkerId worker, const absl::Status& why);
  // It may be stopped: what it does for this request is cancelled there, and done elsewhere.
  FlowActions OnWorkerStalled(WorkerId worker, const absl::Status& why);
  // It drains, and there are others. A prefill worker may finish what it has begun to deliver.
  FlowActions OnWorkerLeaving(WorkerId worker);
  // The owner's own errors: no worker came, the deadline passed.
  FlowActions OnError(absl::Status status);
  // The client went away: no output.
  FlowActions OnCancel();

  Attempt attempt() const { return {request_.id, epoch_}; }
  const FlowRequest& request() const { return request_; }
  bool ended() const { return state_ == State::kEnded; }
  bool waiting() const { return state_ == State::kWaiting; }
  // Workers whose part of the current attempt is not over.
  const std::optional<FlowWorker>& decode() const { return decode_; }
  const std::optional<FlowWorker>& prefill() const { return prefill_; }
  int32_t tokens_delivered() const { return static_cast<int32_t>(delivered_.size()); }
  const std::vector<TokenId>& delivered() const { return delivered_; }
  // Whether log probabilities of the prompt are still to come; no token is delivered before them.
  bool awaits_scores() const {
    return request_.sampling.prompt_logprobs >= 0 &&
           std::max(scored_tokens_, 1) < request_.prompt_tokens;
  }
  // Workers that failed this request.
  const std::vector<WorkerId>& avoid() const { return avoid_; }
  const FlowTimes& times() const { return times_; }
  // As far as it has come.
  RequestStats Stats(TimePoint now) const;

 private:
  enum class State { kWaiting, kRunning, kEnded };

  void OnTokens(worker_link::TokensEvent event, TimePoint now, FlowActions& actions);
  void BeginPrompt(Delta* delta);
  void OnPromptScores(worker_link::PromptScoresEvent event, FlowActions& actions);
  void OnPrefilled(FlowActions& actions);
  void OnFinished(worker_link::FinishedEvent event, TimePoint now, FlowActions& actions);
  void OnFailed(WorkerId from, const absl::Status& status, FlowActions& actions);
  void OnPrefillGone(MoveReason reason, const absl::Status& why, FlowActions& actions);
  void OnDonorGone(FlowActions& actions);
  void OnDecodeGone(MoveReason reason, const absl::Status& why, FlowActions& actions);

  // False (and the request has ended with an error) when a twin differs or a position is absurd.
  void Replay();
  bool Hold(OutputToken token, FlowActions& actions);
  // Whether it is the next one, and may be delivered.
  bool InTurn(const OutputToken& token) const;
  void Take(OutputToken token, Delta* delta, bool* stopped);
  void Give(Delta delta, FlowActions& actions);
  void GiveGathered(FlowActions& actions);
  std::string TextOf(const OutputToken& token, bool& stopped);
  TokenDetail Detail(const OutputToken& token) const;
  void FinishIfComplete(TimePoint now, FlowActions& actions);
  void EndWithRest(FinishReason reason, TimePoint now, FlowActions& actions);
  void EndWithFinish(FinishReason reason, TimePoint now, FlowActions& actions);
  void EndIncomplete(FlowActions& actions);
  void EndWithError(absl::Status status, FlowActions& actions);
  // Whether this attempt has delivered anything.
  bool Fresh() const { return tokens_delivered() == delivered_before_; }
  bool MayPlaceAgain() const { return migrations_ < request_.max_migrations; }
  void PlaceAgain(MoveReason reason, absl::Status why, FlowActions& actions);
  void CancelWorkers(FlowActions& actions);

  const FlowRequest request_;
  const text::Tokenizer* const tokenizer_;
  text::Detokenizer detokenizer_;
  StopMatcher stop_matcher_;
  State state_ = State::kWaiting;
  uint32_t epoch_ = 0;
  int32_t migrations_ = 0;        // because of failures
  int32_t moves_ = 0;             // of a stream that had begun
  int32_t delivered_before_ = 0;  // this attempt
  std::vector<WorkerId> avoid_;
  std::optional<FlowWorker> decode_;
  std::optional<FlowWorker> prefill_;
  std::optional<FlowWorker> donor_;
  std::vector<TokenId> delivered_;
  Delta gathered_;             // of an answer that is not given in pieces
  int32_t scored_tokens_ = 0;  // of the prompt, delivered
  std::optional<FinishReason> resumed_end_;
  std::map<int32_t, OutputToken> held_;  // came before their turn; positions < max_tokens
  std::optional<worker_link::FinishedEvent> finished_;  // may wait for a token that is on its way
  FlowTimes times_;
  int32_t cached_prompt_tokens_ = 0;
  std::string decode_name_;
  std::string prefill_name_;
};

}  // namespace baton::router
