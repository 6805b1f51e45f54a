#pragma once

// What a step sends to the device, through pinned memory of the host: the device fetches it when it
// comes to it in its stream, and the host does not wait.

#include <cstdint>

#include "absl/status/status.h"

namespace baton::kernels::cuda {

// One device thread.
class Staging {
 public:
  static constexpr int64_t kBytes = int64_t{4} << 20;

  Staging() = default;
  ~Staging();
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  // `from` may be reused at once. Waits for the device where the memory is full of what it may not
  // have fetched yet, and for what is larger than all of it.
  absl::Status Send(void* to, const void* from, int64_t bytes);

 private:
  char* memory_ = nullptr;
  int64_t used_ = 0;
};

}  // namespace baton::kernels::cuda
