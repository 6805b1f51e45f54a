#pragma once

// What a plan needs to know of the hardware, per chip: what its maker promises, not what is reached
// (planner/cost_model.h has the shares that are).

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace baton::planner {

struct HardwareFacts {
  std::string name;
  double flops_16bit_per_s = 0;  // dense, bf16 (V100: fp16)
  double flops_8bit_per_s = 0;   // dense, fp8 or int8; 0: no faster than 16 bits
  double hbm_bytes = 0;
  double hbm_bytes_per_s = 0;
  // Between chips that may be one worker: what a chip can send along one axis, both ways of a ring
  // together. A switch or a full mesh is one axis.
  double link_bytes_per_s = 0;
  int64_t link_axes = 1;
  int64_t domain_chips = 1;        // joined by such links
  double network_bytes_per_s = 0;  // of a chip to chips of other workers, each way
};

// InvalidArgument names the figure that is missing, not finite or negative.
absl::Status CheckHardwareFacts(const HardwareFacts& hardware);

// By name ("tpu-v5e", "h100"; case, '_' and '.' for '-' do not matter). NotFound names the nearest
// known ones.
absl::StatusOr<HardwareFacts> KnownHardwareFacts(std::string_view name);
std::vector<std::string> KnownHardwareNames();

}  // namespace baton::planner
