#include "bench/device_bench.h"

#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

namespace baton::bench {
namespace {

class DeviceBenchTest : public testing::Test {
 protected:
  absl::Status Run(const std::string& filter) {
    rows_.clear();
    const auto ops = kernels::CreateCudaOps({.max_rows = 64});  // emulated
    EXPECT_TRUE(ops.ok()) << ops.status();
    DeviceBenchOptions options;
    options.filter = filter;
    options.repeats = {.count = 1, .round_ms = 0};
    options.calls = 1;
    options.divisor = 512;
    return RunDeviceBench(ops->get(), options,
                          [this](const KernelRow& row) { rows_.push_back(row); });
  }
  std::vector<KernelRow> rows_;
};

TEST_F(DeviceBenchTest, MeasuresEveryOpAgainstACeiling) {
  ASSERT_TRUE(Run("").ok());
  std::set<std::string> names;
  for (const KernelRow& row : rows_) {
    names.insert(row.name);
    EXPECT_GT(row.value, 0) << row.name << " " << row.shape;
    ASSERT_TRUE(row.ceiling.has_value()) << row.name;
    EXPECT_GT(*row.ceiling, 0);
  }
  EXPECT_EQ(names, (std::set<std::string>{"ceiling", "matmul", "attention_decode",
                                          "attention_prefill", "rms_norm", "draw"}));
}

TEST_F(DeviceBenchTest, TheFilterChoosesAndIsChecked) {
  ASSERT_TRUE(Run("^draw .* greedy").ok());
  EXPECT_EQ(rows_.size(), 3u) << "two ceilings, and it";
  EXPECT_EQ(Run("nothing").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Run("(").code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace baton::bench
