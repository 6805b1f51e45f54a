// Stands in for raw_ucx.cc where UCX was not found at build time.

#include "bench/raw_ucx.h"

namespace baton::bench {
namespace {

absl::Status Absent() { return absl::UnavailableError("Baton was built without UCX"); }

}  // namespace

absl::StatusOr<std::unique_ptr<RawUcxReceiver>> RawUcxReceiver::Start(const std::string&,
                                                                      std::span<std::byte>) {
  return Absent();
}

absl::StatusOr<std::unique_ptr<RawUcxSender>> RawUcxSender::Connect(const std::string&,
                                                                    const std::string&) {
  return Absent();
}

}  // namespace baton::bench
