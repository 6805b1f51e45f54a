// The engine on the cuda backend: on a GPU in a build with CUDA (skipped where there is none), and
// on the CPU, where the backend's kernels run in an emulated device.

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "tests/engine/engine_testing.h"
#include "tests/engine/tiny_model.h"

namespace baton::engine {
namespace {

constexpr int32_t kContext = 64;

LocalEngineOptions Options(bool cuda) {
  LocalEngineOptions options;
  options.cuda = cuda;
  options.reference_ops = !cuda;
  options.block_count = 8;
  options.max_rows = 32;
  options.max_logit_rows = 32;
  return options;
}

class CudaEngineTest : public testing::TestWithParam<DType> {
 protected:
  void SetUp() override {
    const auto ops = kernels::CreateCudaOps({});
    if (!ops.ok()) GTEST_SKIP() << ops.status().message();
    file_ = OpenTiny({.layers = 2, .context = kContext, .weights = GetParam()});
  }
  std::shared_ptr<const GgufFile> file_;
};

// Bound: of the logits' root mean square, for inputs rounded to 11 bits (8 with BF16 weights) in
// 2 layers.
TEST_P(CudaEngineTest, LogitsAreTheReferences) {
  const std::vector<TokenId> tokens = RandomTokens(21, 320, 3);
  const auto expected = AllLogits(*LoadEngine(*file_, Options(false)), tokens, 32);
  const auto engine = LoadEngine(*file_, Options(true));
  const auto actual = AllLogits(*engine, tokens, 32);
  ASSERT_EQ(actual.size(), expected.size());
  double errors = 0, squares = 0;
  for (size_t i = 0; i < actual.size(); ++i) {
    errors += std::pow(double{actual[i]} - expected[i], 2);
    squares += std::pow(double{expected[i]}, 2);
  }
  EXPECT_LT(std::sqrt(errors / squares), GetParam() == DType::kBF16 ? 2e-2 : 3e-3);
  EXPECT_EQ(AllLogits(*engine, tokens, 5), actual) << "chunks do not change a bit";
}

// The last row's logits, of rows that leave the last layer early, in chunks and in one; and a
// handoff through the host's slabs: what one engine alone answers, bit for bit.
TEST_P(CudaEngineTest, AnswersAloneAndOverAHandoffAreOne) {
  const std::vector<TokenId> prompt = RandomTokens(20, 320, 5);
  const SamplingParams sampling = GreedyTokens(4);
  const auto alone = LoadEngine(*file_, Options(true));
  const std::vector<OutputToken> expected = Answer(*alone, prompt, sampling, 32);
  ExpectSame(Answer(*LoadEngine(*file_, Options(true)), prompt, sampling, 7), expected);

  std::vector<std::byte> slabs[2];
  std::unique_ptr<LocalEngine> engines[2];
  std::vector<Sequence> sequences;
  for (int i = 0; i < 2; ++i) {
    LocalEngineOptions options = Options(true);
    options.allocate_slab = [&slab =
                                 slabs[i]](int64_t bytes) -> absl::StatusOr<std::span<std::byte>> {
      slab.assign(static_cast<size_t>(bytes), std::byte{0});
      return std::span(slab);
    };
    engines[i] = LoadEngine(*file_, options);
    auto sequence = engines[i]->executor().NewSequence(prompt, sampling, "");
    ASSERT_TRUE(sequence.ok()) << sequence.status();
    ASSERT_TRUE(engines[i]->executor().Reserve(&*sequence, 24).ok());
    sequences.push_back(*std::move(sequence));
  }
  const std::function<void(int32_t)> kv_stored = [](int32_t) {};
  for (const int32_t rows : {13, 7}) {
    const StepRange range{&sequences[0], rows};
    engines[0]->executor().Step({&range, 1}, &kv_stored);
  }
  const auto bytes = static_cast<size_t>(engines[0]->executor().pool().layout().block_bytes());
  for (int32_t i = 0; i < 2; ++i) {
    std::memcpy(&slabs[1][sequences[1].blocks.blocks()[i] * bytes],
                &slabs[0][sequences[0].blocks.blocks()[i] * bytes], bytes);
  }
  Sequence& target = sequences[1];
  target.computed_tokens = 20;
  engines[1]->executor().PublishFullBlocks(&target);
  target.tokens.push_back(sequences[0].tokens.back());
  while (target.output().size() < 4) {
    const StepRange range{&target, 1};
    engines[1]->executor().Step({&range, 1});
  }
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(target.output()[i], expected[i].token) << i;
}

INSTANTIATE_TEST_SUITE_P(Formats, CudaEngineTest, testing::Values(DType::kBF16, DType::kQ4_1),
                         [](const auto& param) { return std::string(Traits(param.param).name); });

}  // namespace
}  // namespace baton::engine
