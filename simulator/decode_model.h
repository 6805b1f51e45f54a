#pragma once

// A decode worker of a simulation: decode_worker/scheduler.h decides, the cost model computes. What
// its loop does beside that (decode_worker/loop.h) is done here as there: a request stands in line,
// oldest first, until there are KV blocks for it; then its KV comes, or it is prefilled here; who
// finds no block for the next token takes those of the youngest, whose KV is computed again.

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "decode_worker/scheduler.h"
#include "simulator/simulated_worker.h"

namespace baton::simulator {

struct DecodeJob {
  int64_t request = 0;
  int64_t ticket = 0;  // older requests have lower ones
  int32_t tokens = 0;  // prompt and output so far
  int32_t left = 0;    // output tokens to come, the first among them
  bool by_handoff = false;
  double last_token_s = -1;  // when its last token came; below 0: none yet
};

class DecodeModel {
 public:
  explicit DecodeModel(const SimulatedWorker* worker)
      : worker_(worker),
        limits_{.chunk_tokens = worker->chunk_tokens, .max_batch = worker->max_batch} {}

  void EnterLine(const DecodeJob& job) { line_.emplace(job.ticket, job); }
  // Of those in line, the requests that got their blocks and wait for their KV; the others, to be
  // prefilled here, run.
  std::vector<int64_t> Admit();
  // The KV of an admitted one is here, with the first token, which was the router's at
  // `first_token_s`. True when that was all.
  bool Receive(int64_t request, double first_token_s);

  // Seconds of the next step, if none runs and there is something to compute.
  std::optional<double> BeginStep();
  struct StepEnd {
    double common_gap_s = 0;  // of those that had a token in the step before too
    int64_t common_gaps = 0;
    std::vector<double> other_gaps_s;
    std::vector<int64_t> first_tokens;  // requests prefilled here that have their first token now
    std::vector<int64_t> finished;
  };
  StepEnd EndStep(double now_s);

  // Takes away what runs or stands in line for a prefill here, to go on elsewhere. Not during a
  // step.
  std::vector<DecodeJob> TakeAway();

  std::vector<DecodeJob> Decoding() const;

  bool stepping() const { return stepping_; }
  bool quiet() const {
    return line_.empty() && receiving_.empty() && running_.empty() && joining_.empty();
  }
  int32_t free_blocks() const { return worker_->kv_blocks - held_blocks_; }
  double busy_s() const { return busy_s_; }
  int64_t steps() const { return steps_; }
  int64_t tokens() const { return tokens_; }  // in all steps together
  int64_t preemptions() const { return preemptions_; }

 private:
  struct Running {
    DecodeJob job;
    int32_t pending = 0;  // without KV
    int32_t blocks = 0;
    int64_t served_step = 0;
    bool decoding = false;
  };

  void Join(const Running& running);
  void ReserveOrPreempt(size_t index, std::vector<bool>* gone);
  void TakeToken(Running* running, double now_s, StepEnd* end);

  const SimulatedWorker* const worker_;
  const decode_worker::Limits limits_;
  std::map<int64_t, DecodeJob> line_;
  std::map<int64_t, Running> receiving_;  // by request
  std::vector<Running> running_;          // oldest first
  std::vector<Running> joining_;          // at the end of the step that runs
  std::vector<engine::PlannedRange> plan_;
  std::vector<decode_worker::RunningView> views_;
  int32_t held_blocks_ = 0;
  bool stepping_ = false;
  double last_end_s_ = -1;  // of the step before
  double busy_s_ = 0;
  int64_t steps_ = 0, tokens_ = 0, preemptions_ = 0;
};

}  // namespace baton::simulator
