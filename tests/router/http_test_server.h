#pragma once

// An HttpServer on a free port, and what most tests of it send.

#include <gtest/gtest.h>

#include <memory>

#include "router/http_server.h"
#include "tests/router/http_test_client.h"
#include "tests/router/scripted_dispatcher.h"

namespace baton::router {

inline constexpr char kChatPath[] = "/v1/chat/completions";
inline constexpr char kBody[] = R"({"messages":[{"role":"user","content":"hi"}]})";
inline constexpr char kStreamBody[] =
    R"({"stream":true,"messages":[{"role":"user","content":"hi"}]})";

inline std::unique_ptr<HttpServer> Serve(Dispatcher* dispatcher, HttpOptions options = {}) {
  options.address = "127.0.0.1:0";
  auto server = HttpServer::Create(options, dispatcher);
  EXPECT_TRUE(server.ok()) << server.status();
  return *std::move(server);
}

// For scripts that wait until the test lets them go on.
class Gate {
 public:
  void Open() {
    {
      const std::lock_guard lock(mutex_);
      open_ = true;
    }
    changed_.notify_all();
  }
  void Wait() {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::seconds(20), [this] { return open_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool open_ = false;
};

}  // namespace baton::router
