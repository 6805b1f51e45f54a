#pragma once

// Who may come in: API keys and their limits, for all front ends.

#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/clock.h"
#include "common/file_watch.h"
#include "router/api_keys.h"
#include "router/dispatcher.h"
#include "router/key_meter.h"

namespace baton::router {

struct KeyGateOptions {
  std::string keys_file;  // "": everybody may come in, without limits
  Duration file_poll = std::chrono::milliseconds(500);
};

// A request of a key, from its admission to its end: it counts as running as long as anybody holds
// it. Thread-safe.
class Visit {
 public:
  Visit(ApiKey key, std::shared_ptr<KeyMeter> meter)
      : key_(std::move(key)), meter_(std::move(meter)) {}
  ~Visit() { meter_->Leave(); }
  Visit(const Visit&) = delete;
  Visit& operator=(const Visit&) = delete;

  const ApiKey& key() const { return key_; }
  void Charge(int64_t tokens, TimePoint now) { meter_->Charge(tokens, now); }
  // The salt of the key's tenant, with the request's own inside: no tenant can make another's.
  std::string CacheSalt(std::string_view own) const;

 private:
  const ApiKey key_;
  const std::shared_ptr<KeyMeter> meter_;
};

// Thread-safe. The keys file is read again when it changes; one that is unsound changes nothing and
// is told in the log.
class KeyGate {
 public:
  // An error when the file cannot be read, or is unsound.
  static absl::StatusOr<std::unique_ptr<KeyGate>> Create(const KeyGateOptions& options);
  ~KeyGate();

  bool open() const { return options_.keys_file.empty(); }

  // `authorization`: the header's value, "Bearer KEY". Unauthenticated without a known key,
  // PermissionDenied for a revoked one.
  absl::Status Check(std::string_view authorization) const;

  // The same, and one more request of that key: ResourceExhausted over one of its limits. Empty
  // when the gate is open.
  absl::StatusOr<std::shared_ptr<Visit>> Enter(std::string_view authorization, TimePoint now);

  // Prometheus text: usage by key.
  std::string MetricsText() const;

 private:
  struct Entry {
    ApiKey key;
    std::shared_ptr<KeyMeter> meter;
  };

  explicit KeyGate(const KeyGateOptions& options)
      : options_(options), watch_({options.keys_file}) {}
  void Take(std::vector<ApiKey> keys, TimePoint now);
  absl::StatusOr<Entry> Find(std::string_view authorization) const;
  void Poll();

  const KeyGateOptions options_;
  FileWatch watch_;           // the poller's, and older than what was read first
  mutable std::mutex mutex_;  // guards the next
  // By digest. A digest says nothing of its key, and nobody can choose a key with a digest near to
  // another's, so how long this search takes tells nothing; the match itself takes equal time.
  std::map<KeyDigest, Entry> entries_;

  std::mutex stop_mutex_;
  std::condition_variable stop_changed_;
  bool stopping_ = false;
  std::thread poller_;
};

// What a front end asks before it does any work for a request: is the key known, would the
// dispatcher take the request, is the key within its limits. A gate that is null is open.
absl::StatusOr<std::shared_ptr<Visit>> ComeIn(KeyGate* gate, const Dispatcher& dispatcher,
                                              std::string_view authorization);

}  // namespace baton::router
