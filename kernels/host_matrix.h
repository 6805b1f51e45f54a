#pragma once

#include "absl/status/status.h"
#include "kernels/ops.h"

namespace baton::kernels {

// InvalidArgument, with the numbers, unless rows and cols are positive, cols is a multiple of the
// dtype's block, and data holds exactly rows * cols elements. Cannot overflow.
absl::Status CheckHostMatrix(const HostMatrix& host);

}  // namespace baton::kernels
