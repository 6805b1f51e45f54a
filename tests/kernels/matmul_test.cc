#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "kernels/dequantize.h"
#include "tests/kernels/test_support.h"

namespace baton::kernels {
namespace {

// What the block formats see of an input: 8 bits in groups of 32.
std::vector<float> AsQuantized(const std::vector<float>& x) {
  std::vector<float> out(x.size());
  for (size_t g = 0; g < x.size(); g += 32) {
    float largest = 0;
    for (size_t i = g; i < g + 32; ++i) largest = std::max(largest, std::abs(x[i]));
    const float inverse = largest > 0 ? 127 / largest : 0;
    for (size_t i = g; i < g + 32; ++i) {
      out[i] = largest / 127 * std::nearbyint(x[i] * inverse);
      EXPECT_LE(std::abs(out[i] - x[i]), largest / 254 * 1.0001f);
    }
  }
  return out;
}

std::vector<float> AsBf16(const std::vector<float>& x) {
  std::vector<float> out;
  for (const float value : x) {
    const uint32_t bits = std::bit_cast<uint32_t>(value);
    out.push_back(std::bit_cast<float>((bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff0000));
  }
  return out;
}

std::vector<float> Product(Ops& ops, const Matrix& matrix, const std::vector<float>& x,
                           int32_t rows) {
  std::vector<float> out(rows * matrix.rows(), std::nanf(""));
  const Matrix* weights[] = {&matrix};
  float* outs[] = {out.data()};
  ops.MatMul(weights, x.data(), rows, outs, false);
  return out;
}

std::unique_ptr<Matrix> Load(Ops& ops, const TestMatrix& matrix) {
  auto loaded = ops.LoadMatrix(matrix.host);
  EXPECT_TRUE(loaded.ok()) << loaded.status();
  return *std::move(loaded);
}

std::vector<int64_t> ColsFor(DType dtype) {
  switch (Traits(dtype).block_elements) {
    case 1:
      return {1, 17, 130, 576, 1041};
    case 32:
      return {32, 576, 1056};
    default:
      return {256, 768, 1280};
  }
}

class MatMulTest : public testing::TestWithParam<DType> {
 protected:
  DType dtype() const { return GetParam(); }

  // The input that the kernels see, after rounding.
  std::vector<float> Rounded(const std::vector<float>& x, CpuIsa isa) const {
    if (IsBlockFormat(dtype())) return AsQuantized(x);
    return dtype() == DType::kBF16 && isa >= CpuIsa::kAvx512 ? AsBf16(x) : x;
  }
};

// sum_k |weight * input| for each output.
std::vector<float> Magnitudes(Ops& reference, const TestMatrix& matrix, std::vector<float> x,
                              int32_t rows) {
  std::vector<float> values = matrix.Values();
  for (float& value : values) value = std::abs(value);
  for (float& value : x) value = std::abs(value);
  const auto bytes = std::as_bytes(std::span(values));
  TestMatrix absolute{{bytes.begin(), bytes.end()}, {}};
  absolute.host = {DType::kF32, matrix.host.rows, matrix.host.cols, absolute.bytes};
  return Product(reference, *Load(reference, absolute), x, rows);
}

// Bound: the rounding of the input is taken out (the reference gets the rounded input), so what is
// left is float summation: 4e-6 of the sum of |weight * input|.
TEST_P(MatMulTest, AgreesWithReference) {
  std::mt19937 random = TestRandom();
  const auto reference = CreateReferenceOps();
  for (const int64_t cols : ColsFor(dtype())) {
    for (const int64_t columns : {1, 17, 32, 70}) {
      constexpr int32_t kRows = 70;
      const TestMatrix matrix = RandomMatrix(random, dtype(), columns, cols);
      const std::vector<float> x = RandomFloats(random, kRows * cols);
      const std::vector<float> bounds = Magnitudes(*reference, matrix, x, kRows);
      for (const CpuIsa isa : TestIsas()) {
        const auto expected =
            Product(*reference, *Load(*reference, matrix), Rounded(x, isa), kRows);
        const auto cpu = CpuBackend(isa, 2, kRows);
        const auto loaded = Load(*cpu, matrix);
        for (const int32_t rows : {1, 2, 3, 5, 17, 70}) {
          const std::vector<float> first(x.begin(), x.begin() + rows * cols);
          const auto actual = Product(*cpu, *loaded, first, rows);
          for (size_t i = 0; i < actual.size(); ++i) {
            ASSERT_NEAR(actual[i], expected[i], 4e-6 * bounds[i] + 1e-12)
                << IsaName(isa) << " " << rows << " x " << cols << " x " << columns << " at " << i;
          }
        }
      }
    }
  }
}

// A row's bits are the same alone, in a few, in many rows, and with any number of threads.
TEST_P(MatMulTest, IsBatchInvariant) {
  std::mt19937 random = TestRandom();
  constexpr int32_t kRows = 201;
  constexpr int64_t kColumns = 40;
  const int64_t cols = ColsFor(dtype()).back();
  const TestMatrix matrix = RandomMatrix(random, dtype(), kColumns, cols);
  const std::vector<float> x = RandomFloats(random, kRows * cols);
  for (const CpuIsa isa : TestIsas()) {
    const auto one_thread = CpuBackend(isa, 1);
    const auto all = Product(*one_thread, *Load(*one_thread, matrix), x, kRows);
    for (const int32_t threads : {1, 3}) {
      const auto ops = CpuBackend(isa, threads);
      const auto loaded = Load(*ops, matrix);
      for (const int32_t batch : {1, 2, 3, 7, 48, 64, 65, 201}) {
        for (int32_t row = 0; row < kRows; row += batch) {
          const int32_t rows = std::min(batch, kRows - row);
          const std::vector<float> part(x.begin() + row * cols, x.begin() + (row + rows) * cols);
          const auto out = Product(*ops, *loaded, part, rows);
          ASSERT_TRUE(SameBits(out, std::span(all).subspan(row * kColumns, rows * kColumns)))
              << IsaName(isa) << " " << rows << " rows from " << row << ", " << threads
              << " threads";
        }
      }
    }
  }
}

TEST_P(MatMulTest, EmbedsExactly) {
  std::mt19937 random = TestRandom();
  const auto ops = CpuBackend(CpuIsa::kAuto, 2);
  const int64_t cols = ColsFor(dtype()).back();
  const TestMatrix matrix = RandomMatrix(random, dtype(), 77, cols);
  const auto loaded = Load(*ops, matrix);
  const std::vector<float> values = matrix.Values();
  std::vector<TokenId> tokens;
  for (int i = 0; i < 30; ++i) tokens.push_back(static_cast<TokenId>(random() % 77));
  tokens.push_back(76);
  std::vector<float> out(tokens.size() * cols);
  ops->Embed(*loaded, tokens, out.data());
  for (size_t i = 0; i < tokens.size(); ++i) {
    EXPECT_TRUE(SameBits(std::span(out).subspan(i * cols, cols),
                         std::span(values).subspan(tokens[i] * cols, cols)))
        << "token " << tokens[i];
  }
}

INSTANTIATE_TEST_SUITE_P(All, MatMulTest, testing::ValuesIn(kAllDTypes),
                         [](const auto& param) { return std::string(Traits(param.param).name); });

class MatMulIsaTest : public testing::TestWithParam<CpuIsa> {};

// Weights of different formats in one call give what they give alone; `add` adds it.
TEST_P(MatMulIsaTest, TakesSeveralWeightsAndAdds) {
  std::mt19937 random = TestRandom();
  constexpr int32_t kRows = 21;
  constexpr int64_t kCols = 512;
  const auto ops = CpuBackend(GetParam(), 2);
  const std::vector<float> x = RandomFloats(random, kRows * kCols);
  std::vector<std::unique_ptr<Matrix>> matrices;
  for (const DType dtype : kAllDTypes) {
    matrices.push_back(Load(*ops, RandomMatrix(random, dtype, 10 + 7 * matrices.size(), kCols)));
  }
  std::vector<const Matrix*> weights;
  std::vector<std::vector<float>> outs;
  std::vector<std::vector<float>> before;
  std::vector<float*> out_pointers;
  for (const auto& matrix : matrices) {
    weights.push_back(matrix.get());
    before.push_back(RandomFloats(random, kRows * matrix->rows(), 10));
  }
  for (const bool add : {false, true}) {
    outs = before;
    out_pointers.clear();
    for (auto& out : outs) out_pointers.push_back(out.data());
    ops->MatMul(weights, x.data(), kRows, out_pointers, add);
    for (size_t i = 0; i < weights.size(); ++i) {
      std::vector<float> expected = Product(*ops, *weights[i], x, kRows);
      for (size_t j = 0; add && j < expected.size(); ++j) expected[j] += before[i][j];
      EXPECT_TRUE(SameBits(outs[i], expected)) << i << " add " << add;
    }
  }
}

// Groups of zeros, and of numbers so small that their scale would overflow, do no harm.
TEST_P(MatMulIsaTest, TakesZerosAndTinyInputs) {
  std::mt19937 random = TestRandom();
  const auto ops = CpuBackend(GetParam(), 1);
  const auto matrix = Load(*ops, RandomMatrix(random, DType::kQ4_1, 40, 96));
  for (const float value : {0.0f, -0.0f, 1e-40f, -1e-38f, 1e-31f}) {
    const auto out = Product(*ops, *matrix, std::vector<float>(96, value), 1);
    for (const float y : out) EXPECT_NEAR(y, 0, 1e-25) << value;
  }
}

// A number that is not finite is not lost, and spoils its own row alone.
TEST_P(MatMulIsaTest, KeepsNansInTheirRow) {
  std::mt19937 random = TestRandom();
  constexpr int64_t kCols = 512;
  const auto ops = CpuBackend(GetParam(), 1);
  for (const DType dtype : kAllDTypes) {
    const auto matrix = Load(*ops, RandomMatrix(random, dtype, 40, kCols));
    std::vector<float> x = RandomFloats(random, 3 * kCols);
    const auto sound = Product(*ops, *matrix, x, 3);
    for (const float broken : {std::nanf(""), -std::nanf(""), HUGE_VALF, -HUGE_VALF}) {
      x[kCols + 77] = broken;
      const auto out = Product(*ops, *matrix, x, 3);
      EXPECT_TRUE(SameBits(std::span(out).first(40), std::span(sound).first(40)));
      EXPECT_TRUE(SameBits(std::span(out).last(40), std::span(sound).last(40)));
      for (const float y : std::span(out).subspan(40, 40)) EXPECT_FALSE(std::isfinite(y));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, MatMulIsaTest, testing::ValuesIn(TestIsas()),
                         [](const auto& param) { return IsaName(param.param); });

}  // namespace
}  // namespace baton::kernels
