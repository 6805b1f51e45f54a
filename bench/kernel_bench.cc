#include "bench/kernel_bench.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <regex>
#include <utility>
#include <vector>

#include "bench/kernel_cases.h"
#include "bench/roofline.h"
#include "common/clock.h"
#include "common/status_macros.h"

namespace baton::bench {
namespace {

std::string FullName(const KernelCase& kernel) {
  return fmt::format("{} {} {}", kernel.name, kernel.shape, kernel.type);
}

absl::StatusOr<std::vector<KernelCase>> Select(const std::string& filter) {
  std::vector<KernelCase> all = AllKernelCases();
  if (filter.empty()) return all;
  std::regex expression;
  try {
    expression.assign(filter);
  } catch (const std::regex_error& error) {
    return absl::InvalidArgumentError(
        fmt::format("the filter '{}' is no regular expression: {}", filter, error.what()));
  }
  std::vector<KernelCase> selected;
  std::vector<std::string> names;
  for (const KernelCase& kernel : all) {
    if (std::ranges::find(names, kernel.name) == names.end()) names.push_back(kernel.name);
    if (std::regex_search(FullName(kernel), expression)) selected.push_back(kernel);
  }
  if (!selected.empty()) return selected;
  return absl::InvalidArgumentError(
      fmt::format("the filter '{}' matches none of {} measurements, such as '{}'; kernels are {}",
                  filter, all.size(), FullName(all.front()), fmt::join(names, ", ")));
}

// What is read from DRAM is compared with what DRAM gives at that time.
absl::StatusOr<KernelRow> Measure(const KernelCase& kernel, const KernelContext& context,
                                  const Repeats& repeats, DramProbe* dram) {
  BATON_ASSIGN_OR_RETURN(const PreparedCase prepared, kernel.prepare(context));
  const Work& work = prepared.work;
  Ceilings ceilings = *context.ceilings;
  std::vector<double> dram_gb_s;
  std::function<void()> between;
  if (!work.told_in_ops && ceilings.ComesFromDram(work.working_set_bytes)) {
    between = [&] { dram_gb_s.push_back(dram->ReadGbS()); };
  }
  const double seconds = MedianSeconds(repeats, prepared.run, between);
  if (!dram_gb_s.empty()) ceilings.dram_read_gb_s = Median(std::move(dram_gb_s));
  const Reached reached = Reach(work, ceilings, seconds);
  return KernelRow{kernel.name,      kernel.shape,  kernel.type,
                   ceilings.threads, reached.value, std::string(reached.unit),
                   reached.ceiling};
}

}  // namespace

std::vector<KernelCase> AllKernelCases() {
  std::vector<KernelCase> all;
  for (const auto& part : {MatMulCases(), AttentionCases(), ElementwiseCases(), ConvertCases()}) {
    all.insert(all.end(), part.begin(), part.end());
  }
  return all;
}

absl::Status RunKernelBench(const KernelBenchOptions& options,
                            const std::function<void(const KernelRow&)>& on_row) {
  BATON_ASSIGN_OR_RETURN(std::vector<KernelCase> cases, Select(options.filter));
  const auto tell = [&](const std::string& name) {
    if (options.progress) options.progress(name);
  };
  tell("ceilings");
  CeilingOptions ceiling_options = options.ceilings;
  ceiling_options.threads = options.threads;
  ceiling_options.isa = options.isa;
  ceiling_options.stop = options.stop;
  BATON_ASSIGN_OR_RETURN(Ceilings ceilings, MeasureCeilings(ceiling_options));
  BATON_ASSIGN_OR_RETURN(const std::unique_ptr<DramProbe> dram, MakeDramProbe(ceiling_options));
  TimePoint measured = SystemClock().Now();

  // As much as the probe of DRAM reads: caches keep a little even of this, and equally much.
  const int64_t cycle_bytes =
      options.cycle_bytes > 0 ? options.cycle_bytes : ceilings.dram_buffer_bytes;
  const auto new_ops = [&] {
    return kernels::CreateCpuOps({options.threads, options.isa, kMaxRows});
  };
  const KernelContext context{new_ops, &ceilings, cycle_bytes};
  for (KernelCase& next : cases) {
    BATON_RETURN_IF_ERROR(CheckStop(options.stop));
    const KernelCase kernel = std::exchange(next, {});  // drops its matrices when it is done
    if (Seconds(SystemClock().Now() - measured) > options.ceilings_age_s) {
      tell("ceilings");
      BATON_RETURN_IF_ERROR(MeasureAgain(ceiling_options, &ceilings));
      measured = SystemClock().Now();
    }
    tell(FullName(kernel));
    BATON_ASSIGN_OR_RETURN(const KernelRow row,
                           Measure(kernel, context, options.repeats, dram.get()));
    on_row(row);
  }
  for (const KernelRow& row : CeilingRows(ceilings)) on_row(row);
  return absl::OkStatus();
}

}  // namespace baton::bench
