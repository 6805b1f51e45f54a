#include "bench/ceilings.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <barrier>
#include <limits>
#include <memory>
#include <thread>
#include <vector>

#include "common/clock.h"
#include "common/status_macros.h"
#include "kernels/cpu/cpu_isa.h"
#include "kernels/cpu/isa_probes.h"
#include "kernels/cpu/large_buffer.h"

namespace baton::bench {
namespace {

using kernels::CpuIsa;
using kernels::IsaProbes;
using kernels::LargeBuffer;

constexpr int64_t kMinDramBytes = int64_t{64} << 20;  // of a thread

const IsaProbes& ProbesOf(CpuIsa isa) {
#if defined(__x86_64__)
  if (isa == CpuIsa::kAmx) return kernels::amx::GetIsaProbes();
  if (isa == CpuIsa::kAvx512) return kernels::avx512::GetIsaProbes();
  if (isa == CpuIsa::kAvx2) return kernels::avx2::GetIsaProbes();
#endif
  static_cast<void>(isa);
  return kernels::portable::GetIsaProbes();
}

absl::Status Check(const CeilingOptions& options) {
  constexpr int32_t kMaxThreads = 1024;
  if (options.threads < 0 || options.threads > kMaxThreads || options.rounds < 1 ||
      options.dram_buffer_bytes < 0) {
    return absl::InvalidArgumentError(
        fmt::format("ceilings cannot be measured with {} threads (0..{}), {} rounds (1 or more) "
                    "and a buffer of {} bytes",
                    options.threads, kMaxThreads, options.rounds, options.dram_buffer_bytes));
  }
  return absl::OkStatus();
}

// Eight times the L3 caches hide what these keep. Of hundreds of MiB, that is too long to read, and
// three times as much must do.
int64_t DramBufferBytes(int64_t l3_bytes, int32_t threads) {
  constexpr int64_t kMaxPlentyBytes = int64_t{1} << 30;
  return std::max({threads * kMinDramBytes, std::min(8 * l3_bytes, kMaxPlentyBytes), 3 * l3_bytes});
}

// With what the machine decides filled in.
absl::StatusOr<CeilingOptions> Resolve(CeilingOptions options) {
  BATON_RETURN_IF_ERROR(Check(options));
  if (options.threads == 0) options.threads = kernels::UsableCpus();
  BATON_ASSIGN_OR_RETURN(options.isa, kernels::ResolveCpuIsa(options.isa));
  if (options.dram_buffer_bytes == 0) {
    options.dram_buffer_bytes = DramBufferBytes(ReadCacheSizes().l3_bytes, options.threads);
  }
  return options;
}

// What a thread does in a round; made by the thread itself, so that its memory is near it.
using Round = std::function<void()>;
using MakeRound = std::function<Round()>;

// The shortest time in which all threads, begun together, did one round.
absl::StatusOr<double> BestRoundSeconds(const CeilingOptions& options, const MakeRound& make) {
  std::barrier barrier(options.threads);
  std::atomic<bool> stopped{false};
  double best = std::numeric_limits<double>::infinity();
  const auto work = [&](bool first) {
    const Round round = make();
    for (int32_t i = 0; i < options.rounds; ++i) {
      if (first && options.stop && options.stop()) stopped = true;
      barrier.arrive_and_wait();  // wakes all
      if (stopped) return;
      // Before the others can begin: this thread may be held up, and must not miss their work.
      const TimePoint start = SystemClock().Now();
      barrier.arrive_and_wait();
      round();
      barrier.arrive_and_wait();
      if (first) best = std::min(best, Seconds(SystemClock().Now() - start));
    }
  };
  std::vector<std::thread> others;
  for (int32_t i = 1; i < options.threads; ++i) others.emplace_back(work, false);
  work(true);
  for (std::thread& thread : others) thread.join();
  if (stopped) return absl::CancelledError("interrupted");
  return best;
}

// How often `round` fits into a round's time.
int64_t TimesIn(double round_ms, const Round& round) {
  round();
  const TimePoint start = SystemClock().Now();
  round();
  const double seconds = std::max(Seconds(SystemClock().Now() - start), 1e-9);
  return std::clamp<int64_t>(static_cast<int64_t>(round_ms * 1e-3 / seconds), 1, 1 << 20);
}

constexpr ReadPattern kCachePatterns[] = {{1, 0}, {4, 0}};

// Of caches.
absl::StatusOr<double> ReadGbS(const CeilingOptions& options, const IsaProbes& probes,
                               int64_t thread_bytes) {
  const int64_t bytes = std::max(thread_bytes / kReadUnit, int64_t{1}) * kReadUnit;
  double best_gb_s = 0;
  for (const ReadPattern& pattern : kCachePatterns) {
    const auto read = [&](const LargeBuffer& buffer) {
      static std::atomic<uint64_t> result;
      result = probes.read(buffer.data(), bytes, pattern.streams, pattern.ahead_bytes);
    };
    const LargeBuffer sample(static_cast<size_t>(bytes));
    const int64_t times = TimesIn(options.round_ms, [&] { read(sample); });
    BATON_ASSIGN_OR_RETURN(const double seconds, BestRoundSeconds(options, [&]() -> Round {
                             const auto buffer =
                                 std::make_shared<LargeBuffer>(static_cast<size_t>(bytes));
                             return [&, buffer] {
                               for (int64_t i = 0; i < times; ++i) read(*buffer);
                             };
                           }));
    const double all_bytes = static_cast<double>(options.threads * times * bytes);
    best_gb_s = std::max(best_gb_s, all_bytes / seconds * 1e-9);
  }
  return best_gb_s;
}

absl::Status MeasureDram(const CeilingOptions& options, Ceilings* ceilings) {
  BATON_ASSIGN_OR_RETURN(const std::unique_ptr<DramProbe> probe, MakeDramProbe(options));
  for (int32_t i = 0; i < options.rounds; ++i) {
    BATON_RETURN_IF_ERROR(CheckStop(options.stop));
    ceilings->dram_read_gb_s = std::max(ceilings->dram_read_gb_s, probe->ReadGbS());
    ceilings->scattered_read_gb_s =
        std::max(ceilings->scattered_read_gb_s, probe->ScatteredGbS(kScatteredBytes));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::optional<double>> ArithmeticGopS(const CeilingOptions& options,
                                                     const IsaProbes::Arithmetic& arithmetic) {
  if (arithmetic.run == nullptr) return std::nullopt;
  constexpr int64_t kSampleRounds = 1000;
  static std::atomic<float> result;
  const auto run = [&](int64_t rounds) { result = arithmetic.run(rounds); };
  const int64_t rounds = kSampleRounds * TimesIn(options.round_ms, [&] { run(kSampleRounds); });
  BATON_ASSIGN_OR_RETURN(const double seconds, BestRoundSeconds(options, [&]() -> Round {
                           return [&] { run(rounds); };
                         }));
  const double ops = static_cast<double>(options.threads * rounds * arithmetic.round_ops);
  return ops / seconds * 1e-9;
}

}  // namespace

double Ceilings::ReadGbS(int64_t bytes) const {
  if (bytes <= 2 * caches.l2_bytes * threads) return l2_read_gb_s;
  return ComesFromDram(bytes) ? dram_read_gb_s : l3_read_gb_s;
}

void Ceilings::RaiseTo(const Ceilings& later) {
  for (const auto rate :
       {&Ceilings::dram_read_gb_s, &Ceilings::scattered_read_gb_s, &Ceilings::l3_read_gb_s,
        &Ceilings::l2_read_gb_s, &Ceilings::fp32_gop_s}) {
    this->*rate = std::max(this->*rate, later.*rate);
  }
  bf16_gop_s = std::max(bf16_gop_s, later.bf16_gop_s);  // an absent one is the smallest
  int8_gop_s = std::max(int8_gop_s, later.int8_gop_s);
}

absl::StatusOr<std::unique_ptr<DramProbe>> MakeDramProbe(const CeilingOptions& asked) {
  BATON_ASSIGN_OR_RETURN(const CeilingOptions options, Resolve(asked));
  return std::make_unique<DramProbe>(ProbesOf(options.isa), options.threads,
                                     options.dram_buffer_bytes);
}

absl::StatusOr<Ceilings> MeasureCeilings(const CeilingOptions& asked) {
  BATON_ASSIGN_OR_RETURN(const CeilingOptions options, Resolve(asked));
  const IsaProbes& probes = ProbesOf(options.isa);

  Ceilings ceilings;
  ceilings.threads = options.threads;
  ceilings.isa = probes.name;
  ceilings.caches = ReadCacheSizes();
  ceilings.dram_buffer_bytes = options.dram_buffer_bytes;
  const auto [l2_bytes, l3_bytes] = ceilings.caches;
  BATON_RETURN_IF_ERROR(MeasureDram(options, &ceilings));
  BATON_ASSIGN_OR_RETURN(ceilings.l2_read_gb_s, ReadGbS(options, probes, l2_bytes / 2));
  ceilings.l3_read_gb_s = ceilings.dram_read_gb_s;
  if (const int64_t share = l3_bytes / options.threads / 2; share >= 2 * l2_bytes) {
    BATON_ASSIGN_OR_RETURN(ceilings.l3_read_gb_s, ReadGbS(options, probes, share));
  }
  BATON_ASSIGN_OR_RETURN(const std::optional<double> fp32, ArithmeticGopS(options, probes.fp32));
  ceilings.fp32_gop_s = fp32.value_or(0);
  BATON_ASSIGN_OR_RETURN(ceilings.bf16_gop_s, ArithmeticGopS(options, probes.bf16));
  BATON_ASSIGN_OR_RETURN(ceilings.int8_gop_s, ArithmeticGopS(options, probes.int8));
  return ceilings;
}

absl::Status MeasureAgain(const CeilingOptions& options, Ceilings* ceilings) {
  CeilingOptions fewer = options;
  fewer.rounds = std::max(options.rounds / 5, 1);
  BATON_ASSIGN_OR_RETURN(const Ceilings later, MeasureCeilings(fewer));
  ceilings->RaiseTo(later);
  return absl::OkStatus();
}

}  // namespace baton::bench
