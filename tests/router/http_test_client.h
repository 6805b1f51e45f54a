#pragma once

// A small blocking HTTP client over a plain socket, so that tests can send what no library would.

#include <map>
#include <optional>
#include <string>
#include <string_view>

namespace baton::router {

struct TestResponse {
  int status = 0;                              // 0: the connection ended before a whole answer
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;                            // chunks joined
};

class HttpTestClient {
 public:
  explicit HttpTestClient(const std::string& address);  // "127.0.0.1:port"
  ~HttpTestClient();
  HttpTestClient(const HttpTestClient&) = delete;
  HttpTestClient& operator=(const HttpTestClient&) = delete;

  bool Send(std::string_view bytes);  // false: the connection is broken
  // A POST of JSON, with `headers` ("Name: value\r\n") added.
  bool SendPost(std::string_view path, std::string_view body, std::string_view headers = "");
  bool SendGet(std::string_view path);
  TestResponse Read(bool head_only = false);
  // Both at once.
  TestResponse Post(std::string_view path, std::string_view body);
  TestResponse Get(std::string_view path);

  // Reads until `text` has come, or the end; what came before and with it. Not to be mixed with
  // Read.
  std::string ReadUntil(std::string_view text);
  bool AtEnd();  // the server has closed
  void Close();
  void SetReceiveBuffer(int bytes);

 private:
  bool Fill();  // more bytes into buffer_
  std::optional<std::string> TakeLine();
  std::optional<std::string> Take(size_t bytes);

  int socket_ = -1;
  std::string buffer_;
};

}  // namespace baton::router
