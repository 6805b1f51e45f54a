#pragma once

// What the tests of a decode worker share.

#include <vector>

#include "decode_worker/worker.h"
#include "tests/worker_common/worker_testing.h"

namespace baton::decode_worker {

using worker_common::AttemptOf;
using worker_common::kGenerous;
using worker_common::Outcome;
using worker_common::RunningWorker;
using worker_common::TestRouter;
using worker_common::TinyModel;
using worker_link::CancelCommand;
using worker_link::DecodeCommand;
using worker_link::NoOfferCommand;

class DecodeTest : public testing::Test {
 protected:
  static void SetUpTestSuite() { model_ = new TinyModel(); }
  static void TearDownTestSuite() {
    delete model_;
    model_ = nullptr;
  }
  static TinyModel& model() { return *model_; }

  static std::vector<TokenId> Prompt(size_t tokens, uint32_t seed) {
    return engine::RandomTokens(tokens, model().vocab(), seed);
  }
  static DecodeCommand Command(const Attempt& attempt, std::vector<TokenId> prompt,
                               const SamplingParams& sampling) {
    DecodeCommand command;
    command.attempt = attempt;
    command.prompt = std::move(prompt);
    command.sampling = sampling;
    command.timeout = std::chrono::seconds(60);
    return command;
  }
  // Waits for the end, and compares with the engine alone.
  static void ExpectRightAnswer(TestRouter& router, const DecodeCommand& command) {
    SCOPED_TRACE(ToString(command.attempt));
    const Outcome outcome = router.Wait(command.attempt);
    ASSERT_TRUE(outcome.finished) << outcome.failed.value_or(absl::OkStatus());
    const std::vector<OutputToken> right = model().Answer(command.prompt, command.sampling);
    engine::ExpectSame(outcome.tokens, right);
    EXPECT_EQ(outcome.finished->output_tokens, static_cast<int32_t>(right.size()));
  }

  inline static TinyModel* model_ = nullptr;
};

inline SamplingParams SeededTokens(int32_t max_tokens, uint64_t seed) {
  SamplingParams sampling;
  sampling.temperature = 1.5f;
  sampling.top_p = 0.95f;
  sampling.seed = seed;
  sampling.max_tokens = max_tokens;
  sampling.ignore_eos = true;
  sampling.repetition_penalty = 1.1f;
  sampling.logprobs = 2;
  return sampling;
}

}  // namespace baton::decode_worker
