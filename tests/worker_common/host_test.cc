#include "worker_common/host.h"

#include <gtest/gtest.h>

#include "kernels/cpu/cpu_isa.h"
#include "tests/worker_common/worker_testing.h"

namespace baton::worker_common {
namespace {

using worker_link::Role;

absl::StatusCode CodeOf(const WorkerOptions& options) {
  return WorkerHost::Create(options, Role::kDecode).status().code();
}

TEST(WorkerHost, HasAPoolOfTheSizeAskedForInTheHandoffSlab) {
  TinyModel model;
  const auto host = WorkerHost::Create(model.Options("w", 9), Role::kDecode);
  ASSERT_TRUE(host.ok()) << host.status();
  engine::BlockPool& pool = (*host)->executor().pool();
  EXPECT_EQ(pool.counts().total, 9);
  EXPECT_EQ(pool.counts().free, 9);
  EXPECT_EQ(pool.slab(), (*host)->handoff().slab().data());
  EXPECT_EQ((*host)->info().vocab_size, model.vocab());
  EXPECT_EQ((*host)->info().context_tokens, 256);
  EXPECT_EQ((*host)->info().block_tokens, 16);
  EXPECT_EQ((*host)->info().model, "tiny");
}

TEST(WorkerHost, DefaultPoolHoldsAGibibyteAndAShorterContextWhereAsked) {
  TinyModel model;
  auto options = model.Options("w", 0);
  options.kv_bytes = 0;
  options.max_context = 100;
  const auto host = WorkerHost::Create(options, Role::kDecode);
  ASSERT_TRUE(host.ok()) << host.status();
  const engine::BlockPool& pool = (*host)->executor().pool();
  EXPECT_EQ(pool.counts().total * pool.layout().block_bytes(), int64_t{1} << 30);
  EXPECT_EQ((*host)->info().context_tokens, 100);
}

TEST(WorkerHost, FingerprintsDifferWhereTheArithmeticDoesAndLayoutsWhereTheKvLies) {
  TinyModel model;
  const auto info = [](const WorkerOptions& options) {
    return (*WorkerHost::Create(options, Role::kDecode))->info();
  };
  const auto options = model.Options("w", 9);
  auto floats = options;
  floats.kv_dtype = kernels::KvDType::kF32;
  auto small = options;
  small.block_tokens = 8;
  EXPECT_EQ(info(options).fingerprint, info(options).fingerprint);
  EXPECT_EQ(info(options).kv_layout, info(options).kv_layout);
  for (const WorkerOptions& other : {floats, small}) {
    EXPECT_EQ(info(options).fingerprint, info(other).fingerprint);
    EXPECT_NE(info(options).kv_layout, info(other).kv_layout);
  }
  auto portable = options;
  portable.isa = kernels::CpuIsa::kPortable;
  const bool has_better = *kernels::ResolveCpuIsa(kernels::CpuIsa::kAuto) != portable.isa;
  EXPECT_EQ(info(options).fingerprint != info(portable).fingerprint, has_better);
}

TEST(WorkerHost, AmxIsAnArithmeticOfItsOwnWithBf16WeightsOnly) {
  if (!kernels::ResolveCpuIsa(kernels::CpuIsa::kAmx).ok()) GTEST_SKIP() << "no AMX here";
  engine::ModelConfig config;
  config.fingerprint = "model";
  for (const bool bf16 : {false, true}) {
    config.bf16_weights = bf16;
    EXPECT_EQ(*ArithmeticFingerprint(config, kernels::CpuIsa::kAmx) ==
                  *ArithmeticFingerprint(config, kernels::CpuIsa::kAvx512),
              !bf16);
  }
}

TEST(WorkerHost, RefusesOptionsWithoutSense) {
  TinyModel model;
  const auto options = model.Options("w", 9);
  auto bad = options;
  bad.max_batch = 0;
  EXPECT_EQ(CodeOf(bad), absl::StatusCode::kInvalidArgument);
  bad = options;
  bad.chunk_tokens = 0;
  EXPECT_EQ(CodeOf(bad), absl::StatusCode::kInvalidArgument);
  bad = options;
  bad.queue_capacity = 0;
  EXPECT_EQ(CodeOf(bad), absl::StatusCode::kInvalidArgument);
  bad = options;
  bad.kv_bytes = 1;
  EXPECT_EQ(CodeOf(bad), absl::StatusCode::kInvalidArgument) << "not even one block";
  bad = options;
  bad.block_tokens = 7;
  EXPECT_EQ(CodeOf(bad), absl::StatusCode::kInvalidArgument);
  bad = options;
  bad.model_path = "/nowhere.gguf";
  EXPECT_EQ(CodeOf(bad), absl::StatusCode::kNotFound);
  const auto host = WorkerHost::Create(options, Role::kDecode);
  ASSERT_TRUE(host.ok()) << host.status();
  bad = options;
  bad.listen_address = (*host)->server().address();
  EXPECT_EQ(CodeOf(bad), absl::StatusCode::kUnavailable) << "the port is taken";
}

}  // namespace
}  // namespace baton::worker_common
