#include "router/admin_routes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/router/scripted_dispatcher.h"

namespace baton::router {
namespace {

using testing::HasSubstr;

class AdminRoutesTest : public testing::Test {
 protected:
  HttpResponse Get(std::string_view target) {
    return AnswerAdmin({.dispatcher = &dispatcher_}, {.method = "GET", .target = target});
  }
  HttpResponse Post(std::string_view target, std::string_view body,
                    std::string_view type = "application/json; charset=utf-8") {
    return AnswerAdmin({.dispatcher = &dispatcher_},
                       {.method = "POST", .target = target, .content_type = type, .body = body});
  }

  ScriptedDispatcher dispatcher_;
};

constexpr char kWorker[] =
    R"({"name":"decode-0","role":"decode","address":"127.0.0.1:1","state":"ready",)"
    R"("suspect":false,"running":0,"waiting":0,"transfers":0,"blocks_free":10,"blocks_held":0,)"
    R"("blocks_cached":0,"blocks_total":12})";

constexpr char kEtcd[] =
    R"({"source":"etcd","where":"/baton/","current":false,"trouble":"UNAVAILABLE: gone",)"
    R"("failures":3,"workers":2})";

TEST_F(AdminRoutesTest, ShowsWorkersAndWhereTheyAreLearnedOf) {
  EXPECT_EQ(Get("/v1/workers").body,
            std::string(R"({"workers":[)") + kWorker + R"(],"discovery":[)" + kEtcd + "]}");
  EXPECT_EQ(Get("/v1/workers/decode-0?x=1").body, kWorker);
  EXPECT_EQ(Get("/v1/workers/127.0.0.1%3A1").body, kWorker) << "by its address";
  EXPECT_EQ(Get("/v1/workers/decode-1").status, 404);
  EXPECT_EQ(Get("/health").status, 200);
}

TEST_F(AdminRoutesTest, WithoutLiveControlThereIsNoPlan) {
  const HttpResponse answer = Get("/admin/plan");
  EXPECT_EQ(answer.status, 404);
  EXPECT_THAT(answer.body, HasSubstr("--control advise"));
  EXPECT_EQ(Post("/admin/plan", "{}").status, 405);
}

TEST_F(AdminRoutesTest, ADrainAndItsUndoing) {
  const HttpResponse answer = Post("/v1/workers/decode-0/drain", R"({"grace_s":2.5,"force":true})");
  EXPECT_EQ(answer.status, 202);
  EXPECT_EQ(answer.body, kWorker);
  EXPECT_EQ(Post("/v1/workers/decode-0/drain", R"({"undo":true})").status, 202);
  EXPECT_EQ(Post("/v1/workers/decode-0/drain", "").status, 202) << "all fields have defaults";
  const std::vector<DutyChange> duties = dispatcher_.duties();
  ASSERT_EQ(duties.size(), 3u);
  EXPECT_EQ(duties[0].worker, "decode-0");
  EXPECT_FALSE(duties[0].role);
  EXPECT_FALSE(duties[0].takes_work);
  EXPECT_EQ(duties[0].grace, std::chrono::milliseconds(2500));
  EXPECT_TRUE(duties[0].force);
  EXPECT_TRUE(duties[1].takes_work);
  EXPECT_FALSE(duties[1].force);
  EXPECT_FALSE(duties[2].takes_work);
  EXPECT_EQ(duties[2].grace, std::chrono::seconds(30));
}

TEST_F(AdminRoutesTest, ARole) {
  EXPECT_EQ(Post("/v1/workers/decode-0/role", R"({"role":"prefill"})").status, 202);
  const std::vector<DutyChange> duties = dispatcher_.duties();
  ASSERT_EQ(duties.size(), 1u);
  EXPECT_EQ(duties[0].role, worker_link::Role::kPrefill);
  EXPECT_TRUE(duties[0].takes_work);
}

TEST_F(AdminRoutesTest, WhatHasNoSenseIsRefusedAndNobodyIsTold) {
  struct Case {
    const char* target;
    const char* body;
    int status;
    const char* text;
  };
  for (const Case& one : {
           Case{"/v1/workers/d/drain", "{", 400, "JSON"},
           Case{"/v1/workers/d/drain", R"({"grace":1})", 400,
                "unknown field 'grace'; did you mean 'grace_s'?"},
           Case{"/v1/workers/d/drain", R"({"role":"decode"})", 400, "unknown field 'role'"},
           Case{"/v1/workers/d/drain", R"({"grace_s":-1})", 400, "'grace_s' is -1"},
           Case{"/v1/workers/d/drain", R"({"grace_s":1e9})", 400, "must be in [0, 86400]"},
           Case{"/v1/workers/d/drain", R"({"undo":1})", 400, "'undo' must be"},
           Case{"/v1/workers/d/role", "{}", 400, "'role' must be prefill or decode, not ''"},
           Case{"/v1/workers/d/role", R"({"role":"both"})", 400, "not 'both'"},
           Case{"/v1/workers/d/restart", "{}", 404, "has no '/v1/workers/d/restart'"},
           Case{"/v1/workers", "{}", 405, "only GET"},
       }) {
    SCOPED_TRACE(one.body);
    const HttpResponse answer = Post(one.target, one.body);
    EXPECT_EQ(answer.status, one.status);
    EXPECT_THAT(answer.body, HasSubstr(one.text));
  }
  EXPECT_EQ(Post("/v1/workers/d/drain", "{}", "text/plain").status, 415);
  EXPECT_EQ(Get("/v1/workers/d/drain").headers, "Allow: POST\r\n");
  EXPECT_TRUE(dispatcher_.duties().empty());
}

TEST_F(AdminRoutesTest, WhatTheRouterRefusesKeepsItsReason) {
  struct Case {
    absl::Status status;
    int http;
    const char* code;
  };
  for (const Case& one : {Case{absl::NotFoundError("why"), 404, "unknown_worker"},
                          Case{absl::FailedPreconditionError("why"), 409, "last_worker"},
                          Case{absl::UnavailableError("why"), 503, "unavailable"},
                          Case{absl::InvalidArgumentError("why"), 400, "null"}}) {
    dispatcher_.AnswerDuty(one.status);
    const HttpResponse answer = Post("/v1/workers/decode-0/drain", "{}");
    EXPECT_EQ(answer.status, one.http);
    EXPECT_THAT(answer.body, HasSubstr("why"));
    EXPECT_THAT(answer.body, HasSubstr(one.code));
  }
}

}  // namespace
}  // namespace baton::router
