#pragma once

// What one API key has used of its limits.

#include <cstdint>
#include <mutex>
#include <optional>

#include "absl/status/status.h"
#include "common/clock.h"
#include "router/token_bucket.h"

namespace baton::router {

struct KeyLimits {  // 0: none
  double requests_per_second = 0;
  int32_t concurrent_requests = 0;
  int64_t tokens_per_minute = 0;  // prompt and answer
  int64_t tokens_per_day = 0;

  bool operator==(const KeyLimits&) const = default;
};

// Thread-safe; takes the time as an argument.
//
// Requests are taken beforehand. Tokens are taken when they are known: a prompt's when it is
// tokenized, an answer's as they are delivered. A key whose tokens are used up gets no new request
// until they are above zero again; requests that run go on. So a key can overdraw by what its
// concurrent requests generate, and pays that back in time.
class KeyMeter {
 public:
  explicit KeyMeter(const KeyLimits& limits);

  // One more request. ResourceExhausted says which limit, with its numbers and when to come again.
  absl::Status Enter(TimePoint now);
  // It is over.
  void Leave();
  void Charge(int64_t tokens, TimePoint now);
  // After the keys file changed. What was used stays used.
  void SetLimits(const KeyLimits& limits, TimePoint now);

  struct Usage {
    int32_t running = 0;
    uint64_t requests = 0;
    uint64_t refused = 0;
    uint64_t tokens = 0;
  };
  Usage usage() const;

 private:
  absl::Status CheckLocked(TimePoint now);

  mutable std::mutex mutex_;  // guards all below
  KeyLimits limits_;
  std::optional<TokenBucket> requests_;
  std::optional<TokenBucket> minute_;
  std::optional<TokenBucket> day_;
  Usage usage_;
};

}  // namespace baton::router
