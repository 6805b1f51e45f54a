#include "kernels/cpu/cpu_isa.h"

#include <algorithm>
#include <array>
#include <string>

#include <fmt/format.h>
#include <fmt/ranges.h>

#if defined(__x86_64__)
#include <asm/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace baton::kernels {
namespace {

constexpr std::array<std::string_view, 5> kNames = {"auto", "portable", "avx2", "avx512", "amx"};

#if defined(__x86_64__)
// Linux gives a process the 8 KiB of state only on request, and not while a thread has a signal
// stack too small for it.
bool TilesArePermitted() {
  constexpr int kTileData = 18;  // the state component
  static const bool permitted = syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, kTileData) == 0;
  return permitted;
}

bool ProcessorHasAmx() {
  return __builtin_cpu_supports("amx-tile") && __builtin_cpu_supports("amx-int8") &&
         __builtin_cpu_supports("amx-bf16");
}
#endif

bool MachineHas(CpuIsa isa) {
#if defined(__x86_64__)
  switch (isa) {
    case CpuIsa::kAmx:
      return MachineHas(CpuIsa::kAvx512) && ProcessorHasAmx() && TilesArePermitted();
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

std::string WhyAbsent(CpuIsa isa) {
  if (isa == CpuIsa::kAvx512) return "this machine has no avx512 with VNNI and BF16";
  if (isa != CpuIsa::kAmx) return fmt::format("this machine has no {}", CpuIsaName(isa));
#if defined(__x86_64__)
  if (ProcessorHasAmx() && MachineHas(CpuIsa::kAvx512)) {
    return "this machine has amx, but the system does not let this process use tile registers";
  }
#endif
  return "this machine has no amx with INT8 and BF16, or no avx512 with VNNI and BF16";
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
    for (const CpuIsa isa : {CpuIsa::kAmx, CpuIsa::kAvx512, CpuIsa::kAvx2}) {
      if (MachineHas(isa)) return isa;
    }
    return CpuIsa::kPortable;
  }
  if (!MachineHas(wanted)) return absl::FailedPreconditionError(WhyAbsent(wanted));
  return wanted;
}

const IsaKernels& KernelsOf(CpuIsa isa) {
#if defined(__x86_64__)
  if (isa == CpuIsa::kAmx) return amx::GetIsaKernels();
  if (isa == CpuIsa::kAvx512) return avx512::GetIsaKernels();
  if (isa == CpuIsa::kAvx2) return avx2::GetIsaKernels();
#endif
  static_cast<void>(isa);
  return portable::GetIsaKernels();
}

}  // namespace baton::kernels
