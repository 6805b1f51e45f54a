#pragma once

// What the machine says about itself.

#include <cstdint>
#include <string>
#include <string_view>

namespace baton::bench {

struct CacheSizes {
  int64_t l2_bytes = 0;  // of one core
  int64_t l3_bytes = 0;  // of all CPUs together; 0: there is none
};

// Of the CPUs described under `folder`, as Linux does in sysfs. Usual sizes (1 MiB, 32 MiB) where
// nothing is said.
CacheSizes ReadCacheSizes(const std::string& folder = "/sys/devices/system/cpu");

// "32768K" or "1M" in bytes; 0 when it is no size.
int64_t ParseCacheSize(std::string_view text);

// Memory of this process that is in RAM; 0 where the system does not tell.
int64_t ResidentBytes();

}  // namespace baton::bench
