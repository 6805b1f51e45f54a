#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/kernels/test_support.h"

namespace baton::kernels {
namespace {

struct Heads {
  int32_t heads;
  int32_t kv_heads;
  int32_t head_dim;
};

// Queries, keys and values of whole sequences, from position 0.
struct Inputs {
  std::vector<int32_t> tokens;  // of each sequence
  std::vector<std::vector<float>> q, k, v;
};

Inputs RandomInputs(std::mt19937& random, const Heads& heads, std::vector<int32_t> tokens) {
  Inputs inputs;
  inputs.tokens = tokens;
  for (const int32_t count : tokens) {
    inputs.q.push_back(RandomFloats(random, int64_t{count} * heads.heads * heads.head_dim, 2));
    inputs.k.push_back(RandomFloats(random, int64_t{count} * heads.kv_heads * heads.head_dim));
    inputs.v.push_back(RandomFloats(random, int64_t{count} * heads.kv_heads * heads.head_dim));
  }
  return inputs;
}

// A step: the next rows[i] rows of each sequence i.
struct Step {
  std::vector<int32_t> rows;
};

// Runs the sequences in steps through RopeAndStoreKv and Attention, as an engine does, and gives
// the output rows of each sequence.
std::vector<std::vector<float>> RunSteps(Ops& ops, const Heads& heads, const Inputs& inputs,
                                         const KvLayout& layout, const std::vector<Step>& steps) {
  std::mt19937 random(5);
  TestCache cache(layout, random, inputs.tokens);
  const TestRope rope(RopePairs::kInterleaved, heads.head_dim / 2 * 2, 4096);
  const size_t sequences = inputs.tokens.size();
  std::vector<std::vector<float>> outputs(sequences);
  std::vector<int32_t> done(sequences, 0);
  const auto take = [](const std::vector<float>& from, int64_t row, int64_t rows, int64_t width,
                       std::vector<float>& to) {
    to.insert(to.end(), from.begin() + row * width, from.begin() + (row + rows) * width);
  };
  for (const Step& step : steps) {
    std::vector<float> q, k, v;
    std::vector<SequenceRows> rows;
    int32_t first_row = 0;
    for (size_t s = 0; s < sequences; ++s) {
      const int32_t count = step.rows[s];
      if (count == 0) continue;
      take(inputs.q[s], done[s], count, heads.heads * heads.head_dim, q);
      take(inputs.k[s], done[s], count, heads.kv_heads * heads.head_dim, k);
      take(inputs.v[s], done[s], count, heads.kv_heads * heads.head_dim, v);
      rows.push_back({cache.table(s), done[s], first_row, count});
      first_row += count;
    }
    const int32_t layer = layout.layers - 1;
    ops.RopeAndStoreKv(rope.rope, layout, cache.slab(), layer, heads.heads, rows, q.data(),
                       k.data(), v.data());
    std::vector<float> out(q.size(), std::nanf(""));
    const AttentionShape shape{heads.heads, 1 / std::sqrt(static_cast<float>(heads.head_dim))};
    ops.Attention(shape, layout, cache.slab(), layer, rows, q.data(), out.data());
    size_t next = 0;
    for (size_t s = 0; s < sequences; ++s) {
      if (step.rows[s] == 0) continue;
      take(out, rows[next].first_row, step.rows[s], heads.heads * heads.head_dim, outputs[s]);
      done[s] += step.rows[s];
      ++next;
    }
  }
  return outputs;
}

KvLayout LayoutOf(const Heads& heads, int32_t block_tokens, KvDType dtype) {
  return {2, heads.kv_heads, heads.head_dim, block_tokens, dtype};
}

// Every sequence alone and from begin to end in steps of `chunk` rows.
std::vector<Step> Chunks(const Inputs& inputs, int32_t chunk) {
  std::vector<Step> steps;
  for (size_t s = 0; s < inputs.tokens.size(); ++s) {
    for (int32_t row = 0; row < inputs.tokens[s]; row += chunk) {
      Step step{std::vector<int32_t>(inputs.tokens.size(), 0)};
      step.rows[s] = std::min(chunk, inputs.tokens[s] - row);
      steps.push_back(step);
    }
  }
  return steps;
}

bool SameRows(const std::vector<std::vector<float>>& a, const std::vector<std::vector<float>>& b) {
  for (size_t i = 0; i < a.size(); ++i) {
    if (!SameBits(a[i], b[i])) return false;
  }
  return a.size() == b.size();
}

class AttentionTest : public testing::TestWithParam<CpuIsa> {};

// Bounds for values of deviation 1, of the largest and the mean square error. 1e-5 is float against
// double over the same cache. Where pairs of BF16 are multiplied, queries and weights are rounded
// to 8 bits: by 2^-9 in the mean, which scores of deviation 2 sum up.
struct Bounds {
  double largest;
  double mean;
};
Bounds BoundsOf(CpuIsa isa, KvDType dtype) {
  if (isa >= CpuIsa::kAvx512 && dtype == KvDType::kBF16) return {0.03, 0.002};
  return {1e-5, 1e-5};
}

void ExpectNear(const std::vector<float>& actual, const std::vector<float>& expected,
                const Bounds& bounds) {
  ASSERT_EQ(actual.size(), expected.size());
  double squares = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double error = double{actual[i]} - expected[i];
    ASSERT_LE(std::abs(error), bounds.largest) << "at " << i;
    squares += error * error;
  }
  EXPECT_LE(std::sqrt(squares / static_cast<double>(expected.size())), bounds.mean);
}

// Everything that a sequence does not use is NaN or a huge block id.
void ExpectReference(const Heads& heads, const KvLayout& layout, const Inputs& inputs,
                     double wider_bounds = 1) {
  const auto reference = CreateReferenceOps();
  const std::vector<Step> whole = {{inputs.tokens}};
  const auto expected = RunSteps(*reference, heads, inputs, layout, whole);
  // Decode: the last row of each sequence in a step of its own.
  Step most = whole[0];
  for (int32_t& rows : most.rows) --rows;
  const std::vector<Step> then_last = {most, {std::vector<int32_t>(inputs.tokens.size(), 1)}};
  for (const CpuIsa isa : TestIsas()) {
    const auto cpu = CpuBackend(isa, 2);
    for (const auto& steps : {whole, then_last}) {
      const auto actual = RunSteps(*cpu, heads, inputs, layout, steps);
      for (size_t s = 0; s < expected.size(); ++s) {
        SCOPED_TRACE(testing::Message()
                     << IsaName(isa) << " " << layout.ToString() << " sequence " << s);
        const Bounds bounds = BoundsOf(isa, layout.dtype);
        ExpectNear(actual[s], expected[s],
                   {wider_bounds * bounds.largest, wider_bounds * bounds.mean});
      }
    }
  }
}

TEST(AttentionReferenceTest, AgreesAroundBlockEdges) {
  std::mt19937 random = TestRandom();
  for (const Heads& heads : {Heads{9, 3, 64}, Heads{17, 1, 32}, Heads{2, 2, 20}}) {
    for (const int32_t block : {8, 16, 32}) {
      for (const KvDType dtype : kKvDTypes) {
        const Inputs inputs = RandomInputs(random, heads, {1, block - 1, block, block + 1, 65});
        ExpectReference(heads, LayoutOf(heads, block, dtype), inputs);
      }
    }
  }
}

TEST(AttentionReferenceTest, AgreesForOtherHeads) {
  std::mt19937 random = TestRandom();
  for (const Heads& heads :
       {Heads{40, 1, 16}, Heads{4, 2, 128}, Heads{1, 1, 256}, Heads{3, 1, 96}, Heads{2, 1, 7}}) {
    for (const KvDType dtype : kKvDTypes) {
      const Inputs inputs = RandomInputs(random, heads, {1, 33, 70});
      ExpectReference(heads, LayoutOf(heads, 16, dtype), inputs);
    }
  }
}

// Several segments, in prefill and in decode, where threads share a sequence.
TEST(AttentionReferenceTest, AgreesOnLongSequences) {
  std::mt19937 random = TestRandom();
  const Heads heads{3, 1, 32};
  const Inputs inputs = RandomInputs(random, heads, {257, 300, 530});
  for (const KvDType dtype : kKvDTypes) {
    ExpectReference(heads, LayoutOf(heads, 16, dtype), inputs);
  }
}

// Scores that grow with the position by many powers of two: what was gathered is scaled down again
// and again. They are some ten times as large as elsewhere, and so are their errors.
TEST(AttentionReferenceTest, AgreesOnGrowingScores) {
  std::mt19937 random = TestRandom();
  const Heads heads{3, 1, 32};
  Inputs inputs = RandomInputs(random, heads, {300});
  for (int32_t i = 0; i < 300 * 32; ++i) inputs.k[0][i] *= 1 + static_cast<float>(i / 32) / 30;
  for (const KvDType dtype : kKvDTypes) {
    ExpectReference(heads, LayoutOf(heads, 16, dtype), inputs, 30);
  }
}

// The same bits in one chunk, in chunks of any size, token by token, together with other sequences,
// with any number of threads and any block size.
TEST_P(AttentionTest, IsInvariant) {
  std::mt19937 random = TestRandom();
  for (const auto& [heads, dtype] :
       {std::pair(Heads{6, 2, 64}, KvDType::kF16), std::pair(Heads{9, 1, 20}, KvDType::kF32),
        std::pair(Heads{8, 1, 32}, KvDType::kBF16), std::pair(Heads{5, 1, 21}, KvDType::kBF16),
        std::pair(Heads{3, 1, 64}, KvDType::kInt8), std::pair(Heads{16, 2, 16}, KvDType::kFp8),
        std::pair(Heads{7, 1, 20}, KvDType::kInt8)}) {
    const Inputs inputs = RandomInputs(random, heads, {300, 70, 33, 1});
    const auto one_thread = CpuBackend(GetParam(), 1);
    const auto expected =
        RunSteps(*one_thread, heads, inputs, LayoutOf(heads, 32, dtype), {{inputs.tokens}});
    const std::vector<Step> mixed = {
        {{200, 1, 0, 0}}, {{50, 40, 33, 1}}, {{49, 29, 0, 0}}, {{1, 0, 0, 0}}};
    const std::vector<std::vector<Step>> ways = {
        {{inputs.tokens}}, Chunks(inputs, 1), Chunks(inputs, 7), Chunks(inputs, 64), mixed};
    for (const int32_t threads : {1, 3}) {
      const auto ops = CpuBackend(GetParam(), threads);
      for (const int32_t block : {8, 16, 32}) {
        for (size_t way = 0; way < ways.size(); ++way) {
          const KvLayout layout = LayoutOf(heads, block, dtype);
          EXPECT_TRUE(SameRows(RunSteps(*ops, heads, inputs, layout, ways[way]), expected))
              << "way " << way << ", " << threads << " threads, " << layout.ToString();
        }
      }
    }
  }
}

// A row's bits do not depend on later tokens of the same chunk, even broken ones.
TEST_P(AttentionTest, LaterTokensHaveNoEffect) {
  std::mt19937 random = TestRandom();
  const Heads heads{6, 2, 32};
  constexpr int32_t kTokens = 50;
  const auto ops = CpuBackend(GetParam(), 2);
  for (const KvDType dtype : kKvDTypes) {
    const KvLayout layout = LayoutOf(heads, 8, dtype);
    Inputs inputs = RandomInputs(random, heads, {kTokens});
    const auto sound = RunSteps(*ops, heads, inputs, layout, {{inputs.tokens}})[0];
    std::fill(inputs.k[0].end() - 2 * 32, inputs.k[0].end(), std::nanf(""));
    std::fill(inputs.v[0].end() - 2 * 32, inputs.v[0].end(), std::nanf(""));
    const auto broken = RunSteps(*ops, heads, inputs, layout, {{inputs.tokens}})[0];
    constexpr int64_t kEarlier = int64_t{kTokens - 1} * 6 * 32;
    EXPECT_TRUE(SameBits(std::span(broken).first(kEarlier), std::span(sound).first(kEarlier)));
    for (const float x : std::span(broken).subspan(kEarlier)) EXPECT_TRUE(std::isnan(x));
  }
}

// A race between the pieces of a split sequence would show as a differing repeat.
TEST_P(AttentionTest, RepeatsAreIdentical) {
  std::mt19937 random = TestRandom();
  const Heads heads{2, 1, 32};
  const KvLayout layout = LayoutOf(heads, 16, KvDType::kInt8);
  constexpr int32_t kTokens = 1200;
  TestCache cache(layout, random, std::vector<int32_t>{kTokens});
  const std::vector<float> zeros(int64_t{kTokens} * 64, 0);
  std::vector<float> q = RandomFloats(random, int64_t{kTokens} * 64);
  const std::vector<float> k = RandomFloats(random, int64_t{kTokens} * 32);
  const TestRope rope(RopePairs::kHalves, 32, kTokens);
  const auto ops = CpuBackend(GetParam(), 3, kTokens);
  const std::vector<SequenceRows> all = {{cache.table(0), 0, 0, kTokens}};
  ops->RopeAndStoreKv(rope.rope, layout, cache.slab(), 1, 2, all, q.data(), k.data(), k.data());
  const std::vector<SequenceRows> last = {{cache.table(0), kTokens - 1, 0, 1}};
  std::vector<float> first(64);
  ops->Attention({2, 0.2f}, layout, cache.slab(), 1, last, q.data(), first.data());
  for (int i = 0; i < 1000; ++i) {
    std::vector<float> again(64);
    ops->Attention({2, 0.2f}, layout, cache.slab(), 1, last, q.data(), again.data());
    ASSERT_TRUE(SameBits(again, first)) << "repeat " << i;
  }
}

// What is stored has the reference's bits, and nothing else of the slab changes.
TEST_P(AttentionTest, StoresWhatTheReferenceStores) {
  std::mt19937 random = TestRandom();
  const auto reference = CreateReferenceOps();
  const auto cpu = CpuBackend(GetParam(), 2);
  const Heads heads{6, 3, 20};
  for (const RopePairs pairs : {RopePairs::kInterleaved, RopePairs::kHalves}) {
    for (const int32_t rotary_dim : {20, 12, 0}) {
      for (const KvDType dtype : kKvDTypes) {
        const int32_t block = rotary_dim == 20 ? 8 : rotary_dim == 12 ? 16 : 32;
        const KvLayout layout = LayoutOf(heads, block, dtype);
        Inputs inputs = RandomInputs(random, heads, {40, 9});
        // Also vectors of zeros, too small for a scale, and with far outliers.
        std::fill_n(inputs.k[0].begin(), 60, 0.0f);
        std::fill_n(inputs.v[0].begin() + 20, 20, 1e-35f);
        std::fill_n(inputs.v[0].begin() + 80, 7, 3e38f);
        inputs.k[0][150] = -1e6f;
        const TestRope rope(pairs, rotary_dim, 64);
        std::vector<std::vector<std::byte>> slabs;
        std::vector<std::vector<float>> queries;
        for (Ops* ops : {reference.get(), cpu.get()}) {
          std::mt19937 same_blocks(3);
          TestCache cache(layout, same_blocks, inputs.tokens);
          const std::vector<SequenceRows> rows = {{cache.table(0), 5, 0, 30},
                                                  {cache.table(1), 0, 30, 9}};
          std::vector<float> q = inputs.q[0];
          ops->RopeAndStoreKv(rope.rope, layout, cache.slab(), 1, heads.heads, rows, q.data(),
                              inputs.k[0].data(), inputs.v[0].data());
          queries.push_back(q);
          slabs.emplace_back(cache.slab(), cache.slab() + cache.slab_bytes());
        }
        EXPECT_TRUE(SameBits(queries[0], queries[1]));
        EXPECT_TRUE(slabs[0] == slabs[1]) << layout.ToString();
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, AttentionTest, testing::ValuesIn(TestIsas()),
                         [](const auto& param) { return IsaName(param.param); });

}  // namespace
}  // namespace baton::kernels
