// What the HTTP front end tells of its calls: ids, traces, and those that become no request.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "router/telemetry.h"
#include "tests/router/http_test_server.h"

namespace baton::router {
namespace {

constexpr char kTrace[] = "0af7651916cd43dd8448eb211c80319c";
constexpr char kTraceHeaders[] =
    "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n"
    "tracestate: a=1\r\nX-Request-Id: my/call-1\r\n";

class HttpTelemetryTest : public testing::Test {
 protected:
  HttpTelemetryTest() {
    HttpOptions options;
    options.telemetry = telemetry_.get();
    server_ = Serve(&dispatcher_, options);
  }
  TestResponse Post(std::string_view path, std::string_view body, std::string_view headers = "") {
    HttpTestClient client(server_->address());
    client.SendPost(path, body, headers);
    return client.Read();
  }
  // The only one that was told.
  RequestRecord Only() {
    const std::vector<RecordPtr> all = telemetry_->Refused();
    EXPECT_EQ(all.size(), 1u);
    return all.empty() ? RequestRecord{} : *all[0];
  }

  const std::unique_ptr<Telemetry> telemetry_ = *Telemetry::Create({});
  ScriptedDispatcher dispatcher_;
  std::unique_ptr<HttpServer> server_;
};

TEST_F(HttpTelemetryTest, ASoundRequestIdIsKeptAndAnotherIsNot) {
  const TestResponse kept = Post(kChatPath, kBody, "X-Request-Id: my/call-1\r\n");
  EXPECT_EQ(kept.headers.at("x-request-id"), "my/call-1");
  EXPECT_NE(kept.body.find("\"chatcmpl-my/call-1\""), std::string::npos);
  EXPECT_EQ(dispatcher_.WaitForInputs(1)[0].call->request_id, "my/call-1");
  const TestResponse made = Post(kChatPath, kStreamBody, "X-Request-Id: a <b>\r\n");
  EXPECT_EQ(made.headers.at("x-request-id").size(), 18u) << made.headers.at("x-request-id");
  EXPECT_EQ(HttpTestClient(server_->address()).Get("/health").headers.count("x-request-id"), 1u);
}

TEST_F(HttpTelemetryTest, ATraceGoesInAndOut) {
  const TestResponse answer = Post(kChatPath, kStreamBody, kTraceHeaders);
  const std::string traceparent = answer.headers.at("traceparent");
  const auto parsed = ParseTraceparent(traceparent);
  ASSERT_TRUE(parsed) << traceparent;
  EXPECT_EQ(traceparent.substr(3, 32), kTrace);
  EXPECT_NE(parsed->span, 0xb7ad6b7169203331u);
  EXPECT_TRUE(parsed->sampled);
  const auto call = dispatcher_.WaitForInputs(1)[0].call;
  EXPECT_EQ(call->trace.span, parsed->span);
  EXPECT_EQ(call->trace.parent, 0xb7ad6b7169203331u);
  EXPECT_EQ(call->trace.state, "a=1");
  EXPECT_EQ(call->endpoint, kChatPath);
  EXPECT_EQ(call->client, "127.0.0.1");
  EXPECT_GT(call->arrival_us, 1'700'000'000'000'000);
  EXPECT_EQ(Post(kChatPath, kBody).headers.count("traceparent"), 0u) << "nobody wants one";
  EXPECT_EQ(Post(kChatPath, kBody, "traceparent: nonsense\r\n").headers.count("traceparent"), 0u);
}

TEST_F(HttpTelemetryTest, ChoicesAreNumbered) {
  Post(kChatPath, R"({"n":2,"messages":[{"role":"user","content":"hi"}]})");
  const auto inputs = dispatcher_.WaitForInputs(2);
  EXPECT_EQ(inputs[0].choice, 0);
  EXPECT_EQ(inputs[1].choice, 1);
  EXPECT_EQ(inputs[0].call, inputs[1].call);
  EXPECT_TRUE(telemetry_->Refused().empty()) << "requests tell of themselves";
  EXPECT_TRUE(telemetry_->Recent().empty());
}

TEST_F(HttpTelemetryTest, WhatIsRefusedByTheHeadersIsTold) {
  dispatcher_.set_room(absl::ResourceExhaustedError("there are 7 requests already"));
  EXPECT_EQ(Post(std::string(kChatPath) + "?a=b", kBody, kTraceHeaders).status, 429);
  const RequestRecord record = Only();
  EXPECT_EQ(record.http_status, 429);
  EXPECT_EQ(record.status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(record.status.message(), "there are 7 requests already");
  EXPECT_EQ(record.call->request_id, "my/call-1");
  EXPECT_EQ(record.call->endpoint, kChatPath);
  EXPECT_EQ(TraceIdText(record.call->trace), kTrace);
  EXPECT_EQ(record.id, "");
}

TEST_F(HttpTelemetryTest, WhatIsRefusedByTheBodyIsTold) {
  EXPECT_EQ(Post(kChatPath, R"({"messages":[],"top_p":7})").status, 400);
  const RequestRecord record = Only();
  EXPECT_EQ(record.http_status, 400);
  EXPECT_EQ(record.status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(record.stages.Has(Stage::kEnded));
}

TEST_F(HttpTelemetryTest, WhatTheDispatcherRefusesIsTold) {
  dispatcher_.RefuseAfter(0, absl::UnavailableError("no worker"));
  EXPECT_EQ(Post(kChatPath, kBody).status, 503);
  EXPECT_EQ(Only().http_status, 503);
}

TEST_F(HttpTelemetryTest, CallsWithoutAWorkerAreTold) {
  EXPECT_EQ(Post("/tokenize", R"({"prompt":"hi"})").status, 200);
  EXPECT_EQ(Only().http_status, 200);
  EXPECT_EQ(Only().call->endpoint, "/tokenize");
}

TEST_F(HttpTelemetryTest, WhatIsNotUnderstoodIsToldAndWhatIsOnlyLookedAtIsNot) {
  HttpTestClient client(server_->address());
  EXPECT_EQ(client.Get("/health").status, 200);
  EXPECT_EQ(client.Get("/metrics").status, 200);
  EXPECT_TRUE(telemetry_->Refused().empty());
  EXPECT_EQ(client.Get("/v1/nothing").status, 404);
  EXPECT_EQ(Only().call->endpoint, "/v1/nothing");
  HttpTestClient other(server_->address());
  other.Send("hello\r\n\r\n");
  EXPECT_EQ(other.Read().status, 400);
  EXPECT_EQ(telemetry_->Refused().size(), 2u);
  EXPECT_EQ(telemetry_->Refused()[0]->call->endpoint, "");
  EXPECT_EQ(telemetry_->Refused()[0]->http_status, 400);
}

}  // namespace
}  // namespace baton::router
