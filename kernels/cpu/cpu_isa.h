#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "kernels/cpu/isa_kernels.h"
#include "kernels/ops.h"

namespace baton::kernels {

// The instruction set to run: `wanted`, or for kAuto the best that the machine has.
// FailedPrecondition when the machine or the build lacks `wanted`. For AMX it asks the system once
// to let this process, all its threads, use tile registers. Thread-safe.
absl::StatusOr<CpuIsa> ResolveCpuIsa(CpuIsa wanted);

// "portable", "avx2", "avx512", "amx"
std::string_view CpuIsaName(CpuIsa isa);

// Of an instruction set that the machine has.
const IsaKernels& KernelsOf(CpuIsa isa);

}  // namespace baton::kernels
