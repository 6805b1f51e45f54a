#include "engine/kv_probe.h"

#include <gtest/gtest.h>

#include "kernels/cpu/cpu_isa.h"
#include "tests/engine/engine_testing.h"
#include "tests/engine/tiny_model.h"

namespace baton::engine {
namespace {

uint64_t Probe(LocalEngine& engine) {
  const absl::StatusOr<uint64_t> probe = ProbeKv(&engine.executor());
  BATON_CHECK(probe.ok(), probe.status().ToString());
  return *probe;
}

TEST(KvProbe, IsTheSameForTheSameArithmeticHoweverItIsCut) {
  const auto file = OpenTiny({});
  const auto engine = LoadEngine(*file, {});
  const uint64_t probe = Probe(*engine);
  EXPECT_EQ(Probe(*engine), probe);
  EXPECT_EQ(Probe(*LoadEngine(*file, {.threads = 1, .max_rows = 5, .max_logit_rows = 5})), probe);
  EXPECT_EQ(Probe(*LoadEngine(*file, {.block_count = 4})), probe);
}

TEST(KvProbe, DiffersWhereArithmeticDoes) {
  const auto file = OpenTiny({});
  const uint64_t probe = Probe(*LoadEngine(*file, {}));
  EXPECT_NE(Probe(*LoadEngine(*file, {.reference_ops = true})), probe);
  if (*kernels::ResolveCpuIsa(kernels::CpuIsa::kAuto) != kernels::CpuIsa::kPortable) {
    EXPECT_NE(Probe(*LoadEngine(*file, {.isa = kernels::CpuIsa::kPortable})), probe);
  }
  EXPECT_NE(Probe(*LoadEngine(*file, {.kv_dtype = kernels::KvDType::kBF16})), probe);
}

TEST(KvProbe, LeavesNothingInThePool) {
  const auto engine = LoadEngine(*OpenTiny({}), {});
  Probe(*engine);
  const BlockCounts counts = engine->executor().pool().counts();
  EXPECT_EQ(counts.free, counts.total);
}

}  // namespace
}  // namespace baton::engine
