// HTTP connections: requests in pieces and sent ahead, clients that leave, that are slow, or that
// send what is not HTTP.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "router/http_response.h"
#include "router/wake_batch.h"
#include "tests/router/http_test_server.h"

namespace baton::router {
namespace {

using testing::HasSubstr;

class HttpSessionTest : public testing::Test {
 protected:
  ScriptedDispatcher dispatcher_;
  std::unique_ptr<HttpServer> server_ = Serve(&dispatcher_);
  HttpTestClient client_{server_->address()};
};

TEST_F(HttpSessionTest, PipelinedRequestsAreAnsweredInOrder) {
  std::string requests;
  for (int i = 0; i < 50; ++i) {
    const std::string body = R"({"prompt":"p)" + std::to_string(i) + "\"}";
    requests += "POST /v1/completions HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n";
    requests += "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
    requests += "GET /v1/models/" + std::to_string(i) + " HTTP/1.1\r\nHost: t\r\n\r\n";
  }
  // In two parts, so that one request comes in pieces.
  client_.Send(requests.substr(0, requests.size() / 2 + 7));
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  client_.Send(requests.substr(requests.size() / 2 + 7));
  for (int i = 0; i < 50; ++i) {
    const TestResponse completion = client_.Read();
    ASSERT_EQ(completion.status, 200) << i;
    ASSERT_THAT(completion.body, HasSubstr("Hello, world"));
    const TestResponse model = client_.Read();
    ASSERT_EQ(model.status, 404);
    ASSERT_THAT(model.body, HasSubstr("no model '" + std::to_string(i) + "'"));
  }
  const std::vector<GenerateInput> inputs = dispatcher_.WaitForInputs(50);
  for (size_t i = 0; i < inputs.size(); ++i) {
    EXPECT_EQ(std::get<std::string>(inputs[i].prompt), "p" + std::to_string(i));
  }
}

TEST_F(HttpSessionTest, AnAnnouncedEndIsToldWithTheNextAnswer) {
  EXPECT_EQ(client_.Get("/health").headers.at("connection"), "keep-alive");
  server_->AnnounceEnd();
  const TestResponse last = client_.Post(kChatPath, kBody);
  EXPECT_EQ(last.status, 200) << "an idle connection is not closed under a request";
  EXPECT_EQ(last.headers.at("connection"), "close");
  EXPECT_TRUE(client_.AtEnd());
  HttpTestClient late(server_->address());
  EXPECT_EQ(late.Get("/health").status, 200) << "there are new connections still";
}

TEST(HttpSession, AtItsEndAnswersGoOutWholeAndIdleConnectionsAreClosed) {
  Gate gate;
  ScriptedDispatcher dispatcher([&](const Submission& submission) {
    submission.sink.on_delta(TextDelta(0, "first"));
    gate.Wait();
    submission.sink.on_delta(TextDelta(1, "last"));
    submission.sink.on_finish(TestFinish(2));
  });
  const auto server = Serve(&dispatcher);
  HttpTestClient idle(server->address());
  idle.Get("/health");
  HttpTestClient streaming(server->address());
  streaming.SendPost(kChatPath, kStreamBody);
  streaming.ReadUntil("first");
  server->EndConnections(std::chrono::milliseconds(1));  // nobody is cut off
  EXPECT_TRUE(idle.AtEnd());
  gate.Open();
  EXPECT_THAT(streaming.ReadUntil("[DONE]"), HasSubstr("last"));
  streaming.Close();
  server->EndConnections(std::chrono::hours(1));  // over when nobody is left
}

TEST(HttpSession, RequestSentDuringAStreamIsAnsweredAfterIt) {
  Gate gate;
  ScriptedDispatcher dispatcher([&](const Submission& submission) {
    submission.sink.on_delta(TextDelta(0, "first"));
    gate.Wait();
    submission.sink.on_finish(TestFinish(1));
  });
  const auto server = Serve(&dispatcher);
  HttpTestClient client(server->address());
  client.SendPost(kChatPath, kStreamBody);
  client.ReadUntil("first");
  client.SendGet("/health");
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  gate.Open();
  EXPECT_EQ(client.Read().status, 200);
  EXPECT_EQ(client.Read().body, R"({"status":"ok"})");
  EXPECT_EQ(dispatcher.cancelled_count(), 0u);
}

TEST(HttpSession, MoreStreamsThanAreServedAtATimeAllGetTheirPieces) {
  constexpr size_t kStreams = 50;
  std::vector<Submission> open;
  ScriptedDispatcher dispatcher([&](const Submission& submission) {
    open.push_back(submission);
    if (open.size() < kStreams) return;
    for (int32_t step = 0; step < 20; ++step) {
      const WakeBatch batch;
      for (const Submission& one : open) one.sink.on_delta(TextDelta(step, "t"));
    }
    const WakeBatch batch;
    for (const Submission& one : open) one.sink.on_finish(TestFinish(20));
  });
  HttpOptions options;
  options.threads = 1;
  const auto server = Serve(&dispatcher, options);
  std::vector<std::unique_ptr<HttpTestClient>> clients;
  for (size_t i = 0; i < kStreams; ++i) {
    clients.push_back(std::make_unique<HttpTestClient>(server->address()));
    clients.back()->SendPost(kChatPath, kStreamBody);
  }
  for (const auto& client : clients) {
    const TestResponse answer = client->Read();
    ASSERT_EQ(answer.status, 200);
    EXPECT_TRUE(answer.body.ends_with("data: [DONE]\n\n"));
    size_t pieces = 0;
    for (size_t at = 0; (at = answer.body.find("\"content\":\"", at)) != std::string::npos; ++at) {
      const size_t text = at + std::string_view("\"content\":\"").size();
      pieces += answer.body.find('"', text) - text;
    }
    EXPECT_EQ(pieces, 20u) << answer.body;
  }
}

TEST(HttpResponse, FramesAStreamsBytes) {
  const auto framed = [](bool chunked, bool last, const std::string& bytes) {
    std::string piece = std::string(kChunkHeadBytes, '\0') + bytes;
    return std::string(FrameStreamBytes(chunked, last, &piece));
  };
  EXPECT_EQ(framed(true, false, "abc"), "3\r\nabc\r\n");
  EXPECT_EQ(framed(true, true, std::string(255, 'x')),
            "ff\r\n" + std::string(255, 'x') + "\r\n0\r\n\r\n");
  EXPECT_EQ(framed(false, false, "abc"), "abc");
  EXPECT_EQ(framed(false, true, "abc"), "abc") << "the connection's end is the stream's";
}

TEST_F(HttpSessionTest, Http10AndClose) {
  client_.Send(
      "POST /v1/chat/completions HTTP/1.0\r\nContent-Type: application/json\r\n"
      "Content-Length: " +
      std::to_string(sizeof(kStreamBody) - 1) + "\r\n\r\n" + kStreamBody);
  const TestResponse stream = client_.Read();  // no chunks: until the end of the connection
  EXPECT_FALSE(stream.headers.contains("transfer-encoding"));
  EXPECT_TRUE(stream.body.ends_with("data: [DONE]\n\n"));
  HttpTestClient other(server_->address());
  other.Send("GET /health HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
  EXPECT_EQ(other.Read().headers.at("connection"), "close");
  EXPECT_TRUE(other.AtEnd());
}

TEST_F(HttpSessionTest, ChunkedBodyAndExpectContinue) {
  client_.Send(
      "POST /v1/chat/completions HTTP/1.1\r\nHost: t\r\nExpect: 100-Continue\r\n"
      "Content-Type: application/json; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n");
  EXPECT_EQ(client_.Read().status, 100);
  for (const char c : std::string_view(kBody)) client_.Send(std::string("1\r\n") + c + "\r\n");
  client_.Send("0\r\n\r\n");
  EXPECT_EQ(client_.Read().status, 200);
  client_.SendPost(kChatPath, kBody, "Expect: 200-ok\r\n");
  EXPECT_EQ(client_.Read().status, 417);
}

TEST_F(HttpSessionTest, UnsoundHttpIsRefusedAndClosed) {
  const auto refused = [this](const std::string& request, int status) {
    SCOPED_TRACE(request.substr(0, 100));
    HttpTestClient client(server_->address());
    client.Send(request);
    EXPECT_EQ(client.Read().status, status);
    EXPECT_TRUE(client.AtEnd());
  };
  refused("nonsense\r\n\r\n", 400);
  refused("GET /health HTTP/3.7\r\n\r\n", 400);
  refused("GET /health HTTP/1.1\r\nBroken Header: x\r\n\r\n", 400);
  refused("GET /health HTTP/1.1\r\nX: " + std::string(20000, 'a') + "\r\n\r\n", 431);
  // What request smuggling is made of.
  const std::string post = "POST /v1/completions HTTP/1.1\r\nHost: t\r\n";
  refused(post + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400);
  refused(post + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef", 400);
  refused(post + "Content-Length: -1\r\n\r\n", 400);
  refused(post + "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400);
}

// What runs until it is cancelled, token by token.
void TalkUntilCancelled(const Submission& submission, std::atomic<bool>& stop) {
  for (int32_t i = 0; !stop; ++i) {
    submission.sink.on_delta(TextDelta(i, "token "));
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

TEST(HttpSession, ClosingMidStreamCancels) {
  std::atomic<bool> stop = false;
  ScriptedDispatcher dispatcher(
      [&](const Submission& submission) { TalkUntilCancelled(submission, stop); });
  const auto server = Serve(&dispatcher);
  {
    HttpTestClient client(server->address());
    client.SendPost(kChatPath, kStreamBody);
    client.ReadUntil("\"content\":\"token \"");
  }
  EXPECT_TRUE(dispatcher.WaitForCancel(1));
  stop = true;
}

TEST(HttpSession, ClosingWhileWaitingCancels) {
  ScriptedDispatcher dispatcher([](const Submission&) {});
  const auto server = Serve(&dispatcher);
  {
    HttpTestClient client(server->address());
    client.SendPost(kChatPath, R"({"n":2,"messages":[{"role":"user","content":"hi"}]})");
    EXPECT_EQ(dispatcher.WaitForInputs(2).size(), 2u);
  }
  EXPECT_TRUE(dispatcher.WaitForCancel(1));
  EXPECT_TRUE(dispatcher.WaitForCancel(2));
}

TEST(HttpSession, ClientThatDoesNotReadIsCutOff) {
  std::atomic<bool> stop = false;
  ScriptedDispatcher dispatcher([&](const Submission& submission) {
    const std::string piece(64 << 10, 'x');
    for (int32_t i = 0; !stop; ++i) {
      submission.sink.on_delta(TextDelta(i, piece));
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  });
  HttpOptions options;
  options.max_outgoing_bytes = 1 << 20;
  const auto server = Serve(&dispatcher, options);
  HttpTestClient client(server->address());
  client.SetReceiveBuffer(4096);
  client.SendPost(kChatPath, kStreamBody);
  EXPECT_TRUE(dispatcher.WaitForCancel(1));
  stop = true;
  HttpTestClient other(server->address());
  EXPECT_THAT(other.Get("/metrics").body, HasSubstr("baton_http_slow_clients_total 1\n"));
}

TEST(HttpSession, ClientThatNeverReadsTheEndIsCutOff) {
  ScriptedDispatcher dispatcher([&](const Submission& submission) {
    submission.sink.on_delta(TextDelta(0, std::string(16 << 20, 'x')));
  });
  HttpOptions options;
  options.write_timeout = std::chrono::milliseconds(100);
  const auto server = Serve(&dispatcher, options);
  HttpTestClient client(server->address());
  client.SetReceiveBuffer(4096);
  client.SendPost(kChatPath, kStreamBody);
  EXPECT_TRUE(dispatcher.WaitForCancel(1));
}

TEST(HttpSession, RequestsThatDoNotArriveTimeOut) {
  ScriptedDispatcher dispatcher;
  HttpOptions options;
  options.read_timeout = std::chrono::milliseconds(150);
  options.idle_timeout = std::chrono::milliseconds(300);
  const auto server = Serve(&dispatcher, options);
  HttpTestClient slow_header(server->address());
  slow_header.Send("POST /v1/chat/completions HTTP/1.1\r\nHos");
  EXPECT_EQ(slow_header.Read().status, 408);
  EXPECT_TRUE(slow_header.AtEnd());
  HttpTestClient slow_body(server->address());
  slow_body.Send(
      "POST /v1/chat/completions HTTP/1.1\r\nContent-Type: application/json\r\n"
      "Content-Length: 100\r\n\r\n{");
  EXPECT_EQ(slow_body.Read().status, 408);
  HttpTestClient silent(server->address());
  EXPECT_TRUE(silent.AtEnd()) << "an idle connection is closed without a word";
}

TEST(HttpSession, ErrorBeforeTheFirstTokenHasItsStatus) {
  ScriptedDispatcher dispatcher([](const Submission& submission) {
    submission.sink.on_error(absl::UnavailableError("no decode worker within 5 s"));
  });
  const auto server = Serve(&dispatcher);
  HttpTestClient client(server->address());
  const TestResponse response = client.Post(kChatPath, kStreamBody);
  EXPECT_EQ(response.status, 503);
  EXPECT_EQ(response.headers.at("retry-after"), "1");
  EXPECT_EQ(client.Get("/health").status, 200);
}

TEST(HttpSession, ErrorInAStreamIsItsLastEvent) {
  Gate gate;
  ScriptedDispatcher dispatcher([&](const Submission& submission) {
    submission.sink.on_delta(TextDelta(0, "some"));
    gate.Wait();
    submission.sink.on_error(absl::DeadlineExceededError("took longer than 600 s"));
  });
  const auto server = Serve(&dispatcher);
  HttpTestClient client(server->address());
  client.SendPost(kChatPath, kStreamBody);
  client.ReadUntil("some");
  gate.Open();
  const TestResponse response = client.Read();
  EXPECT_EQ(response.status, 200);
  EXPECT_TRUE(response.body.ends_with(
      "data: {\"error\":{\"message\":\"took longer than 600 s\",\"type\":\"server_error\","
      "\"param\":null,\"code\":\"deadline_exceeded\"}}\n\n"))
      << response.body;
  EXPECT_TRUE(client.AtEnd());
}

}  // namespace
}  // namespace baton::router
