#include "bench/kernel_bench.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <set>
#include <vector>

#include "bench/kernel_cases.h"
#include "bench/roofline.h"
#include "tests/bench/bench_testing.h"

namespace baton::bench {
namespace {

using testing::HasSubstr;
using testing::UnorderedElementsAre;

KernelBenchOptions Quick(const std::string& filter) {
  KernelBenchOptions options;
  options.threads = 2;
  options.filter = filter;
  options.repeats = {.count = 1, .round_ms = 0};
  options.cycle_bytes = 1;
  options.ceilings = QuickCeilings();
  return options;
}

std::vector<KernelRow> Rows(const KernelBenchOptions& options) {
  std::vector<KernelRow> rows;
  const absl::Status status =
      RunKernelBench(options, [&](const KernelRow& row) { rows.push_back(row); });
  EXPECT_TRUE(status.ok()) << status;
  return rows;
}

absl::Status Refusal(const KernelBenchOptions& options) {
  return RunKernelBench(options, [](const KernelRow&) { ADD_FAILURE() << "a row"; });
}

TEST(KernelBenchTest, EveryOpIsMeasured) {
  std::set<std::string> names, types;
  std::set<std::string> rows;
  for (const KernelCase& kernel : AllKernelCases()) {
    names.insert(kernel.name);
    if (kernel.name == "matmul") types.insert(kernel.type);
    EXPECT_TRUE(rows.insert(kernel.name + " " + kernel.shape + " " + kernel.type).second)
        << "two rows cannot be told apart: " << kernel.shape;
  }
  EXPECT_THAT(
      names, UnorderedElementsAre("matmul", "attention_decode", "attention_prefill", "rms_norm",
                                  "swiglu", "rope_and_store_kv", "embed", "copy_kv", "convert_kv"));
  EXPECT_THAT(types, UnorderedElementsAre("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0",
                                          "Q5_1", "Q4_K", "Q5_K", "Q6_K"));
}

TEST(KernelBenchTest, RowsAreSound) {
  const std::vector<KernelRow> rows =
      Rows(Quick("matmul (1|8) x 576 x 1536 (Q|F)|_decode 8 x 1024, 9:3|_prefill 512, 9:3.*F16|"
                 "rms_norm|swiglu|rope|embed .* 576 Q4_1|copy_kv|convert_kv .* 8 > 32"));
  std::set<std::string> names;
  for (const KernelRow& row : rows) {
    SCOPED_TRACE(KernelRowJson(row));
    names.insert(row.name);
    EXPECT_EQ(row.threads, 2);
    EXPECT_TRUE(std::isfinite(row.value));
    EXPECT_GT(row.value, 0);
    if (row.name == "attention_decode" || row.shape.starts_with("1 x 576 x")) {
      EXPECT_EQ(row.unit, "GB/s");
    }
    if (!row.ceiling) continue;
    EXPECT_GT(*row.ceiling, 0);
    EXPECT_DOUBLE_EQ(*row.share(), row.value / *row.ceiling);
  }
  EXPECT_EQ(names.size(), 9 + 4) << "kernels and ceilings";
  EXPECT_EQ(rows.back().name, "ceiling_dot") << "ceilings come last";
}

// With made-up ceilings, so that it does not depend on this machine.
TEST(KernelBenchTest, FewRowsAreBoundByMemoryAndManyByArithmetic) {
  const auto new_ops = [] { return kernels::CreateCpuOps({.threads = 1, .max_rows = kMaxRows}); };
  const Ceilings ceilings = RoundCeilings();
  const KernelContext context{new_ops, &ceilings, /*cycle_bytes=*/40 << 20};
  const std::map<std::string, double> expected = {
      {"1 x 576 x 1536 F32", 10},  // DRAM: the matrices together are larger than twice L3
      {"1 x 576 x 1536 Q4_0", 10},    {"512 x 576 x 1536 F32", 100},
      {"512 x 576 x 1536 BF16", 200}, {"512 x 576 x 1536 Q4_0", 400},
  };
  size_t found = 0;
  for (const KernelCase& kernel : MatMulCases()) {
    const auto ceiling = expected.find(kernel.shape + " " + kernel.type);
    if (ceiling == expected.end()) continue;
    ++found;
    const auto prepared = kernel.prepare(context);
    ASSERT_TRUE(prepared.ok()) << prepared.status();
    EXPECT_DOUBLE_EQ(*Reach(prepared->work, ceilings, 1).ceiling, ceiling->second)
        << ceiling->first;
  }
  EXPECT_EQ(found, expected.size());
}

TEST(KernelBenchTest, TheFilterIsFoundAnywhere) {
  const std::vector<KernelRow> rows = Rows(Quick("norm 1 x"));
  EXPECT_EQ(rows[0].name, "rms_norm");
  EXPECT_EQ(rows[0].shape, "1 x 576");
  EXPECT_EQ(rows[1].shape, "1 x 2048");
  EXPECT_THAT(rows[2].name, HasSubstr("ceiling"));
}

TEST(KernelBenchTest, TellsWhatIsMeasured) {
  KernelBenchOptions options = Quick("rms_norm 1 x 576");
  std::vector<std::string> told;
  options.progress = [&](const std::string& name) { told.push_back(name); };
  options.ceilings_age_s = 0;
  Rows(options);
  EXPECT_THAT(told, testing::ElementsAre("ceilings", "ceilings", "rms_norm 1 x 576 F32"));
}

TEST(KernelBenchTest, RefusesFiltersThatSelectNothing) {
  const absl::Status nothing = Refusal(Quick("matmull"));
  EXPECT_EQ(nothing.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(nothing.message()), HasSubstr("'matmull' matches none of"));
  EXPECT_THAT(std::string(nothing.message()), HasSubstr("rope_and_store_kv"));
  const absl::Status broken = Refusal(Quick("matmul ("));
  EXPECT_EQ(broken.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(broken.message()), HasSubstr("no regular expression"));
}

TEST(KernelBenchTest, AStopCancels) {
  KernelBenchOptions options = Quick("rms_norm");
  int rows = 0;
  options.stop = [&] { return rows == 2; };
  const absl::Status status = RunKernelBench(options, [&](const KernelRow&) { ++rows; });
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(rows, 2);
}

TEST(KernelBenchTest, RefusesThreadsWithoutSense) {
  KernelBenchOptions options = Quick("");
  options.threads = -1;
  EXPECT_EQ(Refusal(options).code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace baton::bench
