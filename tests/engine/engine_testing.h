#pragma once

// What several engine tests share.

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <limits>
#include <memory>
#include <numeric>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "common/status_macros.h"
#include "engine/generate.h"
#include "engine/local_engine.h"

namespace baton::engine {

inline constexpr float kInfinity = std::numeric_limits<float>::infinity();
inline constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

inline constexpr char kDemoModel[] = "models/SmolLM2-135M-Instruct.Q4_1.gguf";

inline std::unique_ptr<LocalEngine> LoadEngine(const GgufFile& file,
                                               const LocalEngineOptions& options) {
  auto engine = LocalEngine::Load(file, options);
  BATON_CHECK(engine.ok(), std::string(engine.status().message()));
  return *std::move(engine);
}

inline std::shared_ptr<const GgufFile> OpenDemoModel() {
  auto file = GgufFile::Open(kDemoModel);
  BATON_CHECK(file.ok(), std::string(file.status().message()));
  return *file;
}

inline std::vector<TokenId> RandomTokens(size_t count, int32_t vocab, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<TokenId> tokens(count);
  for (TokenId& token : tokens) token = static_cast<TokenId>(random() % vocab);
  return tokens;
}

inline std::vector<TokenId> ReadIds(const std::string& path) {
  std::ifstream file(path);
  BATON_CHECK(file.good(), "golden files are part of the source tree");
  return {std::istream_iterator<TokenId>(file), {}};
}

// Logits [tokens.size()][vocab] of every position, computed `chunk` rows at a time.
inline std::vector<float> AllLogits(LocalEngine& engine, std::span<const TokenId> tokens,
                                    int32_t chunk) {
  BlockPool& pool = engine.executor().pool();
  BlockTable table;
  const auto count = static_cast<int32_t>(tokens.size());
  BATON_CHECK(pool.Extend(&table, pool.layout().BlocksFor(count)).ok(), "the pool is large enough");
  std::vector<int32_t> rows(static_cast<size_t>(chunk));
  std::iota(rows.begin(), rows.end(), 0);
  std::vector<float> all;
  for (int32_t first = 0; first < count; first += chunk) {
    const int32_t now = std::min(chunk, count - first);
    const kernels::SequenceRows sequence{table.blocks(), first, 0, now};
    const std::span<const float> logits = engine.model().Forward(
        {tokens.subspan(first, now), {&sequence, 1}, std::span(rows).first(now)}, pool.layout(),
        pool.slab());
    all.insert(all.end(), logits.begin(), logits.end());
  }
  return all;
}

// One prompt alone. Every number of an answer is compared, so that a difference in the last bit of
// the best 20 logits shows even where the tokens agree.
inline std::vector<OutputToken> Answer(LocalEngine& engine, const std::vector<TokenId>& prompt,
                                       const SamplingParams& sampling, int32_t chunk_tokens) {
  GenerateOptions options;
  options.chunk_tokens = chunk_tokens;
  auto result = Generate(&engine.executor(), prompt, sampling, options);
  BATON_CHECK(result.ok(), std::string(result.status().message()));
  return std::move(result->output);
}

inline void ExpectSame(const std::vector<OutputToken>& a, const std::vector<OutputToken>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    SCOPED_TRACE(testing::Message() << "output token " << i);
    ASSERT_EQ(a[i].token, b[i].token);
    ASSERT_EQ(a[i].position, b[i].position);
    ASSERT_EQ(a[i].logprob, b[i].logprob);
    ASSERT_EQ(a[i].top.size(), b[i].top.size());
    for (size_t j = 0; j < a[i].top.size(); ++j) {
      ASSERT_EQ(a[i].top[j].token, b[i].top[j].token);
      ASSERT_EQ(a[i].top[j].logprob, b[i].top[j].logprob);
    }
  }
}

// Greedy, never ending early, with the logprobs that ExpectSame wants.
inline SamplingParams GreedyTokens(int32_t max_tokens) {
  SamplingParams sampling;
  sampling.temperature = 0;
  sampling.max_tokens = max_tokens;
  sampling.ignore_eos = true;
  sampling.logprobs = 20;
  return sampling;
}

}  // namespace baton::engine
