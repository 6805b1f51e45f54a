#include "router/request_record.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <string>

#include "tests/router/record_testing.h"

namespace baton::router {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::HasSubstr;
using testing::Not;

std::string Line(const RequestRecord& record) {
  std::string line;
  AppendRecord(record, &line);
  return line;
}

TEST(SoundRequestId, TakesWhatIdsAreMadeOf) {
  for (const std::string& id : {std::string("a"), std::string("0af7651916cd43dd-8448"),
                                std::string("A.b_c:d/e+f=@~"), std::string(128, 'x')}) {
    EXPECT_EQ(SoundRequestId(id), id);
  }
  for (const std::string& id : {std::string(), std::string(129, 'x'), std::string("a b"),
                                std::string("a\r\nb"), std::string("\"a\""), std::string("a,b"),
                                std::string("\xc3\xa4"), std::string("<a>"), std::string("a;b")}) {
    EXPECT_EQ(SoundRequestId(id), "") << id;
  }
}

TEST(AppendRecord, IsTheLineThatTheDocumentShows) {
  EXPECT_EQ(
      Line(TestRecord()),
      R"({"time":"2026-11-22T01:02:03.000123Z","arrival_us":1795309323000123,)"
      R"("request_id":"call-1","client":"10.0.0.9",)"
      R"("id":"0123456789abcdef-0000000000000001","choice":0,)"
      R"("endpoint":"/v1/chat/completions","key":"alice","tenant":"acme","model":"demo",)"
      R"("status":200,"code":"OK","finish_reason":"stop","input_tokens":812,"cached_tokens":768,)"
      R"("output_tokens":64,"max_tokens":256,"prefill_worker":"p0","decode_worker":"d0",)"
      R"("transport":"shm","kv_bytes":4096,"migrations":0,"prefill_chunks":1,"decode_steps":63,)"
      R"("ttft_s":0.008000,"itl_s":0.007500,"e2e_s":0.012000,"stages":{"tokenized":0.001000,)"
      R"("placed":0.002000,"prefill_started":0.003000,"handoff_offered":0.004000,)"
      R"("handoff_granted":0.005000,"first_chunk":0.006000,"prefill_finished":0.007000,)"
      R"("first_token":0.008000,"handoff_finished":0.009000,"decode_started":0.010000,)"
      R"("last_token":0.011000,"ended":0.012000}})");
}

TEST(AppendRecord, SaysWhatWentWrongAndWhereItWent) {
  RequestRecord record = TestRecord();
  record.http_status = 503;
  record.status = absl::UnavailableError("worker \"d0\" is gone\n" + std::string(1000, 'x'));
  record.finish_reason = "";
  record.migrations = 1;
  record.preemptions = 2;
  record.moves.push_back({milliseconds(1500), MoveReason::kLost, 17, "d0 was lost"});
  const std::string line = Line(record);
  EXPECT_THAT(
      line, HasSubstr(R"("status":503,"code":"UNAVAILABLE","error":"worker \"d0\" is gone\nxxx)"));
  EXPECT_THAT(line, HasSubstr(R"("migrations":1,"moves":[{"at_s":1.500000,"reason":"lost",)"
                              R"("output_tokens":17,"why":"d0 was lost"}],)"));
  EXPECT_THAT(line, HasSubstr(R"("preemptions":2)"));
  EXPECT_THAT(line, Not(HasSubstr("finish_reason")));
  EXPECT_LT(line.size(), 2000u) << "errors are cut";
  EXPECT_EQ(line.find('\n'), std::string::npos);
  EXPECT_NO_THROW(boost::json::parse(line));
}

TEST(AppendRecord, OfACallThatBecameNoRequestSaysWhatIsKnown) {
  auto call = TestCall();
  call->trace = {.id_high = 1, .id_low = 2, .span = 3};
  const RequestRecord record =
      RecordOfCall(call, 429, absl::ResourceExhaustedError("too much"), milliseconds(2));
  EXPECT_EQ(
      Line(record),
      R"({"time":"2026-11-22T01:02:03.000123Z","arrival_us":1795309323000123,)"
      R"("request_id":"call-1","client":"10.0.0.9","endpoint":"/v1/chat/completions","status":429,)"
      R"("code":"RESOURCE_EXHAUSTED","error":"too much","e2e_s":0.002000,)"
      R"("stages":{"ended":0.002000},"trace_id":"00000000000000010000000000000002"})");
}

TEST(AppendRecord, OfOneThatLivesHasAStateAndNoStatus) {
  RequestRecord record = TestRecord();
  record.state = "decode";
  record.finish_reason = "";
  EXPECT_THAT(Line(record), HasSubstr(R"("state":"decode",)"));
  EXPECT_THAT(Line(record), Not(HasSubstr("status")));
}

// Arrived at 100 s, placed at 101, placed again at 110.
class StagesTest : public testing::Test {
 protected:
  static TimePoint At(double s) { return TimePoint(FromSeconds(s)); }
  Stages Of(bool by_handoff = true) const {
    return StagesOf(times_, At(100), At(100.5), placed_, by_handoff);
  }
  void SetPrefill() {
    times_.first_token = seconds(5);
    times_.prefill = worker_link::PrefillTimes{.cached_prompt_tokens = 0,
                                               .chunks = 2,
                                               .queue = milliseconds(500),
                                               .fetch = milliseconds(250),
                                               .first_chunk = milliseconds(125),
                                               .compute = seconds(1)};
  }
  FlowTimes times_;
  Placements placed_{At(101), At(101), At(110)};
};

TEST_F(StagesTest, HaveWhatWasReached) {
  placed_ = {};
  EXPECT_EQ(Of().At(Stage::kTokenized), milliseconds(500));
  EXPECT_FALSE(Of().Has(Stage::kPlaced));
  placed_ = {At(101), {}, At(101)};
  EXPECT_EQ(Of().At(Stage::kPlaced), seconds(1));
  EXPECT_FALSE(Of().Has(Stage::kFirstToken));
}

TEST_F(StagesTest, PutTheWorkersDurationsBehindTheirOwnPlacement) {
  SetPrefill();
  times_.last_token = At(120);
  times_.finished.emplace();
  times_.finished->transport = "shm";
  times_.finished->queue = milliseconds(100);
  times_.finished->handoff = seconds(2);
  times_.finished->handoff_exposed = milliseconds(500);
  times_.finished->handover = milliseconds(750);
  const Stages stages = Of();
  EXPECT_EQ(stages.At(Stage::kPrefillStarted), milliseconds(1500));
  EXPECT_EQ(stages.At(Stage::kHandoffOffered), milliseconds(1750));
  EXPECT_EQ(stages.At(Stage::kFirstChunk), milliseconds(1875));
  EXPECT_EQ(stages.At(Stage::kPrefillFinished), milliseconds(2750));
  EXPECT_EQ(stages.At(Stage::kFirstToken), seconds(5));
  EXPECT_EQ(stages.At(Stage::kHandoffGranted), milliseconds(10100));
  EXPECT_EQ(stages.At(Stage::kHandoffFinished), milliseconds(12100));
  EXPECT_EQ(stages.At(Stage::kDecodeStarted), milliseconds(12350)) << "of the commit's arrival";
  EXPECT_EQ(stages.At(Stage::kLastToken), seconds(20));
  EXPECT_FALSE(Of(/*by_handoff=*/false).Has(Stage::kHandoffOffered));
}

TEST_F(StagesTest, AWorkerThatSaysTooMuchMovesNoStageBehindTheNext) {
  SetPrefill();
  times_.prefill->queue = std::chrono::hours(9);
  times_.last_token = At(106);
  times_.finished.emplace();
  times_.finished->transport = "shm";
  times_.finished->handoff = std::chrono::hours(9);
  const Stages stages = Of();
  EXPECT_EQ(stages.At(Stage::kPrefillStarted), seconds(5));
  EXPECT_EQ(stages.At(Stage::kPrefillFinished), seconds(5));
  EXPECT_EQ(stages.At(Stage::kHandoffFinished), seconds(6));
}

}  // namespace
}  // namespace baton::router
