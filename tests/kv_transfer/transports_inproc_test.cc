#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/kv_transfer/handoff_harness.h"

// Statuses go between threads, and their reference counts are in a library that ThreadSanitizer
// does not see into: it would take the last owner's delete for a race with an earlier owner's read.
extern "C" const char* __tsan_default_suppressions();
extern "C" const char* __tsan_default_suppressions() {
  return "called_from_lib:libabsl_status.so\n";
}

namespace baton::kv_transfer {

std::vector<TestedTransport> TestedTransports() {
  return {{"Inproc", TransportKind::kInproc, "inproc"},
          {"InprocPull", TransportKind::kAuto, "inproc pull", /*inproc_pull=*/true},
          {.name = "NcclInMemory",
           .kind = TransportKind::kNccl,
           .moved_by = "nccl",
           .memory_gpus = true}};
}

namespace {

using ::testing::HasSubstr;

TEST(TransportKindTest, HasNames) {
  EXPECT_EQ(*TransportKindFromName("auto"), TransportKind::kAuto);
  EXPECT_EQ(*TransportKindFromName("shm"), TransportKind::kShm);
  EXPECT_EQ(*TransportKindFromName("ucx"), TransportKind::kUcx);
  EXPECT_EQ(*TransportKindFromName("inproc"), TransportKind::kInproc);
  EXPECT_EQ(*TransportKindFromName("nccl"), TransportKind::kNccl);
  EXPECT_THAT(TransportKindFromName("pigeon").status().ToString(),
              HasSubstr("no transport 'pigeon'"));
}

// Where it can be had, tests over real GPUs run (nccl_transport_test.cc).
TEST(TransportKindTest, NcclThatCannotBeHadIsRefusedWithTheReason) {
  if (OpenGpu(0).ok()) GTEST_SKIP() << "there is a GPU";
  const auto service =
      HandoffService::Create(SmallOptions(TransportKind::kNccl), "w", [](HandoffEvent) {});
  EXPECT_THAT(service.status().ToString(), HasSubstr("transport nccl: "));
  EXPECT_THAT(service.status().ToString(), HasSubstr("auto, shm and ucx do without"));
}

#ifndef BATON_HAVE_UCX
TEST(UcxTest, IsUnavailableWithTheReason) {
  for (const auto kind : {TransportKind::kAuto, TransportKind::kShm, TransportKind::kUcx}) {
    const auto service = HandoffService::Create(SmallOptions(kind), "w", [](HandoffEvent) {});
    EXPECT_EQ(service.status().code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(service.status().ToString(), HasSubstr("libucx-dev"));
  }
}
#endif

}  // namespace
}  // namespace baton::kv_transfer
