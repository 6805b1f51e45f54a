#include "common/dtype.h"

#include <gtest/gtest.h>

namespace baton {
namespace {

TEST(DType, NamesRoundTrip) {
  for (int i = 0; i <= static_cast<int>(DType::kQ6_K); ++i) {
    const DType dtype = static_cast<DType>(i);
    EXPECT_EQ(DTypeFromName(Traits(dtype).name), dtype) << Traits(dtype).name;
  }
  EXPECT_EQ(DTypeFromName("bf16"), DType::kBF16);
  EXPECT_EQ(DTypeFromName("q3_k"), std::nullopt);
  EXPECT_EQ(DTypeFromName(""), std::nullopt);
}

TEST(DType, BytesOfRows) {
  EXPECT_EQ(DTypeBytes(DType::kF32, 576), 2304);
  EXPECT_EQ(DTypeBytes(DType::kQ4_1, 576), 360);  // 18 blocks of 20 bytes
  EXPECT_EQ(DTypeBytes(DType::kQ8_0, 576), 612);  // 18 blocks of 34 bytes
  EXPECT_EQ(DTypeBytes(DType::kQ6_K, 512), 420);  // 2 blocks of 210 bytes
}

}  // namespace
}  // namespace baton
