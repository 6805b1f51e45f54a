#include "kernels/cpu/cpu_ops.h"

#include <fmt/format.h>

#include "common/status_macros.h"
#include "kernels/cpu/cpu_isa.h"

namespace baton::kernels {
namespace {

// Below this many numbers a loop is over before another thread has begun.
constexpr int64_t kNumbersWorthAThread = 16384;

// Rows of `cols` numbers that one thread should take at a time.
int64_t RowGrain(int64_t cols) { return std::max<int64_t>(1, kNumbersWorthAThread / cols); }

}  // namespace

CpuOps::CpuOps(const IsaKernels& isa, int32_t threads, int32_t max_rows, std::vector<int32_t> cpus)
    : isa_(isa),
      max_rows_(max_rows),
      pool_(threads, std::move(cpus)),
      panel_scratch_(int64_t{threads} * kPanelScratchBytes) {}

std::string CpuOps::Describe() const {
  const bool vnni = isa_.bf16_activations;
  return fmt::format("cpu {}{}, {} thread{}", isa_.name, vnni ? "-vnni-bf16" : "", pool_.threads(),
                     pool_.threads() == 1 ? "" : "s");
}

void CpuOps::Embed(const Matrix& table, std::span<const TokenId> tokens, float* out) {
  pool_.PinCaller();  // a step begins here; loading is any thread's
  const auto& matrix = static_cast<const PanelMatrix&>(table);
  pool_.ParallelFor(std::ssize(tokens), 8, [&](int64_t begin, int64_t end, int32_t) {
    for (int64_t r = begin; r < end; ++r) matrix.DecodeRow(tokens[r], out + r * matrix.cols());
  });
}

void CpuOps::RmsNorm(const float* x, const float* weight, int32_t rows, int32_t cols, float epsilon,
                     float* out) {
  pool_.ParallelFor(rows, RowGrain(cols), [&](int64_t begin, int64_t end, int32_t) {
    for (int64_t r = begin; r < end; ++r) {
      isa_.rms_norm_row(x + r * cols, weight, cols, epsilon, out + r * cols);
    }
  });
}

void CpuOps::SwiGlu(const float* gate, const float* up, int32_t rows, int32_t cols, float* out) {
  const int64_t count = int64_t{rows} * cols;
  pool_.ParallelFor(count, kNumbersWorthAThread, [&](int64_t begin, int64_t end, int32_t) {
    isa_.swiglu(gate + begin, up + begin, end - begin, out + begin);
  });
}

absl::StatusOr<std::unique_ptr<Ops>> CreateCpuOps(const CpuOptions& options) {
  BATON_ASSIGN_OR_RETURN(const CpuIsa isa, ResolveCpuIsa(options.isa));
  constexpr int32_t kMaxThreads = 1024;
  if (options.threads < 0 || options.threads > kMaxThreads || options.max_rows < 1) {
    return absl::InvalidArgumentError(
        fmt::format("{} threads (0..{}) and {} rows (1 or more) cannot be", options.threads,
                    kMaxThreads, options.max_rows));
  }
  const int32_t threads = options.threads > 0 ? options.threads : UsableCpus();
  std::vector<int32_t> cpus;
  if (options.pin_threads) {
    cpus = AllowedCpus();
    if (std::ssize(cpus) < threads) {
      return absl::InvalidArgumentError(
          fmt::format("{} threads cannot be pinned to {} CPUs", threads, cpus.size()));
    }
  }
  return std::make_unique<CpuOps>(KernelsOf(isa), threads, options.max_rows, std::move(cpus));
}

}  // namespace baton::kernels
