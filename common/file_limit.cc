#include "common/file_limit.h"

#include <sys/resource.h>

namespace baton {

int64_t RaiseFileLimit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 0;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);  // to what is allowed, so it cannot fail
  return static_cast<int64_t>(limit.rlim_cur);
}

}  // namespace baton
