#include "bench/load_run.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

namespace baton::bench {
namespace {

// Answers what it is asked to when its own clock, which jumps from call to call, comes there.
class FakeClient final : public LoadClient {
 public:
  explicit FakeClient(Duration answer_after) : answer_after_(answer_after) {}

  void Send(std::string, TimePoint due, std::function<void(LoadAnswer)> done,
            std::function<void()>) override {
    LoadAnswer answer;
    answer.due = due;
    answer.sent = now_;
    most_open_ = std::max(most_open_, ++open_);
    calls_.emplace(now_ + answer_after_, [this, answer, done]() mutable {
      --open_;
      answer.ended = now_;
      done(answer);
    });
  }
  void Get(std::string_view, std::function<void(absl::StatusOr<std::string>)>) override {}
  void At(TimePoint when, std::function<void()> call) override { calls_.emplace(when, call); }
  void Run() override {
    while (!calls_.empty()) {
      const auto next = calls_.begin();
      now_ = std::max(now_, next->first);
      const auto call = std::move(next->second);
      calls_.erase(next);
      call();
    }
  }
  void Stop() override {}
  int64_t open() const override { return open_; }

  int64_t most_open() const { return most_open_; }

 private:
  const Duration answer_after_;
  TimePoint now_ = SystemClock().Now();
  std::multimap<TimePoint, std::function<void()>> calls_;
  int64_t open_ = 0, most_open_ = 0;
};

TEST(LoadRunTest, AClosedLoadKeepsSoManyOpen) {
  FakeClient client(std::chrono::milliseconds(5));
  std::vector<int64_t> numbers;
  RunClosedLoad(&client, 50, 7,
                {[&](int64_t number) {
                   numbers.push_back(number);
                   return std::string();
                 },
                 [](int64_t, const LoadAnswer&) {}, nullptr});
  EXPECT_EQ(numbers.size(), 50u);
  EXPECT_TRUE(std::ranges::is_sorted(numbers));
  EXPECT_EQ(client.most_open(), 7);
  EXPECT_EQ(client.open(), 0);
}

TEST(LoadRunTest, AStoppedLoadSendsNoMore) {
  FakeClient client(std::chrono::milliseconds(5));
  int64_t answers = 0;
  RunClosedLoad(&client, 1000, 4,
                {[](int64_t) { return std::string(); },
                 [&](int64_t, const LoadAnswer&) { ++answers; }, [&] { return answers >= 10; }});
  EXPECT_GE(answers, 10);
  EXPECT_LE(answers, 14);
}

// All of it is due at once and before anything is answered: the server's slowness delays nothing,
// and every request is timed from when it was due.
TEST(LoadRunTest, AnOpenLoadDoesNotWaitForAnswers) {
  FakeClient client(std::chrono::hours(1));
  const std::vector<double> due_s(100, 0.0);
  std::vector<TimePoint> due;
  RunOpenLoad(&client, due_s,
              {[](int64_t) { return std::string(); },
               [&](int64_t, const LoadAnswer& answer) { due.push_back(answer.due); }, nullptr});
  EXPECT_EQ(due.size(), 100u);
  EXPECT_EQ(client.most_open(), 100);
  EXPECT_EQ(due.front(), due.back());
}

TEST(LoadRunTest, OpenLoadsKeepTheirDueTimes) {
  FakeClient client(std::chrono::milliseconds(1));
  const std::vector<double> due_s{0.0, 0.001, 0.002, 0.002};
  std::map<int64_t, TimePoint> due;
  RunOpenLoad(
      &client, due_s,
      {[](int64_t) { return std::string(); },
       [&](int64_t number, const LoadAnswer& answer) { due[number] = answer.due; }, nullptr});
  ASSERT_EQ(due.size(), 4u);
  EXPECT_EQ(due[1] - due[0], std::chrono::milliseconds(1));
  EXPECT_EQ(due[2] - due[0], std::chrono::milliseconds(2));
  EXPECT_EQ(due[3], due[2]);
}

}  // namespace
}  // namespace baton::bench
