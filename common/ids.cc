#include "common/ids.h"

#include <fmt/format.h>
#include <sys/random.h>

#include "common/status_macros.h"

namespace baton {

std::string ToString(const RequestId& id) {
  return fmt::format("{:016x}-{:016x}", id.high, id.low);
}

std::string ToString(const Attempt& attempt) {
  return fmt::format("{}#{}", ToString(attempt.request), attempt.epoch);
}

uint64_t RandomU64() {
  uint64_t value = 0;
  BATON_CHECK(getrandom(&value, sizeof value, 0) == sizeof value, "the kernel gives random bits");
  return value;
}

}  // namespace baton
