#pragma once

// Ids of calls, for clients that give none: "0123456789abcdef-17", unique over servers and
// restarts.

#include <fmt/format.h>

#include <atomic>
#include <cstdint>
#include <string>

#include "common/ids.h"

namespace baton::router {

// Thread-safe.
class CallIds {
 public:
  std::string Next() { return fmt::format("{:016x}-{}", incarnation_, next_++); }

 private:
  const uint64_t incarnation_ = RandomU64();
  std::atomic<uint64_t> next_{1};
};

}  // namespace baton::router
