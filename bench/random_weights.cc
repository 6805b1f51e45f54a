#include "bench/random_weights.h"

#include <algorithm>
#include <cstring>
#include <span>

#include "common/status_macros.h"

namespace baton::bench {
namespace {

// splitmix64: much faster than std::mt19937, and good enough for weights.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t Next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }

 private:
  uint64_t state_;
};

// Random sign and mantissa with the exponent of 1/32, in two or four bytes.
constexpr uint16_t kHalfMask = 0x83ff, kHalfExponent = 0x2800;
constexpr uint16_t kBf16Mask = 0x807f, kBf16Exponent = 0x3d00;
constexpr uint32_t kFloatMask = 0x807fffff, kFloatExponent = 0x3d000000;

template <typename Bits>
void Sanitize(std::span<std::byte> bytes, size_t at, Bits mask, Bits exponent) {
  Bits bits;
  std::memcpy(&bits, &bytes[at], sizeof bits);
  bits = static_cast<Bits>((bits & mask) | exponent);
  std::memcpy(&bytes[at], &bits, sizeof bits);
}

// Where a block has scales in half precision.
std::vector<size_t> HalfOffsets(DType dtype) {
  switch (dtype) {
    case DType::kF16:
    case DType::kQ8_0:
    case DType::kQ4_0:
    case DType::kQ5_0:
      return {0};
    case DType::kQ4_1:
    case DType::kQ5_1:
    case DType::kQ4_K:
    case DType::kQ5_K:
      return {0, 2};
    case DType::kQ6_K:
      return {208};
    case DType::kF32:
    case DType::kBF16:
      return {};
  }
  return {};
}

}  // namespace

std::vector<std::byte> RandomWeights(DType dtype, int64_t rows, int64_t cols, uint64_t seed) {
  const DTypeTraits& traits = Traits(dtype);
  BATON_CHECK(cols % traits.block_elements == 0, "rows are whole blocks");
  std::vector<std::byte> bytes(static_cast<size_t>(rows * DTypeBytes(dtype, cols)));
  Random random(seed);
  for (size_t i = 0; i < bytes.size(); i += sizeof(uint64_t)) {
    const uint64_t word = random.Next();
    std::memcpy(&bytes[i], &word, std::min(sizeof word, bytes.size() - i));
  }
  const std::vector<size_t> offsets = HalfOffsets(dtype);
  const auto block_bytes = static_cast<size_t>(traits.block_bytes);
  for (size_t block = 0; block < bytes.size(); block += block_bytes) {
    for (const size_t offset : offsets) Sanitize(bytes, block + offset, kHalfMask, kHalfExponent);
    if (dtype == DType::kF32) Sanitize(bytes, block, kFloatMask, kFloatExponent);
    if (dtype == DType::kBF16) Sanitize(bytes, block, kBf16Mask, kBf16Exponent);
  }
  return bytes;
}

std::vector<float> RandomActivations(int64_t count, uint64_t seed) {
  Random random(seed);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) {
    value = static_cast<float>(static_cast<int32_t>(random.Next() >> 40) - (1 << 23)) / (1 << 23);
  }
  return values;
}

}  // namespace baton::bench
