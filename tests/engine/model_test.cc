// The forward pass: against NumPy on the demo model, and the cpu backend against the reference on
// random models of every number format.

#include "engine/model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <sstream>

#include "tests/engine/engine_testing.h"
#include "tests/engine/tiny_model.h"

namespace baton::engine {
namespace {

using kernels::KvDType;
using testing::HasSubstr;

struct GoldenLogits {
  int32_t position;
  std::vector<std::pair<TokenId, float>> best;  // best first
};
struct GoldenPrompt {
  std::string name;
  std::vector<TokenId> tokens;
  std::vector<GoldenLogits> logits;
};

std::vector<GoldenPrompt> ReadGolden() {
  std::ifstream file("tests/golden/engine/forward.txt");
  std::vector<GoldenPrompt> prompts;
  for (std::string line, kind; std::getline(file, line);) {
    std::istringstream words(line);
    words >> kind;
    if (kind == "prompt") {
      GoldenPrompt& prompt = prompts.emplace_back();
      words >> prompt.name;
      prompt.tokens = {std::istream_iterator<TokenId>(words), {}};
    } else {
      GoldenLogits& logits = prompts.back().logits.emplace_back();
      words >> logits.position;
      for (std::pair<TokenId, float> pair; words >> pair.first >> pair.second;) {
        logits.best.push_back(pair);
      }
    }
  }
  return prompts;
}

// `logits` has the golden best five, in that order but for pairs closer than `tolerance`, each
// within `tolerance` of its golden value.
void ExpectGolden(std::span<const float> logits, const GoldenLogits& golden, float tolerance) {
  ASSERT_EQ(golden.best.size(), 5u);
  for (size_t i = 0; i < golden.best.size(); ++i) {
    const auto [token, value] = golden.best[i];
    EXPECT_NEAR(logits[token], value, tolerance) << "token " << token;
    for (size_t j = i + 1; j < golden.best.size(); ++j) {
      if (value - golden.best[j].second > tolerance) {
        EXPECT_GT(logits[token], logits[golden.best[j].first]) << i << " and " << j;
      }
    }
  }
  const float worst = golden.best.back().second + tolerance;
  for (size_t token = 0; token < logits.size(); ++token) {
    const bool is_golden = std::ranges::any_of(
        golden.best, [&](const auto& pair) { return pair.first == static_cast<TokenId>(token); });
    ASSERT_TRUE(is_golden || logits[token] <= worst) << "token " << token;
  }
}

void CheckAgainstNumPy(const LocalEngineOptions& options, float tolerance, size_t longest) {
  const auto engine = LoadEngine(*OpenDemoModel(), options);
  const std::vector<GoldenPrompt> prompts = ReadGolden();
  ASSERT_EQ(prompts.size(), 4u);
  const auto vocab = static_cast<size_t>(engine->model().config().vocab);
  for (const GoldenPrompt& prompt : prompts) {
    if (prompt.tokens.size() > longest) continue;
    const std::vector<float> logits = AllLogits(*engine, prompt.tokens, 64);
    ASSERT_GE(prompt.logits.size(), 4u);
    for (const GoldenLogits& golden : prompt.logits) {
      SCOPED_TRACE(testing::Message() << prompt.name << " at " << golden.position);
      ExpectGolden(std::span(logits).subspan(golden.position * vocab, vocab), golden, tolerance);
    }
  }
}

// Both compute with fp32 activations and weights; only the order of the sums differs.
TEST(DemoModel, ReferenceAgreesWithNumPy) {
  LocalEngineOptions options;
  options.reference_ops = true;
  options.kv_dtype = KvDType::kF32;
  CheckAgainstNumPy(options, 2e-3f, /*longest=*/50);
}

// Activations are rounded to 8 bits before every product, keys and values to 16: of logits that
// spread over tens, the golden ones move by 0.1 in the mean and 0.6 at most.
TEST(DemoModel, CpuAgreesWithNumPy) { CheckAgainstNumPy({}, 0.8f, /*longest=*/1000); }

TEST(DemoModel, PortableCpuAgreesWithNumPy) {
  CheckAgainstNumPy({.isa = kernels::CpuIsa::kPortable}, 0.8f, /*longest=*/50);
}

double RelativeError(std::span<const float> actual, std::span<const float> expected) {
  double error = 0, norm = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    error += (double{actual[i]} - expected[i]) * (double{actual[i]} - expected[i]);
    norm += double{expected[i]} * expected[i];
  }
  return std::sqrt(error / norm);
}

std::vector<float> TinyLogits(const TinySpec& spec, bool reference, KvDType kv_dtype) {
  LocalEngineOptions options;
  options.reference_ops = reference;
  options.threads = 2;
  options.kv_dtype = kv_dtype;
  options.max_rows = 64;
  const auto engine = LoadEngine(*OpenTiny(spec), options);
  return AllLogits(*engine, RandomTokens(50, static_cast<int32_t>(spec.vocab), 3), 64);
}

// Plain formats differ by the order of the sums; BF16's activations are rounded to BF16 where the
// machine multiplies them so; those of block formats to 8 bits.
double Bound(DType weights) {
  if (weights == DType::kBF16) return 0.01;
  return Traits(weights).block_elements == 1 ? 1e-5 : 0.03;
}

class EveryFormat : public testing::TestWithParam<DType> {};

TEST_P(EveryFormat, CpuAgreesWithReference) {
  for (const bool tied : {true, false}) {
    TinySpec spec;
    spec.weights = GetParam();
    spec.tied = tied;
    const double error = RelativeError(TinyLogits(spec, false, KvDType::kF32),
                                       TinyLogits(spec, true, KvDType::kF32));
    std::printf("[ MEASURED ] %s %s relative error %.2e\n",
                std::string(Traits(GetParam()).name).c_str(), tied ? "tied" : "untied", error);
    EXPECT_LT(error, Bound(GetParam()));
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, EveryFormat,
                         testing::Values(DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0,
                                         DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1,
                                         DType::kQ4_K, DType::kQ5_K, DType::kQ6_K),
                         [](const auto& param) { return std::string(Traits(param.param).name); });

// Widths that fill no vector register evenly, one kv head, and a head that is rotated only in part.
TEST(Model, OddShapesAgreeWithReference) {
  TinySpec odd;
  odd.embedding = 40;
  odd.heads = 5;
  odd.kv_heads = 1;
  odd.head_dim = 6;
  odd.feed_forward = 72;
  odd.vocab = 97;
  odd.ints["llama.rope.dimension_count"] = 4;
  EXPECT_LT(
      RelativeError(TinyLogits(odd, false, KvDType::kF32), TinyLogits(odd, true, KvDType::kF32)),
      Bound(DType::kF32));
  TinySpec blocks;
  blocks.embedding = 96;
  blocks.heads = 3;
  blocks.kv_heads = 1;
  blocks.head_dim = 32;
  blocks.feed_forward = 160;
  blocks.vocab = 101;
  blocks.weights = DType::kQ8_0;
  EXPECT_LT(RelativeError(TinyLogits(blocks, false, KvDType::kF32),
                          TinyLogits(blocks, true, KvDType::kF32)),
            Bound(DType::kQ8_0));
}

TEST(Model, HalfPrecisionNormsAndKeysAreUsed) {
  TinySpec spec;
  const std::vector<float> exact = TinyLogits(spec, true, KvDType::kF32);
  const double kv_error = RelativeError(TinyLogits(spec, true, KvDType::kF16), exact);
  EXPECT_GT(kv_error, 0);
  EXPECT_LT(kv_error, 2e-3);
  spec.norms = DType::kF16;
  const double norm_error = RelativeError(TinyLogits(spec, true, KvDType::kF32), exact);
  EXPECT_GT(norm_error, 0);
  EXPECT_LT(norm_error, 2e-3);
}

TEST(Model, RopeScalingDividesTheFrequencies) {
  TinySpec plain;
  const std::vector<float> unscaled = TinyLogits(plain, true, KvDType::kF32);
  TinySpec linear;
  linear.strings["llama.rope.scaling.type"] = "linear";
  linear.floats["llama.rope.scaling.factor"] = 4;
  TinySpec divided;
  divided.extra_vectors["rope_freqs.weight"] = std::vector<float>(32, 4.0f);
  const std::vector<float> scaled = TinyLogits(linear, true, KvDType::kF32);
  EXPECT_EQ(scaled, TinyLogits(divided, true, KvDType::kF32));
  EXPECT_GT(RelativeError(scaled, unscaled), 1e-3);
}

TEST(Model, LogitsAreOfTheRowsAskedFor) {
  LocalEngineOptions options;
  options.reference_ops = true;
  const auto engine = LoadEngine(*OpenTiny({}), options);
  const std::vector<TokenId> tokens = RandomTokens(20, 320, 3);
  const std::vector<float> all = AllLogits(*engine, tokens, 64);
  BlockPool& pool = engine->executor().pool();
  BlockTable table;
  ASSERT_TRUE(pool.Extend(&table, 2).ok());
  const kernels::SequenceRows rows{table.blocks(), 0, 0, 20};
  const std::vector<int32_t> wanted = {4, 19};
  const std::span<const float> logits =
      engine->model().Forward({tokens, {&rows, 1}, wanted}, pool.layout(), pool.slab());
  ASSERT_EQ(logits.size(), 2u * 320);
  EXPECT_TRUE(std::ranges::equal(logits.first(320), std::span(all).subspan(4 * 320, 320)));
  EXPECT_TRUE(std::ranges::equal(logits.last(320), std::span(all).subspan(19 * 320, 320)));
}

TEST(Model, ReportsProgressAndItsSize) {
  std::vector<double> progress;
  LocalEngineOptions options;
  options.reference_ops = true;
  options.progress = [&](double share) { progress.push_back(share); };
  const auto engine = LoadEngine(*OpenTiny({}), options);
  ASSERT_FALSE(progress.empty());
  EXPECT_TRUE(std::ranges::is_sorted(progress));
  EXPECT_DOUBLE_EQ(progress.back(), 1);
  // 320 x 256 of embedding; per layer 2 * 256 x 256, 2 * 128 x 256 and 3 * 512 x 256; as F32.
  EXPECT_EQ(engine->model().weight_bytes(), 4 * 256 * (320 + 3 * (2 * 256 + 2 * 128 + 3 * 512)));
}

// Two sequences in a step, logits of a few rows: the bits of the same rows among all.
TEST(Model, RowsWithoutLogitsChangeNoOther) {
  const auto engine = LoadEngine(*OpenTiny({.weights = DType::kQ8_0}), {.block_count = 8});
  BlockPool& pool = engine->executor().pool();
  const std::vector<TokenId> tokens = RandomTokens(29, 320, 7);
  BlockTable first;
  BlockTable second;
  ASSERT_TRUE(pool.Extend(&first, 2).ok() && pool.Extend(&second, 1).ok());
  const kernels::SequenceRows sequences[] = {{first.blocks(), 0, 0, 20},
                                             {second.blocks(), 0, 20, 9}};
  const auto logits_of = [&](std::vector<int32_t> rows) {
    const std::span<const float> logits =
        engine->model().Forward({tokens, sequences, rows}, pool.layout(), pool.slab());
    return std::vector<float>(logits.begin(), logits.end());
  };
  std::vector<int32_t> every(tokens.size());
  std::iota(every.begin(), every.end(), 0);
  const std::vector<float> all = logits_of(every);
  EXPECT_TRUE(logits_of({}).empty());
  for (const std::vector<int32_t>& rows :
       {std::vector<int32_t>{0}, {19}, {19, 28}, {3, 4, 19, 20, 22, 28}}) {
    const std::vector<float> some = logits_of(rows);
    for (size_t i = 0; i < rows.size(); ++i) {
      EXPECT_TRUE(std::equal(&some[i * 320], &some[i * 320] + 320, &all[rows[i] * 320])) << rows[i];
    }
  }
}

TEST(Model, RefusesOptionsWithoutSense) {
  const auto file = OpenTiny({});
  const auto ops = kernels::CreateReferenceOps();
  EXPECT_FALSE(Model::Load(*file, ops.get(), {.max_rows = 0}).ok());
  EXPECT_FALSE(Model::Load(*file, ops.get(), {.max_logit_rows = 0}).ok());
  EXPECT_FALSE(Model::Load(*file, ops.get(), {.max_context = -1}).ok());
  EXPECT_EQ((*Model::Load(*file, ops.get(), {.max_context = 100}))->config().context, 100);
  EXPECT_EQ((*Model::Load(*file, ops.get(), {.max_context = 9999}))->config().context, 256);
  const auto zero_divisor =
      OpenTiny({.extra_vectors = {{"rope_freqs.weight", std::vector<float>(32, 0.0f)}}});
  EXPECT_THAT(std::string(Model::Load(*zero_divisor, ops.get(), {}).status().message()),
              HasSubstr("divisor 0"));
}

}  // namespace
}  // namespace baton::engine
