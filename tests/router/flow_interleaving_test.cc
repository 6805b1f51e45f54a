// Every order in which the events of a small request can reach its Flow: each ends exactly once,
// with its tokens in order, none lost or repeated.

#include <gtest/gtest.h>

#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "router/flow.h"
#include "tests/router/demo_tokenizer.h"
#include "tests/router/schedule.h"

namespace baton::router {
namespace {

using worker_link::Event;
using worker_link::FailedEvent;
using worker_link::FinishedEvent;
using worker_link::PrefilledEvent;
using worker_link::TokensEvent;

constexpr WorkerId kDecode = 0;
constexpr WorkerId kPrefill = 1;
constexpr WorkerId kSecondDecode = 2;
constexpr RequestId kRequest{1, 2};

enum class Interrupt {
  kNone,
  kPrefillLost,
  kDecodeLost,
  kDecodeStalled,  // what it had sent comes nevertheless
  kDecodeLeaving,  // likewise
  kCancel,
  kDeadline
};
enum class PrefillEnds { kPrefilled, kFailsAtOnce, kFailsAfterToken };

struct Scenario {
  Interrupt interrupt;
  PrefillEnds prefill;
  bool decode_sends_token_0;
  bool decode_fails_at_end;
  bool separate_tokens;  // one message a token
};

const std::vector<TokenId>& Output() {
  static const std::vector<TokenId> tokens = DemoTokens("The quick brown");
  return tokens;
}

TokensEvent Tokens(uint32_t epoch, int32_t first, int32_t count) {
  TokensEvent event{{kRequest, epoch}, {}};
  for (int32_t i = first; i < first + count; ++i) {
    event.tokens.push_back({Output()[static_cast<size_t>(i)], i, 0, {}});
  }
  return event;
}

// Of an attempt that begins with `delivered` tokens of output.
std::deque<Event> DecodeEvents(const Scenario& scenario, uint32_t epoch, int32_t delivered) {
  const auto count = static_cast<int32_t>(Output().size());
  std::deque<Event> events;
  const int32_t first = delivered + (scenario.decode_sends_token_0 || epoch > 0 ? 0 : 1);
  if (scenario.separate_tokens) {
    for (int32_t i = first; i < count; ++i) events.push_back(Tokens(epoch, i, 1));
  } else if (first < count) {
    events.push_back(Tokens(epoch, first, count - first));
  }
  if (scenario.decode_fails_at_end && epoch == 0) {
    events.push_back(FailedEvent{{kRequest, epoch}, absl::UnavailableError("handoff lost")});
  } else {
    FinishedEvent finished;
    finished.attempt = {kRequest, epoch};
    finished.reason = FinishReason::kLength;
    finished.output_tokens = count;
    events.push_back(finished);
  }
  return events;
}

std::deque<Event> PrefillEvents(const Scenario& scenario) {
  const FailedEvent failed{{kRequest, 0}, absl::UnavailableError("lease ran out")};
  switch (scenario.prefill) {
    case PrefillEnds::kPrefilled:
      return {Tokens(0, 0, 1), PrefilledEvent{{kRequest, 0}}};
    case PrefillEnds::kFailsAtOnce:
      return {failed};
    case PrefillEnds::kFailsAfterToken:
      return {Tokens(0, 0, 1), failed};
  }
  return {};
}

// One run of a scenario in the order that the schedule says.
class Run {
 public:
  Run(const Scenario& scenario, Schedule& schedule)
      : scenario_(scenario), schedule_(schedule), flow_(Request(), &DemoTokenizer()) {
    queues_[kDecode] = DecodeEvents(scenario, 0, 0);
    queues_[kPrefill] = PrefillEvents(scenario);
    flow_.OnPlaced({kDecode, "d0"}, FlowWorker{kPrefill, "p0"});
  }

  void Go() {
    bool interrupted = scenario_.interrupt == Interrupt::kNone;
    while (true) {
      std::vector<std::function<void()>> ways;
      for (WorkerId worker = 0; worker < queues_.size(); ++worker) {
        if (!queues_[worker].empty()) ways.push_back([this, worker] { Step(worker); });
      }
      if (!interrupted) {
        ways.push_back([this, &interrupted] {
          interrupted = true;
          Break();
        });
      }
      if (ways.empty()) return;
      ways[schedule_.Choose(ways.size())]();
    }
  }

  void Check() const {
    EXPECT_TRUE(flow_.ended());
    EXPECT_FALSE(flow_.decode() || flow_.prefill());
    const bool cancelled = scenario_.interrupt == Interrupt::kCancel && endings_ == 0;
    EXPECT_EQ(endings_, cancelled ? 0 : 1);
    ASSERT_LE(tokens_.size(), Output().size());
    for (size_t i = 0; i < tokens_.size(); ++i) EXPECT_EQ(tokens_[i], Output()[i]);
    if (!finished_) return;
    EXPECT_EQ(tokens_, Output());
    EXPECT_EQ(text_, DemoTokenizer().Decode(Output()));
  }
  bool finished() const { return finished_; }
  bool failed() const { return endings_ == 1 && !finished_; }

 private:
  static FlowRequest Request() {
    FlowRequest request;
    request.id = kRequest;
    request.prompt_tokens = 4;
    request.sampling.max_tokens = static_cast<int32_t>(Output().size());
    return request;
  }

  void Step(WorkerId worker) {
    const Event event = queues_[worker].front();
    queues_[worker].pop_front();
    Take(flow_.OnEvent(worker, event, TimePoint(std::chrono::seconds(1))));
  }

  void Break() {
    switch (scenario_.interrupt) {
      case Interrupt::kPrefillLost:
        return Lose(kPrefill);
      case Interrupt::kDecodeLost:
        return Lose(kDecode);
      case Interrupt::kDecodeStalled:
        return Take(flow_.OnWorkerStalled(kDecode, absl::UnavailableError("silent")));
      case Interrupt::kDecodeLeaving:
        return Take(flow_.OnWorkerLeaving(kDecode));
      case Interrupt::kCancel:
        return Take(flow_.OnCancel());
      case Interrupt::kDeadline:
        return Take(flow_.OnError(absl::DeadlineExceededError("late")));
      case Interrupt::kNone:
        return;
    }
  }

  void Lose(WorkerId worker) {
    queues_[worker].clear();
    Take(flow_.OnWorkerLost(worker, absl::UnavailableError("connection reset")));
  }

  void Take(const FlowActions& actions) {
    for (const auto& output : actions.outputs) {
      EXPECT_EQ(endings_, 0) << "output after the end";
      if (const auto* delta = std::get_if<Delta>(&output)) {
        EXPECT_EQ(delta->index, static_cast<int32_t>(tokens_.size()));
        for (const TokenDetail& token : delta->tokens) tokens_.push_back(token.token);
        text_ += delta->text;
      } else {
        ++endings_;
        finished_ = std::holds_alternative<Finish>(output);
      }
    }
    if (!actions.place) return;
    EXPECT_EQ(flow_.attempt().epoch, 1u) << "placed again more than once";
    EXPECT_EQ(flow_.delivered(), tokens_);
    flow_.OnPlaced({kSecondDecode, "d1"}, std::nullopt);
    queues_[kSecondDecode] = DecodeEvents(scenario_, 1, flow_.tokens_delivered());
  }

  const Scenario scenario_;
  Schedule& schedule_;
  Flow flow_;
  std::vector<std::deque<Event>> queues_{3};
  std::vector<TokenId> tokens_;
  std::string text_;
  int endings_ = 0;
  bool finished_ = false;
};

struct Totals {
  int runs = 0;
  int finished = 0;
  int failed = 0;
};

Totals RunAll(const Scenario& scenario) {
  Totals totals;
  Schedule schedule;
  do {
    schedule.Restart();
    Run run(scenario, schedule);
    run.Go();
    run.Check();
    ++totals.runs;
    totals.finished += run.finished() ? 1 : 0;
    totals.failed += run.failed() ? 1 : 0;
    if (testing::Test::HasFailure()) {
      ADD_FAILURE() << "schedule " << schedule.ToString();
      break;
    }
  } while (schedule.Next());
  return totals;
}

TEST(FlowInterleavingTest, EveryOrderOfEveryScenarioEndsOnce) {
  int runs = 0;
  for (const Interrupt interrupt :
       {Interrupt::kNone, Interrupt::kPrefillLost, Interrupt::kDecodeLost,
        Interrupt::kDecodeStalled, Interrupt::kDecodeLeaving, Interrupt::kCancel,
        Interrupt::kDeadline}) {
    for (const PrefillEnds prefill :
         {PrefillEnds::kPrefilled, PrefillEnds::kFailsAtOnce, PrefillEnds::kFailsAfterToken}) {
      for (int bits = 0; bits < 8; ++bits) {
        const Scenario scenario{interrupt, prefill, (bits & 1) != 0, (bits & 2) != 0,
                                (bits & 4) != 0};
        SCOPED_TRACE(testing::Message()
                     << "interrupt " << static_cast<int>(interrupt) << ", prefill "
                     << static_cast<int>(prefill) << ", bits " << bits);
        runs += RunAll(scenario).runs;
        if (HasFailure()) return;
      }
    }
  }
  EXPECT_GT(runs, 10000);
  RecordProperty("runs", runs);
}

TEST(FlowInterleavingTest, WithoutFaultsEveryOrderFinishes) {
  for (const bool token_0 : {false, true}) {
    const Totals totals = RunAll({Interrupt::kNone, PrefillEnds::kPrefilled, token_0, false, true});
    EXPECT_GT(totals.runs, 9);
    EXPECT_EQ(totals.finished, totals.runs);
  }
}

// The decode worker sends every token, so the prefill worker's death costs time, not the answer.
TEST(FlowInterleavingTest, ALostPrefillWorkerNeverCostsTheAnswer) {
  for (const PrefillEnds prefill :
       {PrefillEnds::kPrefilled, PrefillEnds::kFailsAtOnce, PrefillEnds::kFailsAfterToken}) {
    const Totals totals = RunAll({Interrupt::kPrefillLost, prefill, true, false, true});
    EXPECT_GT(totals.runs, 9);
    EXPECT_EQ(totals.finished, totals.runs);
  }
}

// Neither does that of a decode worker, at any moment, nor that it stalls or drains.
TEST(FlowInterleavingTest, ALostStalledOrDrainedDecodeWorkerNeverCostsTheAnswer) {
  for (const Interrupt interrupt :
       {Interrupt::kDecodeLost, Interrupt::kDecodeStalled, Interrupt::kDecodeLeaving}) {
    for (const PrefillEnds prefill :
         {PrefillEnds::kPrefilled, PrefillEnds::kFailsAtOnce, PrefillEnds::kFailsAfterToken}) {
      const Totals totals = RunAll({interrupt, prefill, true, false, true});
      EXPECT_GT(totals.runs, 9);
      EXPECT_EQ(totals.finished, totals.runs);
    }
  }
}

}  // namespace
}  // namespace baton::router
