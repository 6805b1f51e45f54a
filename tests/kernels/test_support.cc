#include "tests/kernels/test_support.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <limits>
#include <numeric>

#include "common/status_macros.h"
#include "kernels/cpu/cpu_isa.h"
#include "kernels/dequantize.h"
#include "kernels/half.h"

namespace baton::kernels {

std::vector<CpuIsa> TestIsas() {
  std::vector<CpuIsa> isas;
  for (const CpuIsa isa : {CpuIsa::kPortable, CpuIsa::kAvx2, CpuIsa::kAvx512, CpuIsa::kAmx}) {
    if (ResolveCpuIsa(isa).ok()) isas.push_back(isa);
  }
  return isas;
}

std::string IsaName(CpuIsa isa) { return std::string(CpuIsaName(isa)); }

std::unique_ptr<Ops> CpuBackend(CpuIsa isa, int32_t threads, int32_t max_rows) {
  auto ops = CreateCpuOps({.threads = threads, .isa = isa, .max_rows = max_rows});
  BATON_CHECK(ops.ok(), "an instruction set of TestIsas");
  return *std::move(ops);
}

std::mt19937 TestRandom() {
  const char* seed_text = std::getenv("BATON_TEST_SEED");
  const uint32_t seed = seed_text != nullptr ? std::strtoul(seed_text, nullptr, 10) : 20240;
  std::cout << "seed " << seed << " (BATON_TEST_SEED)\n";
  return std::mt19937(seed);
}

std::vector<float> RandomFloats(std::mt19937& random, int64_t count, float deviation) {
  std::normal_distribution<float> normal(0, deviation);
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

std::vector<float> TestMatrix::Values() const {
  std::vector<float> values(host.rows * host.cols);
  Dequantize(host.dtype, bytes, values);
  return values;
}

namespace {

// Offsets of the half-precision scales (and minima) in a block.
std::vector<int> HalfOffsets(DType dtype) {
  switch (dtype) {
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
    default:
      return {};
  }
}

void StoreHalf(std::byte* to, float value) {
  const uint16_t half = FloatToHalf(value);
  std::memcpy(to, &half, 2);
}

}  // namespace

TestMatrix RandomMatrix(std::mt19937& random, DType dtype, int64_t rows, int64_t cols) {
  TestMatrix matrix;
  matrix.bytes.resize(rows * DTypeBytes(dtype, cols));
  std::byte* bytes = matrix.bytes.data();
  std::normal_distribution<float> normal(0, 0.05f);
  if (!IsBlockFormat(dtype)) {
    for (int64_t i = 0; i < rows * cols; ++i) {
      const float value = normal(random);
      const auto bf16 = static_cast<uint16_t>(std::bit_cast<uint32_t>(value) >> 16);
      if (dtype == DType::kF32) std::memcpy(bytes + 4 * i, &value, 4);
      if (dtype == DType::kF16) StoreHalf(bytes + 2 * i, value);
      if (dtype == DType::kBF16) std::memcpy(bytes + 2 * i, &bf16, 2);
    }
  } else {
    for (std::byte& byte : matrix.bytes) byte = static_cast<std::byte>(random());
    const int block_bytes = Traits(dtype).block_bytes;
    for (size_t i = 0; i < matrix.bytes.size(); i += block_bytes) {
      for (const int offset : HalfOffsets(dtype)) StoreHalf(bytes + i + offset, normal(random));
    }
  }
  matrix.host = {dtype, rows, cols, matrix.bytes};
  return matrix;
}

bool SameBits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

TestCache::TestCache(const KvLayout& layout, std::mt19937& random,
                     std::span<const int32_t> sequence_tokens)
    : layout_(layout) {
  int32_t blocks = 3;  // some that nobody uses
  for (const int32_t tokens : sequence_tokens) blocks += layout.BlocksFor(tokens);
  slab_.assign(blocks * layout.block_bytes(), std::byte{0xff});
  std::vector<int32_t> free(blocks);
  std::iota(free.begin(), free.end(), 0);
  std::shuffle(free.begin(), free.end(), random);
  for (const int32_t tokens : sequence_tokens) {
    const int32_t used = layout.BlocksFor(tokens);
    tables_.emplace_back(free.end() - used, free.end());
    free.resize(free.size() - used);
    tables_.back().resize(used + 5, std::numeric_limits<int32_t>::max());
  }
}

TestRope::TestRope(RopePairs pairs, int32_t rotary_dim, int32_t context) {
  for (int32_t position = 0; position < context; ++position) {
    for (int32_t i = 0; i < rotary_dim / 2; ++i) {
      const double angle = position * std::pow(10000.0, -2.0 * i / rotary_dim);
      cosine.push_back(static_cast<float>(std::cos(angle)));
      sine.push_back(static_cast<float>(std::sin(angle)));
    }
  }
  rope = {pairs, rotary_dim, cosine, sine};
}

}  // namespace baton::kernels
