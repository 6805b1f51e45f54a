#include <gtest/gtest.h>

#include "tests/kv_transfer/handoff_harness.h"

namespace baton::kv_transfer {

std::vector<TestedTransport> TestedTransports() {
  return {{"Shm", TransportKind::kShm, "shm"},
          {"Ucx", TransportKind::kUcx, "ucx tcp"},
          {.name = "UcxPosix",
           .kind = TransportKind::kUcx,
           .moved_by = "ucx posix,self",
           .ucx_tls = "posix,self"},
          {"Auto", TransportKind::kAuto, "shm"}};
}

}  // namespace baton::kv_transfer
