#include "cli/engine_flags.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/cpu/cpu_isa.h"

namespace baton::cli {
namespace {

using kernels::KvDType;

KvDType FormatOf(const std::string& kv_dtype, const std::string& isa, const std::string& device) {
  EngineFlags flags;
  flags.kv_dtype = kv_dtype;
  flags.isa = isa;
  flags.device = device;
  const auto format = KvDTypeOf(flags);
  EXPECT_TRUE(format.ok()) << format.status();
  return format.value_or(KvDType::kF32);
}

TEST(EngineFlagsTest, KvFormatGoesByWhatTheMachineMultiplies) {
  const bool amx = kernels::ResolveCpuIsa(kernels::CpuIsa::kAmx).ok();
  EXPECT_EQ(FormatOf("auto", "auto", "cpu"), amx ? KvDType::kBF16 : KvDType::kF16);
  EXPECT_EQ(FormatOf("auto", "portable", "cpu"), KvDType::kF16);
  EXPECT_EQ(FormatOf("auto", "auto", "cuda"), KvDType::kF16);
  EXPECT_EQ(FormatOf("int8", "auto", "cpu"), KvDType::kInt8);
}

TEST(EngineFlagsTest, UnknownKvFormatIsRefusedWithTheKnownOnes) {
  EngineFlags flags;
  flags.kv_dtype = "q8";
  EXPECT_THAT(KvDTypeOf(flags).status().message(),
              testing::HasSubstr("--kv-dtype is 'q8', but must be auto or one of f32, f16, bf16"));
  flags.kv_dtype = "auto";
  flags.isa = "sse9";
  EXPECT_FALSE(KvDTypeOf(flags).ok());
}

}  // namespace
}  // namespace baton::cli
