#pragma once

// A server that gives every request the same bytes, for tests of clients.

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "bench/load_client.h"
#include "common/status_macros.h"

namespace baton::bench {

inline constexpr char kStreamHead[] =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
inline constexpr char kStreamEnd[] = "0\r\n\r\n";

inline std::string Chunked(const std::string& bytes) {
  char size[16];
  std::snprintf(size, sizeof(size), "%zx\r\n", bytes.size());
  return size + bytes + "\r\n";
}
inline std::string TokenEvent(const std::string& text) {
  return Chunked("data: {\"choices\":[{\"text\":\"" + text + "\",\"finish_reason\":null}]}\n\n");
}
inline std::string FinishEvent() {
  return Chunked("data: {\"choices\":[{\"text\":\"\",\"finish_reason\":\"length\"}]}\n\n");
}

// Writes `pieces` one by one for each request that it reads (whatever it is), then closes the
// connection unless it is to stay open for the next.
class CannedServer {
 public:
  explicit CannedServer(std::vector<std::string> pieces, bool stay_open = false)
      : pieces_(std::move(pieces)), stay_open_(stay_open) {
    listener_ = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof(address);
    BATON_CHECK(bind(listener_, reinterpret_cast<sockaddr*>(&address), size) == 0 &&
                    listen(listener_, 64) == 0 &&
                    getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) == 0,
                "loopback is there");
    url_ = {"127.0.0.1", std::to_string(ntohs(address.sin_port)), ""};
    acceptor_ = std::thread([this] { Accept(); });
  }
  ~CannedServer() {
    stopping_ = true;
    acceptor_.join();
    for (std::thread& thread : threads_) thread.join();
    close(listener_);
  }
  CannedServer(const CannedServer&) = delete;
  CannedServer& operator=(const CannedServer&) = delete;

  const LoadUrl& url() const { return url_; }
  int connections() const { return connections_; }

 private:
  bool Readable(int fd) const {
    pollfd wait{.fd = fd, .events = POLLIN};
    while (!stopping_) {
      if (poll(&wait, 1, 10) > 0) return true;
    }
    return false;
  }
  void Accept() {
    while (Readable(listener_)) {
      const int fd = accept(listener_, nullptr, nullptr);
      ++connections_;
      threads_.emplace_back([this, fd] { Serve(fd); });
    }
  }
  void Serve(int fd) const {
    char request[4096];
    while (Readable(fd) && read(fd, request, sizeof(request)) > 0) {
      for (const std::string& piece : pieces_) {
        if (send(fd, piece.data(), piece.size(), MSG_NOSIGNAL) < 0) break;
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
      if (!stay_open_) break;
    }
    close(fd);
  }

  const std::vector<std::string> pieces_;
  const bool stay_open_;
  int listener_ = -1;
  LoadUrl url_;
  std::atomic<bool> stopping_{false};
  std::atomic<int> connections_{0};
  std::vector<std::thread> threads_;  // the acceptor's
  std::thread acceptor_;
};

}  // namespace baton::bench
