#pragma once

// UCX active messages with peer error mode and nothing else: what the UCX transport could reach. No
// offers, no checksums, no copy after the arrival; one message for each piece, each received
// straight to its place. Sizes choose between eager messages and rendezvous, as UCX does.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace baton::bench {

struct RawPiece {
  size_t offset = 0;  // in both slabs
  size_t bytes = 0;
};

// Has a thread that sleeps while nothing comes.
class RawUcxReceiver {
 public:
  // Pieces go into `slab`, which outlives it. Unavailable without UCX, or where `tls` does not
  // work.
  static absl::StatusOr<std::unique_ptr<RawUcxReceiver>> Start(const std::string& tls,
                                                               std::span<std::byte> slab);
  virtual ~RawUcxReceiver() = default;
  virtual std::string address() const = 0;
};

class RawUcxSender {
 public:
  static absl::StatusOr<std::unique_ptr<RawUcxSender>> Connect(const std::string& tls,
                                                               const std::string& address);
  virtual ~RawUcxSender() = default;
  // Sends the pieces of `slab` and returns when the receiver has told that all are there.
  // DeadlineExceeded when it does not within 30 s; Unavailable when it is gone.
  virtual absl::Status Send(std::span<const std::byte> slab,
                            const std::vector<RawPiece>& pieces) = 0;
};

}  // namespace baton::bench
