// Tokens drawn on the device are those that the sampler draws: on a GPU in a build with CUDA
// (skipped where there is none), and on the CPU, where the kernel runs in an emulated device.

#include "engine/device_draw.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "engine/sampler.h"
#include "kernels/ops.h"

namespace baton::engine {
namespace {

constexpr TokenId kEnd = 3;

struct Row {
  std::vector<float> logits;
  SamplingParams params;
  std::vector<TokenId> prompt, output;
};

class DeviceDrawTest : public testing::Test {
 protected:
  void SetUp() override {
    auto ops = kernels::CreateCudaOps({});
    if (!ops.ok()) GTEST_SKIP() << ops.status().message();
    ops_ = *std::move(ops);
  }

  // What the device draws, and how many of the rows it left to the host. All others must be the
  // sampler's.
  size_t Check(const std::vector<Row>& rows) {
    const auto vocab = static_cast<int32_t>(rows[0].logits.size());
    const TokenId end_tokens[] = {kEnd};
    DeviceDraws draws(vocab);
    std::vector<float> logits;
    for (const Row& row : rows) {
      draws.Add(row.params, row.prompt, row.output, end_tokens);
      logits.insert(logits.end(), row.logits.begin(), row.logits.end());
    }
    const auto buffer = *ops_->NewBuffer(std::ssize(logits) * 4);
    ops_->ToDevice(buffer->data(), logits.data(), std::ssize(logits) * 4);
    std::vector<TokenId> tokens(rows.size());
    ops_->DrawTokens(buffer->floats(), vocab, draws.draws(), draws.edits(), tokens);
    Sampler sampler(vocab);
    size_t left = 0;
    for (size_t i = 0; i < rows.size(); ++i) {
      if (tokens[i] == kernels::kDrawnByHost) {
        ++left;
        continue;
      }
      std::vector<float> copy = rows[i].logits;
      const OutputToken expected =
          sampler.Sample(copy, rows[i].params, rows[i].prompt, rows[i].output, end_tokens);
      EXPECT_EQ(tokens[i], expected.token) << "row " << i;
    }
    std::vector<float> after(logits.size());
    const kernels::CopyPiece piece{after.data(), buffer->data(), std::ssize(logits) * 4};
    ops_->ToHost({&piece, 1});
    EXPECT_EQ(std::memcmp(after.data(), logits.data(), logits.size() * 4), 0)
        << "logits stay as they are";
    return left;
  }

  // Some equal, some far below.
  std::vector<float> Logits(size_t count) {
    std::normal_distribution<float> normal(0, 3);
    std::vector<float> logits(count);
    for (float& logit : logits) logit = std::round(normal(random_) * 64) / 64;
    for (size_t i = 0; i < count; i += 7) logits[i] -= 200;
    return logits;
  }

  SamplingParams RandomParams() {
    const auto one_of = [this](std::initializer_list<float> values) {
      return values.begin()[random_() % values.size()];
    };
    SamplingParams params;
    params.temperature = one_of({0, 0.3f, 1, 1, 1.7f});
    params.top_k = static_cast<int32_t>(one_of({0, 0, 1, 5, 40, 900}));
    params.top_p = one_of({1, 1, 0.95f, 0.5f, 0.01f});
    params.min_p = one_of({0, 0, 0.02f, 0.4f});
    params.repetition_penalty = one_of({1, 1, 1.3f, 0.8f});
    params.presence_penalty = one_of({0, 0.5f});
    params.frequency_penalty = one_of({0, -0.25f, 0.7f});
    params.min_tokens = static_cast<int32_t>(one_of({0, 100}));
    params.ignore_eos = random_() % 2 == 0;
    params.stop_token_ids = {8};
    params.seed = random_();
    return params;
  }

  std::mt19937 random_{5};
  std::unique_ptr<kernels::Ops> ops_;
};

TEST_F(DeviceDrawTest, IsTheSamplers) {
  std::vector<Row> rows;
  for (int i = 0; i < 100; ++i) {
    Row row{Logits(5000), RandomParams(), {}, {}};
    for (int t = 0; t < 20; ++t) row.prompt.push_back(static_cast<TokenId>(random_() % 5000));
    for (int t = 0; t < i % 9; ++t) row.output.push_back(static_cast<TokenId>(random_() % 40));
    if (i % 4 == 0) row.params.logit_bias = {{17, 4.5f}, {kEnd, 90.0f}, {5, -100.0f}};
    rows.push_back(std::move(row));
  }
  EXPECT_LE(Check(rows), 20u) << "of which nuclei are long";
}

// One block of sums, and the last block of one weight.
TEST_F(DeviceDrawTest, KnowsTheEdges) {
  for (const size_t vocab : {size_t{1}, size_t{33}, size_t{2048}, size_t{2049}}) {
    std::vector<Row> rows;
    for (int i = 0; i < 6; ++i) {
      SamplingParams params;
      params.seed = random_();
      if (i % 2 == 0) params.top_p = 0.7f;
      rows.push_back({Logits(vocab), params, {}, {}});
    }
    const float infinity = std::numeric_limits<float>::infinity();
    rows[1].logits.assign(vocab, -infinity);
    rows[2].logits[0] = std::nanf("");
    rows[3].logits.assign(vocab, 0.0f);
    rows[3].logits[vocab / 2] = -0.0f;
    rows[4].logits[vocab - 1] = 1e30f;
    EXPECT_LE(Check(rows), 2u) << vocab;
  }
}

TEST_F(DeviceDrawTest, LeavesToTheHostWhatOnlyItDoes) {
  std::vector<Row> rows(7, Row{Logits(3000), {}, {}, {}});
  rows[0].params.watermark = true;
  rows[1].params.logprobs = 0;
  rows[2].params.logit_bias = {{1, 1.0f}, {1, 1.0f}};
  rows[3].params.top_k = 1025;
  rows[4].logits[7] = std::numeric_limits<float>::infinity();
  rows[5].params.allowed_token_ids = {5, 6};
  rows[6].params.bad_words = {{8}};
  EXPECT_EQ(Check(rows), 7u);
}

}  // namespace
}  // namespace baton::engine
