#include "discovery/dns_watch.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netdb.h>

#include <condition_variable>
#include <mutex>
#include <set>
#include <thread>
#include <utility>

#include "common/logging.h"

namespace baton::discovery {

absl::StatusOr<std::vector<std::string>> LookUp(const HostPort& name) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int error = getaddrinfo(name.host.c_str(), nullptr, &hints, &found);
  if (error != 0) {
    const bool none = error == EAI_NONAME || error == EAI_NODATA;
    return absl::Status(none ? absl::StatusCode::kNotFound : absl::StatusCode::kUnavailable,
                        fmt::format("{}: {}", name.host, gai_strerror(error)));
  }
  std::set<std::string> addresses;
  for (const addrinfo* each = found; each != nullptr; each = each->ai_next) {
    char text[INET6_ADDRSTRLEN];
    if (each->ai_family == AF_INET) {
      const auto* const v4 = reinterpret_cast<const sockaddr_in*>(each->ai_addr);
      inet_ntop(AF_INET, &v4->sin_addr, text, sizeof(text));
      addresses.insert(fmt::format("{}:{}", text, name.port));
    } else if (each->ai_family == AF_INET6) {
      const auto* const v6 = reinterpret_cast<const sockaddr_in6*>(each->ai_addr);
      inet_ntop(AF_INET6, &v6->sin6_addr, text, sizeof(text));
      addresses.insert(fmt::format("[{}]:{}", text, name.port));
    }
  }
  freeaddrinfo(found);
  return std::vector<std::string>(addresses.begin(), addresses.end());
}

// A look-up cannot be interrupted, so the thread is let go with all that it needs.
struct DnsWatch::Shared {
  HostPort name;
  Duration period{};
  Lookup look_up;

  std::mutex mutex;
  std::condition_variable wake;
  bool stopping = false;
  std::function<void()> on_change;  // called with the mutex, so that the destructor waits for it
  std::vector<std::string> addresses;
  SourceState state;
};

DnsWatch::DnsWatch(HostPort name, Duration period, std::function<void()> on_change, Lookup look_up)
    : shared_(std::make_shared<Shared>()) {
  shared_->name = std::move(name);
  shared_->period = period;
  shared_->look_up = std::move(look_up);
  shared_->on_change = std::move(on_change);
  std::thread([shared = shared_] { Run(shared); }).detach();
}

DnsWatch::~DnsWatch() {
  const std::lock_guard lock(shared_->mutex);
  shared_->stopping = true;
  shared_->wake.notify_all();
}

std::vector<std::string> DnsWatch::Addresses() const {
  const std::lock_guard lock(shared_->mutex);
  return shared_->addresses;
}

SourceState DnsWatch::state() const {
  const std::lock_guard lock(shared_->mutex);
  SourceState state = shared_->state;
  state.workers = shared_->addresses.size();
  return state;
}

void DnsWatch::Run(const std::shared_ptr<Shared>& shared) {
  std::unique_lock lock(shared->mutex);
  while (!shared->stopping) {
    lock.unlock();
    absl::StatusOr<std::vector<std::string>> found = shared->look_up(shared->name);
    lock.lock();
    if (shared->stopping) return;
    const std::string name = shared->name.ToString();
    SourceState& state = shared->state;
    if (found.ok()) {
      if (!state.trouble.empty()) LogInfo(fmt::format("DNS answers for {} again", name));
      state.current = true;
      state.trouble.clear();
      if (*found != shared->addresses) {
        shared->addresses = *std::move(found);
        LogInfo(fmt::format("{} has {} addresses", name, shared->addresses.size()));
        shared->on_change();
      }
    } else {
      ++state.failures;
      state.current = false;
      const std::string before = std::exchange(state.trouble, found.status().ToString());
      if (before != state.trouble) {
        LogError(
            fmt::format("DNS has no answer for {}: {}; going on with the {} addresses known "
                        "last",
                        name, state.trouble, shared->addresses.size()));
      }
    }
    shared->wake.wait_for(lock, shared->period, [&] { return shared->stopping; });
  }
}

}  // namespace baton::discovery
