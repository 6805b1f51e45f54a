// The cuda backend against the reference: on a GPU in a build with CUDA (skipped where there is
// none), and on the CPU, where its kernels run in an emulated device.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "tests/kernels/test_support.h"

namespace baton::kernels {
namespace {

// Floats on the device, and back.
class DeviceFloats {
 public:
  DeviceFloats(Ops& ops, std::span<const float> values)
      : ops_(ops), count_(values.size()), buffer_(*ops.NewBuffer(std::ssize(values) * 4)) {
    ops.ToDevice(buffer_->data(), values.data(), std::ssize(values) * 4);
  }
  float* data() { return buffer_->floats(); }
  std::vector<float> Values() {
    std::vector<float> values(count_);
    const CopyPiece piece{values.data(), data(), static_cast<int64_t>(count_ * 4)};
    ops_.ToHost({&piece, 1});
    return values;
  }

 private:
  Ops& ops_;
  size_t count_;
  std::unique_ptr<Buffer> buffer_;
};

std::vector<float> Poison(size_t count) { return std::vector<float>(count, std::nanf("")); }

class CudaOpsTest : public testing::Test {
 protected:
  void SetUp() override {
    auto ops = CreateCudaOps({.max_rows = 256});
    if (!ops.ok()) GTEST_SKIP() << ops.status().message();
    ops_ = *std::move(ops);
    std::cout << ops_->Describe() << "\n";
  }

  std::vector<float> Product(const Matrix& matrix, std::span<const float> x, int32_t rows,
                             std::vector<float> before = {}) {
    const bool add = !before.empty();
    if (!add) before = Poison(static_cast<size_t>(rows * matrix.rows()));
    DeviceFloats input(*ops_, x);
    DeviceFloats out(*ops_, before);
    const Matrix* const weights[] = {&matrix};
    float* const outs[] = {out.data()};
    ops_->MatMul(weights, input.data(), rows, outs, add);
    return out.Values();
  }

  std::mt19937 random_ = TestRandom();
  std::unique_ptr<Ops> ops_;
  std::unique_ptr<Ops> reference_ = CreateReferenceOps();
};

// Bounds as for the cpu backend: rounding in float.
TEST_F(CudaOpsTest, RmsNormAgreesWithReference) {
  for (const int32_t cols : {1, 31, 576, 2050}) {
    const int32_t rows = 3;
    const std::vector<float> x = RandomFloats(random_, rows * cols);
    const std::vector<float> weight = RandomFloats(random_, cols);
    std::vector<float> expected(x.size());
    reference_->RmsNorm(x.data(), weight.data(), rows, cols, 1e-5f, expected.data());
    DeviceFloats input(*ops_, x), weights(*ops_, weight), out(*ops_, Poison(x.size()));
    ops_->RmsNorm(input.data(), weights.data(), rows, cols, 1e-5f, out.data());
    const std::vector<float> actual = out.Values();
    for (size_t i = 0; i < x.size(); ++i) {
      ASSERT_NEAR(actual[i], expected[i], 2e-6 * (1 + std::abs(expected[i]))) << cols;
    }
    ops_->RmsNorm(input.data(), weights.data(), rows, cols, 1e-5f, input.data());
    EXPECT_TRUE(SameBits(input.Values(), actual)) << "in place";
  }
}

TEST_F(CudaOpsTest, SwiGluAgreesWithReference) {
  std::vector<float> gate = RandomFloats(random_, 3 * 333, 5);
  const float extremes[] = {0.0f, -0.0f, 80.0f, -80.0f, -200.0f, 200.0f, 1e30f, -1e30f};
  std::copy(std::begin(extremes), std::end(extremes), gate.begin());
  const std::vector<float> up = RandomFloats(random_, std::ssize(gate));
  std::vector<float> expected(gate.size());
  reference_->SwiGlu(gate.data(), up.data(), 3, 333, expected.data());
  DeviceFloats input(*ops_, gate), other(*ops_, up);
  ops_->SwiGlu(input.data(), other.data(), 3, 333, input.data());
  const std::vector<float> actual = input.Values();
  for (size_t i = 0; i < gate.size(); ++i) {
    ASSERT_NEAR(actual[i], expected[i], 2e-6 * std::abs(expected[i]) + 1e-30) << gate[i];
  }
}

TEST_F(CudaOpsTest, EmbedsExactly) {
  for (const DType dtype : kAllDTypes) {
    const TestMatrix matrix = RandomMatrix(random_, dtype, 77, 512);
    const auto loaded = ops_->LoadMatrix(matrix.host);
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    const std::vector<float> values = matrix.Values();
    const std::vector<TokenId> tokens = {0, 76, 5, 64, 63, 5};
    DeviceFloats out(*ops_, Poison(tokens.size() * 512));
    ops_->Embed(**loaded, tokens, out.data());
    const std::vector<float> actual = out.Values();
    for (size_t i = 0; i < actual.size(); ++i) {
      ASSERT_EQ(actual[i], values[static_cast<size_t>(tokens[i / 512]) * 512 + i % 512])
          << Traits(dtype).name << " at " << i;
    }
  }
}

// Of the largest sum of magnitudes: inputs and weights are rounded to 11 bits (8 in BF16, whose
// weights are exact), which errors of many terms mostly cancel.
TEST_F(CudaOpsTest, MatMulAgreesWithReferenceAndIsBatchInvariant) {
  // On the emulated device all rows are in ten tiles, which are not split, and 70 and 17 rows in
  // five, of other sizes, which are.
  for (const DType dtype :
       {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0, DType::kQ4_K, DType::kQ6_K}) {
    constexpr int64_t kCols = 256;
    constexpr int64_t kColumns = 520;
    constexpr int32_t kRows = 130;
    const TestMatrix matrix = RandomMatrix(random_, dtype, kColumns, kCols);
    const auto loaded = ops_->LoadMatrix(matrix.host);
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    std::vector<float> x = RandomFloats(random_, kRows * kCols);
    for (int64_t c = 0; c < kCols; ++c) x[static_cast<size_t>(2 * kCols + c)] *= 1e6f;
    const std::vector<float> actual = Product(**loaded, x, kRows);
    const std::vector<float> values = matrix.Values();
    const double bound = dtype == DType::kF32 ? 1e-6 : dtype == DType::kBF16 ? 2e-3 : 4e-4;
    for (int32_t r = 0; r < kRows; ++r) {
      for (int64_t n = 0; n < kColumns; ++n) {
        double sum = 0, magnitudes = 0;
        for (int64_t k = 0; k < kCols; ++k) {
          const double term = double{x[r * kCols + k]} * values[n * kCols + k];
          sum += term;
          magnitudes += std::abs(term);
        }
        ASSERT_NEAR(actual[r * kColumns + n], sum, bound * magnitudes)
            << Traits(dtype).name << " row " << r << " column " << n;
      }
    }
    for (const int32_t row : {0, 129}) {
      const auto one = Product(**loaded, std::span(x).subspan(row * kCols, kCols), 1);
      EXPECT_TRUE(SameBits(one, std::span(actual).subspan(row * kColumns, kColumns)));
    }
    for (const int32_t rows : {8, 17, 70}) {
      const auto some = Product(**loaded, std::span(x).first(rows * kCols), rows);
      EXPECT_TRUE(SameBits(some, std::span(actual).first(rows * kColumns))) << rows;
    }
    const std::vector<float> before = RandomFloats(random_, 2 * kColumns, 10);
    const auto added = Product(**loaded, std::span(x).first(2 * kCols), 2, before);
    for (size_t i = 0; i < before.size(); ++i) EXPECT_EQ(added[i], before[i] + actual[i]);
  }
}

// Norms and SwiGLU round their rows for the product that is likely to follow: it gives the same
// bits as from rows that came otherwise, and rows that changed since are rounded again.
TEST_F(CudaOpsTest, ProductsOfRowsThatWereRoundedAreTheSame) {
  constexpr int32_t kRows = 3, kCols = 150;
  const std::vector<float> x = RandomFloats(random_, kRows * kCols, 3);
  const std::vector<float> other = RandomFloats(random_, kRows * kCols);
  const TestMatrix bf16 = RandomMatrix(random_, DType::kBF16, 70, kCols);
  const TestMatrix f16 = RandomMatrix(random_, DType::kF16, 70, kCols);
  const auto first = ops_->LoadMatrix(bf16.host), second = ops_->LoadMatrix(f16.host);
  const auto product = [&](const Matrix& matrix, DeviceFloats& input) {
    DeviceFloats out(*ops_, Poison(kRows * 70));
    const Matrix* const weights[] = {&matrix};
    float* const outs[] = {out.data()};
    ops_->MatMul(weights, input.data(), kRows, outs, false);
    return out.Values();
  };
  for (const auto& matrix : {first->get(), second->get(), first->get()}) {
    DeviceFloats input(*ops_, x), weight(*ops_, std::span(other).first(kCols)), up(*ops_, other);
    DeviceFloats out(*ops_, Poison(x.size()));
    const auto check = [&] {
      return SameBits(product(*matrix, out), Product(*matrix, out.Values(), kRows));
    };
    Product(*matrix, other, kRows);  // what is likely
    DeviceFloats unused(*ops_, Poison(kRows * 70));
    const Matrix* const weights[] = {matrix};
    float* const outs[] = {unused.data()};
    ops_->RmsNorm(input.data(), weight.data(), kRows, kCols, 1e-5f, out.data());
    ops_->MatMul(weights, out.data(), kRows, outs, false);
    EXPECT_TRUE(SameBits(unused.Values(), Product(*matrix, out.Values(), kRows))) << "a norm";
    ops_->SwiGlu(input.data(), up.data(), kRows, kCols, out.data());
    ops_->MatMul(weights, out.data(), kRows, outs, false);
    EXPECT_TRUE(SameBits(unused.Values(), Product(*matrix, out.Values(), kRows))) << "SwiGLU";
    ops_->SwiGlu(input.data(), up.data(), kRows, kCols, out.data());
    ops_->Copy(out.data(), input.data(), kRows * kCols);
    EXPECT_TRUE(check()) << "changed since";
  }
}

// What differs from one run to the next is a race. Few times where the device is emulated, whose
// threads take turns always the same.
TEST_F(CudaOpsTest, RepeatsToTheBit) {
  const int repeats = ops_->Describe().find("emulated") == std::string::npos ? 1000 : 2;
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kQ4_1, DType::kQ6_K}) {
    const TestMatrix matrix = RandomMatrix(random_, dtype, 130, 512);
    const auto loaded = ops_->LoadMatrix(matrix.host);
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    for (const int32_t rows : {3, 40}) {
      const std::vector<float> x = RandomFloats(random_, rows * 512);
      const auto first = Product(**loaded, x, rows);
      for (int i = 1; i < repeats; ++i) {
        ASSERT_TRUE(SameBits(Product(**loaded, x, rows), first)) << Traits(dtype).name << " " << i;
      }
    }
  }
}

// A number that is not finite spoils its own row alone; odd columns and zeros do no harm.
TEST_F(CudaOpsTest, MatMulKeepsNansInTheirRow) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    const TestMatrix matrix = RandomMatrix(random_, dtype, 9, 77);
    const auto loaded = ops_->LoadMatrix(matrix.host);
    std::vector<float> x = RandomFloats(random_, 3 * 77);
    std::fill_n(x.begin(), 77, 0.0f);
    const auto sound = Product(**loaded, x, 3);
    for (int i = 0; i < 9; ++i) EXPECT_EQ(sound[i], 0);
    for (const float broken : {std::nanf(""), HUGE_VALF}) {
      x[77 + 30] = broken;
      const auto out = Product(**loaded, x, 3);
      EXPECT_TRUE(SameBits(std::span(out).first(9), std::span(sound).first(9)));
      EXPECT_TRUE(SameBits(std::span(out).last(9), std::span(sound).last(9)));
      for (int i = 9; i < 18; ++i) EXPECT_FALSE(std::isfinite(out[i]));
    }
  }
}

struct Heads {
  int32_t heads, kv_heads, head_dim;
};

// Runs `chunks` of a sequence of each of `tokens` through both ops. The slabs' bytes must be the
// same; gives the outputs of the last chunk, sequence by sequence.
struct AttentionRun {
  std::vector<float> expected, actual;
};
AttentionRun RunAttention(Ops& ops, Ops& reference, const Heads& heads, const KvLayout& layout,
                          std::vector<int32_t> tokens, std::span<const int32_t> last_rows) {
  std::mt19937 random(11);
  TestCache cache(layout, random, tokens);
  const auto slab = *ops.NewBuffer(cache.slab_bytes());
  ops.ToDevice(slab->data(), cache.slab(), cache.slab_bytes());
  const TestRope rope(RopePairs::kHalves, heads.head_dim / 4 * 2, 1024);
  DeviceFloats cosine(ops, rope.cosine), sine(ops, rope.sine);
  const Rope device_rope{rope.rope.pairs,
                         rope.rope.rotary_dim,
                         {cosine.data(), rope.cosine.size()},
                         {sine.data(), rope.sine.size()}};
  const AttentionShape shape{heads.heads, 1 / std::sqrt(static_cast<float>(heads.head_dim))};
  const int32_t layer = layout.layers - 1;
  AttentionRun run;
  for (const bool last : {false, true}) {
    std::vector<SequenceRows> rows;
    int32_t count = 0;
    for (size_t s = 0; s < tokens.size(); ++s) {
      const int32_t first = last ? tokens[s] - last_rows[s] : 0;
      const int32_t wanted = last ? last_rows[s] : tokens[s] - last_rows[s];
      if (wanted > 0) rows.push_back({cache.table(s), first, count, wanted});
      count += wanted;
    }
    if (rows.empty()) continue;
    std::vector<float> q = RandomFloats(random, count * heads.heads * heads.head_dim, 2);
    const auto k = RandomFloats(random, count * heads.kv_heads * heads.head_dim);
    const auto v = RandomFloats(random, count * heads.kv_heads * heads.head_dim);
    DeviceFloats device_q(ops, q), device_k(ops, k), device_v(ops, v), out(ops, Poison(q.size()));
    ops.RopeAndStoreKv(device_rope, layout, slab->data(), layer, heads.heads, rows, device_q.data(),
                       device_k.data(), device_v.data());
    reference.RopeAndStoreKv(rope.rope, layout, cache.slab(), layer, heads.heads, rows, q.data(),
                             k.data(), v.data());
    EXPECT_TRUE(SameBits(device_q.Values(), q));
    ops.Attention(shape, layout, slab->data(), layer, rows, device_q.data(), out.data());
    run.actual = out.Values();
    run.expected.assign(q.size(), 0);
    reference.Attention(shape, layout, cache.slab(), layer, rows, q.data(), run.expected.data());
  }
  std::vector<std::byte> copied(cache.slab_bytes());
  const CopyPiece piece{copied.data(), slab->data(), cache.slab_bytes()};
  ops.ToHost({&piece, 1});
  EXPECT_EQ(std::memcmp(copied.data(), cache.slab(), copied.size()), 0) << layout.ToString();
  return run;
}

// 1e-5 is float against double over the same cache. On the tensor cores queries and weights are
// rounded to 11 bits, or, but for F16 caches, to 8.
double AttentionBound(const KvLayout& layout) {
  if (layout.dtype == KvDType::kF32 || layout.head_dim % 32 != 0) return 1e-5;
  return layout.dtype == KvDType::kF16 ? 2e-3 : 1.6e-2;
}

// Slots that nobody uses are NaN, entries of block tables that nobody uses huge.
TEST_F(CudaOpsTest, AttentionAgreesWithReference) {
  for (const Heads& heads :
       {Heads{6, 2, 64}, Heads{17, 1, 20}, Heads{2, 1, 128}, Heads{1, 1, 256}, Heads{5, 1, 32}}) {
    for (const KvDType dtype : kKvDTypes) {
      const int32_t block_tokens = heads.heads == 6 ? 8 : heads.heads == 5 ? 32 : 16;
      const KvLayout layout{2, heads.kv_heads, heads.head_dim, block_tokens, dtype};
      const int32_t last[] = {1, 7, 1, 3};
      const AttentionRun run =
          RunAttention(*ops_, *reference_, heads, layout, {1, 7, 33, 40}, last);
      for (size_t i = 0; i < run.expected.size(); ++i) {
        ASSERT_NEAR(run.actual[i], run.expected[i], AttentionBound(layout))
            << layout.ToString() << " at " << i;
      }
    }
  }
}

// Longer than a segment; split and not, and the same bits either way. The emulated device splits
// below 64 tiles.
TEST_F(CudaOpsTest, LongAttentionIsInvariant) {
  const Heads heads{6, 2, 32};
  const int32_t one[] = {1}, many[] = {20};
  for (const KvDType dtype : {KvDType::kF32, KvDType::kF16}) {
    const KvLayout layout{1, 2, 32, 16, dtype};
    for (const auto& last : {std::span<const int32_t>(one), std::span<const int32_t>(many)}) {
      const AttentionRun run = RunAttention(*ops_, *reference_, heads, layout, {290}, last);
      ASSERT_EQ(run.expected.size(), last[0] * size_t{192});
      for (size_t i = 0; i < run.expected.size(); ++i) {
        ASSERT_NEAR(run.actual[i], run.expected[i], AttentionBound(layout)) << "at " << i;
      }
    }
    // The last row alone, of which segments are split, and with 179 others, where they are not.
    std::mt19937 random(3);
    const int32_t tokens[] = {300};
    TestCache cache(layout, random, tokens);
    const auto slab = *ops_->NewBuffer(cache.slab_bytes());
    std::vector<float> floats(static_cast<size_t>(cache.slab_bytes() / 4));
    for (float& value : floats) {
      const uint32_t word = 0x3c003800 + (random() % 0x400) * 0x10001;  // sound in each format
      std::memcpy(&value, &word, sizeof value);
    }
    ops_->ToDevice(slab->data(), floats.data(), cache.slab_bytes());
    const std::vector<float> q = RandomFloats(random, 180 * 192);
    DeviceFloats all(*ops_, q), all_out(*ops_, Poison(q.size()));
    DeviceFloats single(*ops_, std::span(q).last(192)), single_out(*ops_, Poison(192));
    const SequenceRows many_rows[] = {{cache.table(0), 120, 0, 180}};
    const SequenceRows last_row[] = {{cache.table(0), 299, 0, 1}};
    ops_->Attention({6, 0.2f}, layout, slab->data(), 0, many_rows, all.data(), all_out.data());
    ops_->Attention({6, 0.2f}, layout, slab->data(), 0, last_row, single.data(), single_out.data());
    EXPECT_TRUE(SameBits(single_out.Values(), std::span<const float>(all_out.Values()).last(192)))
        << Traits(dtype).name;
  }
}

TEST_F(CudaOpsTest, RefusesWhatItCannot) {
  EXPECT_FALSE(ops_->CheckLayout({1, 1, 512, 16, KvDType::kF16}).ok());
  EXPECT_TRUE(ops_->CheckLayout({1, 1, 128, 16, KvDType::kFp8}).ok());
  EXPECT_EQ(CreateCudaOps({.gpu = 99}).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(CreateCudaOps({.max_rows = 0}).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace baton::kernels
