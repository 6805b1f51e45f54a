#include "tests/router/http_test_client.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cctype>
#include <cstdlib>

namespace baton::router {

HttpTestClient::HttpTestClient(const std::string& address) {
  const size_t colon = address.rfind(':');
  sockaddr_in target{};
  target.sin_family = AF_INET;
  target.sin_port = htons(static_cast<uint16_t>(std::atoi(address.c_str() + colon + 1)));
  inet_pton(AF_INET, address.substr(0, colon).c_str(), &target.sin_addr);
  socket_ = socket(AF_INET, SOCK_STREAM, 0);
  const timeval patience{.tv_sec = 20, .tv_usec = 0};
  setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  setsockopt(socket_, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
  if (connect(socket_, reinterpret_cast<sockaddr*>(&target), sizeof(target)) != 0) Close();
}

HttpTestClient::~HttpTestClient() { Close(); }

void HttpTestClient::Close() {
  if (socket_ >= 0) close(socket_);
  socket_ = -1;
}

void HttpTestClient::SetReceiveBuffer(int bytes) {
  setsockopt(socket_, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes));
}

bool HttpTestClient::Send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
  return true;
}

bool HttpTestClient::SendPost(std::string_view path, std::string_view body,
                              std::string_view headers) {
  std::string request = "POST ";
  request.append(path).append(" HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n");
  request.append(headers);
  request.append("Content-Length: ").append(std::to_string(body.size())).append("\r\n\r\n");
  request.append(body);
  return Send(request);
}

bool HttpTestClient::SendGet(std::string_view path) {
  return Send("GET " + std::string(path) + " HTTP/1.1\r\nHost: test\r\n\r\n");
}

TestResponse HttpTestClient::Post(std::string_view path, std::string_view body) {
  SendPost(path, body);
  return Read();
}

TestResponse HttpTestClient::Get(std::string_view path) {
  SendGet(path);
  return Read();
}

bool HttpTestClient::Fill() {
  char bytes[65536];
  const ssize_t received = recv(socket_, bytes, sizeof(bytes), 0);
  if (received <= 0) return false;
  buffer_.append(bytes, static_cast<size_t>(received));
  return true;
}

std::optional<std::string> HttpTestClient::TakeLine() {
  size_t end = 0;
  while ((end = buffer_.find("\r\n")) == std::string::npos) {
    if (!Fill()) return std::nullopt;
  }
  std::string line = buffer_.substr(0, end);
  buffer_.erase(0, end + 2);
  return line;
}

std::optional<std::string> HttpTestClient::Take(size_t bytes) {
  while (buffer_.size() < bytes) {
    if (!Fill()) return std::nullopt;
  }
  std::string taken = buffer_.substr(0, bytes);
  buffer_.erase(0, bytes);
  return taken;
}

TestResponse HttpTestClient::Read(bool head_only) {
  TestResponse response;
  const auto status_line = TakeLine();
  if (!status_line || !status_line->starts_with("HTTP/1.1 ")) return {};
  while (true) {
    const auto line = TakeLine();
    if (!line) return {};
    if (line->empty()) break;
    const size_t colon = line->find(": ");
    if (colon == std::string::npos) return {};
    std::string name = line->substr(0, colon);
    for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    response.headers[name] = line->substr(colon + 2);
  }
  if (response.headers.contains("transfer-encoding")) {
    while (true) {
      const auto size = TakeLine();
      if (!size) return {};
      const auto bytes = static_cast<size_t>(std::strtoul(size->c_str(), nullptr, 16));
      const auto chunk = Take(bytes + 2);
      if (!chunk || !chunk->ends_with("\r\n")) return {};
      if (bytes == 0) break;
      response.body.append(*chunk, 0, bytes);
    }
  } else if (response.headers.contains("content-length") && !head_only) {
    const auto body = Take(std::strtoul(response.headers["content-length"].c_str(), nullptr, 10));
    if (!body) return {};
    response.body = *body;
  } else if (!head_only && status_line->find(" 100 ") == std::string::npos) {
    while (Fill()) continue;
    response.body.swap(buffer_);
  }
  response.status = std::atoi(status_line->c_str() + 9);
  return response;
}

std::string HttpTestClient::ReadUntil(std::string_view text) {
  while (buffer_.find(text) == std::string::npos) {
    if (!Fill()) break;
  }
  return buffer_;
}

bool HttpTestClient::AtEnd() {
  char byte = 0;
  return buffer_.empty() && recv(socket_, &byte, 1, 0) <= 0;
}

}  // namespace baton::router
