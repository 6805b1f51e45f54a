#include "kernels/cpu/cpu_isa.h"

#include <algorithm>
#include <array>
#include <string>

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace baton::kernels {
namespace {

constexpr std::array<std::string_view, 4> kNames = {"auto", "portable", "avx2", "avx512"};

bool MachineHas(CpuIsa isa) {
#if defined(__x86_64__)
  switch (isa) {
    case CpuIsa::kAvx512:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
             __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bf16");
    case CpuIsa::kAvx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
             __builtin_cpu_supports("f16c");
    case CpuIsa::kPortable:
    case CpuIsa::kAuto:
      return true;
  }
  return false;
#else
  return isa == CpuIsa::kPortable;
#endif
}

}  // namespace

std::string_view CpuIsaName(CpuIsa isa) { return kNames[static_cast<size_t>(isa)]; }

absl::StatusOr<CpuIsa> CpuIsaFromName(std::string_view name) {
  const auto found = std::find(kNames.begin(), kNames.end(), name);
  if (found == kNames.end()) {
    return absl::InvalidArgumentError(
        fmt::format("unknown instruction set '{}': one of {}", name, fmt::join(kNames, ", ")));
  }
  return static_cast<CpuIsa>(found - kNames.begin());
}

absl::StatusOr<CpuIsa> ResolveCpuIsa(CpuIsa wanted) {
  if (wanted == CpuIsa::kAuto) {
    for (const CpuIsa isa : {CpuIsa::kAvx512, CpuIsa::kAvx2}) {
      if (MachineHas(isa)) return isa;
    }
    return CpuIsa::kPortable;
  }
  if (!MachineHas(wanted)) {
    return absl::FailedPreconditionError(
        fmt::format("this machine has no {}{}", CpuIsaName(wanted),
                    wanted == CpuIsa::kAvx512 ? " with VNNI and BF16" : ""));
  }
  return wanted;
}

const IsaKernels& KernelsOf(CpuIsa isa) {
#if defined(__x86_64__)
  if (isa == CpuIsa::kAvx512) return avx512::GetIsaKernels();
  if (isa == CpuIsa::kAvx2) return avx2::GetIsaKernels();
#endif
  static_cast<void>(isa);
  return portable::GetIsaKernels();
}

}  // namespace baton::kernels
