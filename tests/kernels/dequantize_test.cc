#include "kernels/dequantize.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <fstream>
#include <set>
#include <sstream>

#include "kernels/half.h"
#include "kernels/host_matrix.h"
#include "tests/kernels/test_support.h"

namespace baton::kernels {
namespace {

std::vector<std::byte> FromHex(const std::string& hex) {
  std::vector<std::byte> bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) {
    bytes.push_back(static_cast<std::byte>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  }
  return bytes;
}

// Every format decodes to the bits that ggml's own decoder gives.
TEST(DequantizeTest, GivesGgmlsBits) {
  std::ifstream file("tests/kernels/golden/dequantize.txt");
  ASSERT_TRUE(file.is_open());
  std::set<DType> seen;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with('#')) continue;
    std::istringstream fields(line);
    std::string name, block, floats;
    fields >> name >> block >> floats;
    const std::optional<DType> dtype = DTypeFromName(name);
    ASSERT_TRUE(dtype.has_value()) << name;
    seen.insert(*dtype);
    std::vector<float> values(floats.size() / 8);
    Dequantize(*dtype, FromHex(block), values);
    for (size_t i = 0; i < values.size(); ++i) {
      const auto expected = static_cast<uint32_t>(std::stoul(floats.substr(8 * i, 8), nullptr, 16));
      ASSERT_EQ(std::bit_cast<uint32_t>(values[i]), expected) << name << " element " << i;
    }
  }
  EXPECT_EQ(seen.size(), std::size(kAllDTypes) - 1) << "all but F32";
}

// Every half survives the way to float and back; NaNs stay NaNs.
TEST(HalfTest, RoundTrips) {
  for (uint32_t half = 0; half < 65536; ++half) {
    const float value = HalfToFloat(static_cast<uint16_t>(half));
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(HalfToFloat(FloatToHalf(value)))) << half;
    } else {
      ASSERT_EQ(FloatToHalf(value), half) << value;
    }
  }
}

TEST(BFloat16Test, RoundsToNearestEven) {
  for (uint32_t code = 0; code < 0x7f80; ++code) {  // up to infinity, which 0x7f80 is
    const auto low = static_cast<uint16_t>(code);
    ASSERT_EQ(FloatToBFloat16(BFloat16ToFloat(low)), low);
    const uint32_t middle = (code << 16) + 0x8000;
    const uint16_t even = code % 2 == 0 ? low : low + 1;
    EXPECT_EQ(FloatToBFloat16(std::bit_cast<float>(middle)), even);
    EXPECT_EQ(FloatToBFloat16(std::bit_cast<float>(middle - 1)), low);
    EXPECT_EQ(FloatToBFloat16(-std::bit_cast<float>(middle + 1)), (low + 1) | 0x8000);
  }
  EXPECT_TRUE(std::isnan(BFloat16ToFloat(FloatToBFloat16(std::nanf("")))));
}

// E4M3's numbers by their definition, and each float gives the nearest of them, on a tie the even.
TEST(Fp8Test, RoundsToNearestEven) {
  EXPECT_EQ(Fp8ToFloat(0x01), 0x1p-9f);
  EXPECT_EQ(Fp8ToFloat(0x07), 7 * 0x1p-9f);
  EXPECT_EQ(Fp8ToFloat(0x08), 0x1p-6f);
  EXPECT_EQ(Fp8ToFloat(0x38), 1);
  EXPECT_EQ(Fp8ToFloat(0x7e), 448);
  EXPECT_EQ(Fp8ToFloat(0xb9), -1.125f);
  EXPECT_TRUE(std::isnan(Fp8ToFloat(0x7f)));
  EXPECT_TRUE(std::isnan(Fp8ToFloat(FloatToFp8(-std::nanf("")))));
  for (uint32_t code = 0; code < 0x7e; ++code) {
    const float low = Fp8ToFloat(static_cast<uint8_t>(code));
    const float high = Fp8ToFloat(static_cast<uint8_t>(code + 1));
    ASSERT_LT(low, high);
    const float middle = (low + high) / 2;  // exact
    EXPECT_EQ(FloatToFp8(low), code);
    EXPECT_EQ(FloatToFp8(middle), code + code % 2);
    EXPECT_EQ(FloatToFp8(std::nextafter(middle, 0.0f)), code);
    EXPECT_EQ(FloatToFp8(-std::nextafter(middle, 1e9f)), (code + 1) | 0x80);
  }
  EXPECT_EQ(FloatToFp8(449), 0x7e);
  EXPECT_EQ(FloatToFp8(-INFINITY), 0xfe);
  EXPECT_EQ(FloatToFp8(-0.0f), 0x80);
}

// FloatToHalf gives the nearer neighbour, and on a tie the one with an even last bit.
TEST(HalfTest, RoundsToNearestEven) {
  for (uint32_t half = 0; half < 0x7bff; ++half) {  // up to the largest finite one
    const double low = HalfToFloat(static_cast<uint16_t>(half));
    const double high = HalfToFloat(static_cast<uint16_t>(half + 1));
    const auto middle = static_cast<float>((low + high) / 2);
    const uint32_t even = half % 2 == 0 ? half : half + 1;
    ASSERT_EQ(FloatToHalf(middle), even) << middle;
    ASSERT_EQ(FloatToHalf(std::nextafter(middle, 0.0f)), half) << middle;
    ASSERT_EQ(FloatToHalf(std::nextafter(middle, 1e30f)), half + 1) << middle;
    ASSERT_EQ(FloatToHalf(-middle), even | 0x8000) << middle;
  }
  EXPECT_EQ(FloatToHalf(65519.0f), 0x7bff);
  EXPECT_EQ(FloatToHalf(65520.0f), 0x7c00);
  EXPECT_EQ(FloatToHalf(1e30f), 0x7c00);
}

TEST(HostMatrixTest, RefusesShapesThatDoNotFit) {
  std::mt19937 random = TestRandom();
  TestMatrix matrix = RandomMatrix(random, DType::kQ4_0, 3, 64);
  EXPECT_TRUE(CheckHostMatrix(matrix.host).ok());
  HostMatrix bad = matrix.host;
  bad.cols = 63;
  EXPECT_EQ(CheckHostMatrix(bad).code(), absl::StatusCode::kInvalidArgument);
  bad = matrix.host;
  bad.rows = 4;
  EXPECT_EQ(CheckHostMatrix(bad).code(), absl::StatusCode::kInvalidArgument);
  bad = matrix.host;
  bad.rows = int64_t{1} << 62;
  EXPECT_EQ(CheckHostMatrix(bad).code(), absl::StatusCode::kInvalidArgument);
  bad.rows = 0;
  EXPECT_EQ(CheckHostMatrix(bad).code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace baton::kernels
