#include "router/debug_routes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <string>

#include "router/admin_routes.h"
#include "tests/router/record_testing.h"
#include "tests/router/scripted_dispatcher.h"

namespace baton::router {
namespace {

namespace json = boost::json;

RequestRecord Record(const std::string& call, const std::string& id, std::string_view state = "") {
  RequestRecord record = TestRecord(TestCall(call));
  record.id = id;
  record.state = state;
  return record;
}

class DebugRoutesTest : public testing::Test {
 protected:
  HttpResponse Get(std::string_view target, std::string_view method = "GET") {
    return AnswerAdmin({.dispatcher = &dispatcher_,
                        .telemetry = telemetry_.get(),
                        .metrics = [] { return "baton_test_metric 1\n"; }},
                       {.method = method, .target = target});
  }
  json::value Json(std::string_view target) {
    const HttpResponse response = Get(target);
    EXPECT_EQ(response.status, 200) << target << " " << response.body;
    return json::parse(response.body);
  }

  ScriptedDispatcher dispatcher_;
  const std::unique_ptr<Telemetry> telemetry_ = *Telemetry::Create({});
};

TEST_F(DebugRoutesTest, ShowsLiveOnesAndTheLatest) {
  dispatcher_.SetLive({Record("a", "1", "queued"), Record("b", "2", "decode"), Record("c", "3")});
  telemetry_->Ended(Record("old", "0"));
  telemetry_->Ended(Record("c", "3"));
  const json::value all = Json("/debug/requests");
  ASSERT_EQ(all.at("live").as_array().size(), 2u) << "what has just ended is shown once";
  EXPECT_EQ(all.at("live").at(0).at("request_id").as_string(), "a");
  EXPECT_EQ(all.at("live").at(0).at("state").as_string(), "queued");
  ASSERT_EQ(all.at("recent").as_array().size(), 2u);
  EXPECT_EQ(all.at("recent").at(0).at("request_id").as_string(), "c");
  telemetry_->Ended(RecordOfCall(TestCall("bad"), 400, absl::InvalidArgumentError("x"), {}));
  EXPECT_EQ(Json("/debug/requests").at("refused").at(0).at("request_id").as_string(), "bad");
  EXPECT_EQ(Json("/debug/requests/bad").at("requests").at(0).at("status").as_int64(), 400);
  const json::value one = Json("/debug/requests?limit=1");
  EXPECT_EQ(one.at("live").as_array().size(), 1u);
  EXPECT_EQ(one.at("recent").as_array().size(), 1u);
  for (const char* query : {"limit=", "limit=-1", "limit=1025", "limit=1x", "x=1"}) {
    EXPECT_EQ(Get(std::string("/debug/requests?") + query).status, 400) << query;
  }
}

TEST_F(DebugRoutesTest, FindsARequestByItsOwnIdAndItsCalls) {
  dispatcher_.SetLive({Record("call/1", "11", "decode")});
  telemetry_->Ended(Record("call/1", "12"));
  telemetry_->Ended(Record("other", "13"));
  EXPECT_EQ(Json("/debug/requests/call%2F1").at("requests").as_array().size(), 2u);
  const json::value one = Json("/debug/requests/12");
  ASSERT_EQ(one.at("requests").as_array().size(), 1u);
  EXPECT_EQ(one.at("requests").at(0).at("stages").at("first_token").as_double(), 0.008);
  EXPECT_EQ(Get("/debug/requests/14").status, 404);
  EXPECT_EQ(Get("/debug/requestsx").status, 404);
}

TEST_F(DebugRoutesTest, TakesNothingButGet) {
  EXPECT_EQ(Get("/debug/requests", "POST").status, 405);
  EXPECT_EQ(Get("/metrics", "POST").status, 405);
  EXPECT_EQ(Get("/metrics").body, "baton_test_metric 1\n");
  EXPECT_EQ(
      AnswerAdmin({.dispatcher = &dispatcher_}, {.method = "GET", .target = "/debug/requests"})
          .status,
      404);
}

}  // namespace
}  // namespace baton::router
