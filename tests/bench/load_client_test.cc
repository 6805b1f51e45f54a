#include "bench/load_client.h"

#include <gtest/gtest.h>

#include "bench/load_run.h"
#include "tests/bench/load_testing.h"

namespace baton::bench {
namespace {

class LoadClientTest : public testing::Test {
 protected:
  LoadAnswer Ask(const CannedServer& server, Duration timeout = std::chrono::seconds(30)) {
    auto client = LoadClient::Create({.url = server.url(), .timeout = timeout});
    EXPECT_TRUE(client.ok()) << client.status();
    LoadAnswer answer;
    int answers = 0;
    (*client)->Send(PostRequest(server.url(), "/v1/completions", "{}"), SystemClock().Now(),
                    [&](LoadAnswer one) {
                      answer = std::move(one);
                      ++answers;
                    });
    EXPECT_EQ((*client)->open(), 1);
    (*client)->Run();
    EXPECT_EQ(answers, 1);
    EXPECT_EQ((*client)->open(), 0);
    return answer;
  }
};

TEST_F(LoadClientTest, AStreamsPiecesAreTimed) {
  const CannedServer server(
      {kStreamHead, TokenEvent("a"), TokenEvent("b"), TokenEvent("c"), FinishEvent() + kStreamEnd});
  const LoadAnswer answer = Ask(server);
  EXPECT_EQ(answer.end, LoadEnd::kOk) << answer.facts.error;
  EXPECT_EQ(answer.pieces, 3);
  EXPECT_EQ(answer.gaps_s.size(), 2u);
  EXPECT_GE(answer.first_piece, answer.sent);
  EXPECT_GE(answer.ended, answer.first_piece);
}

TEST_F(LoadClientTest, EachKindOfFailureHasItsName) {
  EXPECT_EQ(Ask(CannedServer({"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n"})).end,
            LoadEnd::kStatus);
  EXPECT_EQ(Ask(CannedServer({kStreamHead, TokenEvent("a")})).end, LoadEnd::kBroken);
  EXPECT_EQ(Ask(CannedServer({""})).end, LoadEnd::kBroken);
  EXPECT_EQ(Ask(CannedServer({"nonsense\r\n\r\n"})).end, LoadEnd::kUnsound);
  EXPECT_EQ(Ask(CannedServer({kStreamHead, TokenEvent("a") + kStreamEnd})).end, LoadEnd::kUnsound);
  const std::string error = Chunked("data: {\"error\":{\"message\":\"lost\"}}\n\n");
  const LoadAnswer failed = Ask(CannedServer({kStreamHead, error + kStreamEnd}));
  EXPECT_EQ(failed.end, LoadEnd::kError);
  EXPECT_EQ(failed.facts.error, "lost");
}

TEST_F(LoadClientTest, ASilentServerIsATimeOut) {
  const CannedServer server({kStreamHead, TokenEvent("a")}, /*stay_open=*/true);
  EXPECT_EQ(Ask(server, std::chrono::milliseconds(50)).end, LoadEnd::kTimeout);
}

TEST_F(LoadClientTest, NobodyListeningIsAnErrorAtOnce) {
  LoadUrl url;
  {
    const CannedServer server({});
    url = server.url();
  }
  EXPECT_EQ(LoadClient::Create({.url = url}).status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(LoadClientTest, ConnectionsAreUsedAgain) {
  const CannedServer server({kStreamHead, TokenEvent("a"), FinishEvent() + kStreamEnd},
                            /*stay_open=*/true);
  const auto client = LoadClient::Create({.url = server.url()});
  ASSERT_TRUE(client.ok());
  const int before = server.connections();
  int64_t ok = 0;
  const LoadSource source{
      [&](int64_t) { return PostRequest(server.url(), "/v1/completions", "{}"); },
      [&](int64_t, const LoadAnswer& answer) { ok += answer.end == LoadEnd::kOk ? 1 : 0; },
      nullptr};
  RunClosedLoad(client->get(), 20, 2, source);
  EXPECT_EQ(ok, 20);
  EXPECT_LE(server.connections() - before, 3);  // one may be the look whether it is there
}

TEST_F(LoadClientTest, AGetGivesTheBody) {
  const CannedServer server({"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"});
  const auto client = LoadClient::Create({.url = server.url()});
  ASSERT_TRUE(client.ok());
  absl::StatusOr<std::string> body;
  (*client)->Get("/metrics", [&](absl::StatusOr<std::string> got) { body = std::move(got); });
  (*client)->Run();
  ASSERT_TRUE(body.ok()) << body.status();
  EXPECT_EQ(*body, "hello");
}

TEST(LoadUrlTest, UrlsAreTakenApart) {
  const auto url = ParseLoadUrl("http://[::1]:8000/serve/v1/");
  ASSERT_TRUE(url.ok());
  EXPECT_EQ(url->host, "::1");
  EXPECT_EQ(url->port, "8000");
  EXPECT_EQ(url->path, "/serve");
  EXPECT_EQ(ParseLoadUrl("http://example.org")->port, "80");
  for (const char* bad :
       {"ftp://a:1", "a:1", "http://", "http://:1", "http://a:x", "http://a b"}) {
    EXPECT_FALSE(ParseLoadUrl(bad).ok()) << bad;
  }
}

}  // namespace
}  // namespace baton::bench
