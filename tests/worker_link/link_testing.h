#pragma once

// What the tests of both ends of the link share: the real server and client over loopback.

#include <gtest/gtest.h>

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "worker_link/client.h"
#include "worker_link/server.h"

namespace baton::worker_link {

inline constexpr Duration kGenerous = std::chrono::seconds(20);

// Collects what a callback was given; tests take it out in order.
template <typename T>
class Mailbox {
 public:
  void Put(T item) {
    const std::lock_guard lock(mutex_);
    items_.push_back(std::move(item));
    changed_.notify_all();
  }
  std::optional<T> Take(Duration timeout = kGenerous) {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, timeout, [this] { return !items_.empty(); })) return std::nullopt;
    T item = std::move(items_.front());
    items_.pop_front();
    return item;
  }
  // The next item of one kind; others before it are dropped.
  template <typename Kind>
  std::optional<Kind> Next() {
    while (std::optional<T> item = Take()) {
      if (auto* kind = std::get_if<Kind>(&*item)) return std::move(*kind);
    }
    return std::nullopt;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<T> items_;
};

inline WorkerInfo Info() {
  return {.name = "decode-0",
          .role = Role::kDecode,
          .model = "m",
          .fingerprint = "f",
          .vocab_size = 100,
          .context_tokens = 64,
          .block_tokens = 16,
          .handoff_address = "here",
          .incarnation = 42};
}

inline std::unique_ptr<LinkServer> Serve(Mailbox<LinkInput>* inputs, const std::string& address) {
  auto server = LinkServer::Create(address, Info(), [inputs](LinkInput input) {
    inputs->Put(std::move(input));
    return true;
  });
  EXPECT_TRUE(server.ok()) << server.status();
  return server.ok() ? *std::move(server) : nullptr;
}

inline std::unique_ptr<LinkClient> Connect(Mailbox<ClientInput>* inputs,
                                           const std::string& address) {
  return LinkClient::Create(address, "router-0",
                            [inputs](ClientInput input) { inputs->Put(std::move(input)); });
}

inline Attempt AttemptOf(uint64_t number) {
  return {.request = {.high = 1, .low = number}, .epoch = 0};
}

inline DecodeCommand Decode(uint64_t number) {
  DecodeCommand command;
  command.attempt = AttemptOf(number);
  command.prompt = {1, 2, 3};
  command.timeout = std::chrono::seconds(5);
  return command;
}

}  // namespace baton::worker_link
