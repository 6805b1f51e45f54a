#include "router/admin_server.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/router/http_test_client.h"
#include "tests/router/scripted_dispatcher.h"

namespace baton::router {
namespace {

class AdminServerTest : public testing::Test {
 protected:
  AdminServerTest() : server_(*Create("127.0.0.1:0")) {}

  absl::StatusOr<std::unique_ptr<AdminServer>> Create(const std::string& address) {
    return AdminServer::Create({.address = address, .backend = {.dispatcher = &dispatcher_}});
  }

  ScriptedDispatcher dispatcher_;
  const std::unique_ptr<AdminServer> server_;
};

TEST_F(AdminServerTest, AnswersOneRequestAfterTheOtherOfAConnection) {
  HttpTestClient client(server_->address());
  EXPECT_EQ(client.Get("/health").status, 200);
  const TestResponse worker = client.Get("/v1/workers/decode-0");
  EXPECT_EQ(worker.status, 200);
  EXPECT_EQ(worker.headers.at("content-type"), "application/json");
  EXPECT_NE(worker.body.find(R"("name":"decode-0")"), std::string::npos);
  EXPECT_EQ(client.Post("/v1/workers/decode-0/drain", "{}").status, 202);
  EXPECT_EQ(dispatcher_.duties().size(), 1u);
  EXPECT_TRUE(client.Send("HEAD /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
  EXPECT_EQ(client.Read(/*head_only=*/true).status, 200);
  EXPECT_TRUE(client.AtEnd());
}

TEST_F(AdminServerTest, WhatIsNotHttpOrTooLargeEndsTheConnection) {
  for (const std::string& bytes :
       {std::string("hello\r\n\r\n"),
        "GET /health HTTP/1.1\r\nX: " + std::string(9000, 'x') + "\r\n\r\n",
        std::string("POST /v1/workers/d/drain HTTP/1.1\r\nContent-Length: 70000\r\n\r\n")}) {
    HttpTestClient client(server_->address());
    client.Send(bytes);
    EXPECT_TRUE(client.AtEnd()) << bytes.substr(0, 40);
  }
  EXPECT_EQ(HttpTestClient(server_->address()).Get("/health").status, 200);
}

TEST_F(AdminServerTest, TakesABoundedNumberOfConnections) {
  std::vector<std::unique_ptr<HttpTestClient>> clients;
  for (int i = 0; i < AdminServer::kMaxConnections; ++i) {
    clients.push_back(std::make_unique<HttpTestClient>(server_->address()));
    EXPECT_EQ(clients.back()->Get("/health").status, 200);
  }
  HttpTestClient one_too_many(server_->address());
  EXPECT_TRUE(one_too_many.AtEnd());
  EXPECT_EQ(clients.front()->Get("/health").status, 200);
}

TEST_F(AdminServerTest, ATakenOrUnsoundAddressIsAnErrorThatNamesIt) {
  const auto taken = Create(server_->address());
  EXPECT_EQ(taken.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(taken.status().message().find(server_->address()), absl::string_view::npos);
  for (const char* address : {"8002", "127.0.0.1:", "127.0.0.1:99999", "no.such.host.invalid:1"}) {
    EXPECT_EQ(Create(address).status().code(), absl::StatusCode::kInvalidArgument) << address;
  }
}

}  // namespace
}  // namespace baton::router
