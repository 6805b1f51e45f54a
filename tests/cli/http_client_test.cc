#include "cli/http_client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/write.hpp>
#include <string>
#include <thread>
#include <vector>

namespace baton::cli {
namespace {

namespace asio = boost::asio;

// Answers one connection with fixed bytes, then closes it.
class OneAnswer {
 public:
  explicit OneAnswer(std::string bytes)
      : acceptor_(context_, {asio::ip::address_v4::loopback(), 0}), thread_([this, bytes] {
          asio::ip::tcp::socket socket(context_);
          acceptor_.accept(socket);
          char request[4096];
          boost::system::error_code error;
          received_.assign(request, socket.read_some(asio::buffer(request), error));
          asio::write(socket, asio::buffer(bytes), error);
        }) {}
  ~OneAnswer() {
    if (thread_.joinable()) thread_.join();
  }
  HttpUrl url() const { return {"127.0.0.1", std::to_string(acceptor_.local_endpoint().port())}; }
  const std::string& Received() {
    thread_.join();
    return received_;
  }

 private:
  asio::io_context context_;
  asio::ip::tcp::acceptor acceptor_;
  std::string received_;
  std::thread thread_;
};

absl::Status Post(const HttpUrl& url, std::string* body) {
  return PostJson(url, "/path", "{}", std::chrono::seconds(20),
                  [body](std::string_view bytes) { body->append(bytes); });
}

TEST(PostJson, GivesTheBodyOfAChunkedAnswer) {
  OneAnswer server(
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n "
      "world\r\n0\r\n\r\n");
  std::string body;
  EXPECT_TRUE(Post(server.url(), &body).ok());
  EXPECT_EQ(body, "hello world");
  EXPECT_THAT(server.Received(), testing::HasSubstr("POST /path HTTP/1.1"));
}

TEST(PostJson, RefusalIsAnErrorWithItsBody) {
  OneAnswer server("HTTP/1.1 404 Not Found\r\nContent-Length: 8\r\n\r\nno model");
  std::string body;
  const absl::Status status = Post(server.url(), &body);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("404: no model"));
  EXPECT_EQ(body, "");
}

TEST(PostJson, BrokenAnswersAreErrors) {
  for (const char* answer :
       {"", "not HTTP at all\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort"}) {
    OneAnswer server(answer);
    std::string body;
    EXPECT_EQ(Post(server.url(), &body).code(), absl::StatusCode::kUnavailable) << answer;
  }
}

TEST(ParseUrl, TakesHttpAndHttps) {
  EXPECT_EQ(ParseUrl("http://127.0.0.1:8000")->port, "8000");
  EXPECT_EQ(ParseUrl("http://localhost")->port, "80");
  EXPECT_EQ(ParseUrl("http://[::1]:81")->host, "::1");
  EXPECT_FALSE(ParseUrl("http://localhost")->tls);
  EXPECT_EQ(ParseUrl("https://localhost")->port, "443");
  EXPECT_TRUE(ParseUrl("https://localhost:1")->tls);
  for (const char* bad : {"", "127.0.0.1:8000", "ftp://host", "https://"}) {
    EXPECT_EQ(ParseUrl(bad).status().code(), absl::StatusCode::kInvalidArgument) << bad;
  }
}

TEST(EventStream, FindsDataHoweverTheBytesAreCut) {
  const std::string stream = "data: {\"a\":1}\r\n\r\n: comment\n\ndata: [DONE]\n\n";
  for (size_t cut = 0; cut <= stream.size(); ++cut) {
    std::vector<std::string> data;
    EventStream events([&data](std::string_view d) { data.emplace_back(d); });
    events.Push(std::string_view(stream).substr(0, cut));
    events.Push(std::string_view(stream).substr(cut));
    EXPECT_THAT(data, testing::ElementsAre("{\"a\":1}", "[DONE]")) << "cut at " << cut;
  }
}

}  // namespace
}  // namespace baton::cli
