#include "router/circuit.h"

#include <gtest/gtest.h>

namespace baton::router {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

TimePoint AtTime(Duration since_start) { return TimePoint(seconds(100) + since_start); }

TEST(CircuitTest, OpensAfterSoManyFailuresInARow) {
  Circuit circuit;
  for (int i = 0; i < 2; ++i) circuit.OnFailure(AtTime(seconds(0)), true);
  EXPECT_FALSE(circuit.IsOpen(AtTime(seconds(0))));
  circuit.OnSuccess();
  for (int i = 0; i < 2; ++i) circuit.OnFailure(AtTime(seconds(0)), true);
  EXPECT_FALSE(circuit.IsOpen(AtTime(seconds(0))))
      << "a success in between counts from nothing again";
  circuit.OnFailure(AtTime(seconds(0)), true);
  EXPECT_TRUE(circuit.IsOpen(AtTime(milliseconds(999))));
  EXPECT_FALSE(circuit.IsOpen(AtTime(seconds(1))));
}

TEST(CircuitTest, StaysClosedWhenItMayNotOpen) {
  Circuit circuit;
  for (int i = 0; i < 10; ++i) circuit.OnFailure(AtTime(seconds(0)), false);
  EXPECT_FALSE(circuit.IsOpen(AtTime(seconds(0))));
  circuit.OnFailure(AtTime(seconds(0)), true);
  EXPECT_TRUE(circuit.IsOpen(AtTime(seconds(0)))) << "it may now, and has failed long enough";
}

TEST(CircuitTest, LetsOneRequestThroughAPauseAndDoublesThePause) {
  Circuit circuit;
  for (int i = 0; i < 3; ++i) circuit.OnFailure(AtTime(seconds(0)), true);
  TimePoint probe = AtTime(seconds(1));
  for (Duration pause = seconds(2); pause <= seconds(64); pause *= 2) {
    ASSERT_FALSE(circuit.IsOpen(probe));
    circuit.OnRequest(probe);
    EXPECT_TRUE(circuit.IsOpen(probe)) << "one request is under way";
    circuit.OnFailure(probe, true);
    const Duration expected = std::min<Duration>(pause, Circuit::kLongestPause);
    EXPECT_TRUE(circuit.IsOpen(probe + expected - milliseconds(1)));
    probe += expected;
  }
  circuit.OnRequest(probe);
  circuit.OnSuccess();
  EXPECT_FALSE(circuit.IsOpen(probe));
  circuit.OnRequest(probe);
  EXPECT_FALSE(circuit.IsOpen(probe)) << "closed: all may go there";
}

TEST(CircuitTest, AProbeWithoutAnAnswerIsFollowedByAnother) {
  Circuit circuit;
  for (int i = 0; i < 3; ++i) circuit.OnFailure(AtTime(seconds(0)), true);
  circuit.OnRequest(AtTime(seconds(1)));
  EXPECT_TRUE(circuit.IsOpen(AtTime(milliseconds(1999))));
  EXPECT_FALSE(circuit.IsOpen(AtTime(seconds(2))));
}

TEST(CircuitTest, FailuresOfWhatWasSentBeforeDoNotLengthenThePause) {
  Circuit circuit;
  for (int i = 0; i < 30; ++i) circuit.OnFailure(AtTime(seconds(0)), true);
  EXPECT_FALSE(circuit.IsOpen(AtTime(seconds(1))));
}

}  // namespace
}  // namespace baton::router
