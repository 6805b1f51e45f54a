#include "worker_common/step_meter.h"

#include <gtest/gtest.h>

#include <vector>

namespace baton::worker_common {
namespace {

TEST(StepMeter, SumsWhatStepsCompute) {
  engine::Sequence prompt;
  prompt.tokens.resize(20);
  prompt.prompt_tokens = 20;
  prompt.computed_tokens = 10;
  engine::Sequence answer;
  answer.tokens.resize(8);
  answer.prompt_tokens = 5;
  answer.computed_tokens = 7;
  StepMeter meter;
  meter.Begin(std::vector<engine::StepRange>{{&prompt, 4}, {&answer, 1}});
  meter.End(std::chrono::milliseconds(250));
  answer.tokens.resize(9);
  answer.computed_tokens = 8;
  meter.Begin(std::vector<engine::StepRange>{{&answer, 1}});
  meter.End(std::chrono::milliseconds(500));
  meter.Begin(std::vector<engine::StepRange>{{&prompt, 1}});
  meter.End(std::chrono::milliseconds(250));
  EXPECT_EQ(meter.totals(), (worker_link::StepTotals{.steps = 3,
                                                     .prompt_steps = 1,
                                                     .seconds = 1,
                                                     .prompt_tokens = 5,
                                                     .prompt_pairs = 11 + 12 + 13 + 14 + 11,
                                                     .sequences = 2,
                                                     .context_tokens = 8 + 9}));
}

}  // namespace
}  // namespace baton::worker_common
