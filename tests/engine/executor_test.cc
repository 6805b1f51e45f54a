// Sequences and steps: the limits of a request, how it ends, and above all that its numbers do not
// depend on anything but itself, bit for bit.

#include "engine/executor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ranges>
#include <set>

#include "engine/perplexity.h"
#include "engine/step_planner.h"
#include "kernels/cpu/cpu_isa.h"
#include "tests/common/counting_new.h"
#include "tests/engine/engine_testing.h"
#include "tests/engine/tiny_model.h"

namespace baton::engine {
namespace {

using kernels::CpuIsa;
using kernels::KvDType;
using testing::HasSubstr;

class ExecutorTest : public testing::Test {
 protected:
  ExecutorTest() { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
  std::unique_ptr<LocalEngine> Load(LocalEngineOptions options = {}) const {
    options.threads = 2;
    return LoadEngine(*file_, options);
  }
  std::string Refusal(const std::vector<TokenId>& prompt, const SamplingParams& sampling = {},
                      int32_t output_tokens = 0) {
    const auto sequence = engine_->executor().NewSequence(prompt, sampling, "", output_tokens);
    BATON_CHECK(!sequence.ok(), "the request is refused");
    EXPECT_EQ(sequence.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(sequence.status().message());
  }
  Sequence NewSequence(const std::vector<TokenId>& prompt, const SamplingParams& sampling = {}) {
    return *engine_->executor().NewSequence(prompt, sampling, "");
  }
  // Computes all that is pending; the sampled token.
  TokenId Finish(Sequence& sequence) {
    Executor& executor = engine_->executor();
    const StepRange range{&sequence, sequence.pending()};
    BATON_CHECK(executor.Reserve(&sequence, range.tokens).ok(), "the pool is large enough");
    return executor.Step({&range, 1})[0]->token;
  }

  std::shared_ptr<const GgufFile> file_ = OpenTiny({.weights = DType::kQ8_0});
  std::unique_ptr<LocalEngine> engine_ = Load();
};

TEST_F(ExecutorTest, RefusesWhatDoesNotFit) {
  EXPECT_EQ(Refusal(std::vector<TokenId>(300, 1)), "prompt has 300 tokens, context is 256");
  EXPECT_EQ(Refusal(std::vector<TokenId>(256, 1)),
            "prompt has 256 tokens, context is 256 and must hold at least one output token");
  EXPECT_TRUE(engine_->executor().NewSequence(std::vector<TokenId>(255, 1), {}, "").ok());
  EXPECT_EQ(Refusal({}), "prompt has no tokens");
  EXPECT_EQ(Refusal({1, 320}), "prompt token 1 is 320, vocabulary is [0, 320)");
  EXPECT_EQ(Refusal({-1}), "prompt token 0 is -1, vocabulary is [0, 320)");
  SamplingParams too_cold;
  too_cold.temperature = -1;
  EXPECT_THAT(Refusal({1}, too_cold), HasSubstr("temperature is -1"));
  EXPECT_THAT(Refusal({1, 2}, {}, 2), HasSubstr("2 of 2 tokens are said to be output"));
  EXPECT_EQ(Refusal({1, 2, 3}, GreedyTokens(1), 2),
            "2 output tokens are more than max_tokens of 1");
}

// A stream may be moved between its last token and the news that it was the last.
TEST_F(ExecutorTest, OutputThatIsCompleteIsSaidToBe) {
  const Executor& executor = engine_->executor();
  const auto reason = [&](std::vector<TokenId> tokens, const SamplingParams& sampling,
                          int32_t output_tokens) {
    const auto sequence = executor.NewSequence(std::move(tokens), sampling, "", output_tokens);
    BATON_CHECK(sequence.ok(), sequence.status().ToString());
    return executor.Finished(*sequence);
  };
  SamplingParams sampling;
  sampling.max_tokens = 2;
  EXPECT_EQ(reason({5, 6, 7}, sampling, 2), FinishReason::kLength);
  EXPECT_EQ(reason({5, 6, 2}, sampling, 2), FinishReason::kStop);
  EXPECT_EQ(reason({5, 6}, sampling, 1), std::nullopt);
  sampling.max_tokens = 200;
  EXPECT_EQ(reason(std::vector<TokenId>(256, 1), sampling, 100), FinishReason::kLength);
}

TEST_F(ExecutorTest, EndsByStopTokenLengthAndContext) {
  const Executor& executor = engine_->executor();
  SamplingParams sampling;
  sampling.max_tokens = 3;
  sampling.stop_token_ids = {9};
  Sequence sequence = NewSequence({5, 2}, sampling);  // 2 is the model's end token
  EXPECT_EQ(executor.Finished(sequence), std::nullopt) << "a prompt may end with an end token";
  sequence.tokens.push_back(7);
  EXPECT_EQ(executor.Finished(sequence), std::nullopt);
  sequence.tokens.push_back(2);
  EXPECT_EQ(executor.Finished(sequence), FinishReason::kStop);
  sequence.sampling.ignore_eos = true;
  EXPECT_EQ(executor.Finished(sequence), std::nullopt);
  sequence.tokens.back() = 9;
  EXPECT_EQ(executor.Finished(sequence), FinishReason::kStop);
  sequence.sampling.min_tokens = 2;
  EXPECT_EQ(executor.Finished(sequence), std::nullopt);
  sequence.tokens.push_back(8);
  EXPECT_EQ(executor.Finished(sequence), FinishReason::kLength);
  sequence.tokens.back() = 9;
  EXPECT_EQ(executor.Finished(sequence), FinishReason::kStop) << "stop goes before length";

  Sequence full = NewSequence(std::vector<TokenId>(255, 1), GreedyTokens(100));
  EXPECT_EQ(executor.Finished(full), std::nullopt);
  full.tokens.push_back(7);
  EXPECT_EQ(executor.Finished(full), FinishReason::kLength);
}

TEST_F(ExecutorTest, AnswersDoNotDependOnChunkSize) {
  const std::vector<TokenId> prompt = RandomTokens(150, 320, 1);
  const std::vector<OutputToken> whole = Answer(*engine_, prompt, GreedyTokens(40), 256);
  for (const int32_t chunk : {1, 7, 16, 33, 100}) {
    SCOPED_TRACE(testing::Message() << "chunk " << chunk);
    const auto fresh = Load();
    ExpectSame(Answer(*fresh, prompt, GreedyTokens(40), chunk), whole);
  }
}

// BF16 weights are multiplied in tiles and in vectors, as the rows of a step are many or few.
TEST_F(ExecutorTest, AnswersDoNotDependOnChunkSizeInAnyInstructionSet) {
  const std::vector<TokenId> prompt = RandomTokens(150, 320, 1);
  const auto file = OpenTiny({.weights = DType::kBF16});
  for (const CpuIsa isa : {CpuIsa::kPortable, CpuIsa::kAvx2, CpuIsa::kAvx512, CpuIsa::kAmx}) {
    if (!kernels::ResolveCpuIsa(isa).ok()) continue;
    const std::vector<OutputToken> whole =
        Answer(*LoadEngine(*file, {.isa = isa}), prompt, GreedyTokens(20), 256);
    for (const int32_t chunk : {2, 16, 37}) {
      SCOPED_TRACE(testing::Message() << kernels::CpuIsaName(isa) << ", chunk " << chunk);
      ExpectSame(Answer(*LoadEngine(*file, {.isa = isa}), prompt, GreedyTokens(20), chunk), whole);
    }
  }
}

TEST_F(ExecutorTest, AnswersDoNotDependOnBlockSizeOrThreads) {
  const std::vector<TokenId> prompt = RandomTokens(150, 320, 1);
  const std::vector<OutputToken> expected = Answer(*engine_, prompt, GreedyTokens(40), 256);
  for (const int32_t block_tokens : {8, 16, 32}) {
    for (const int32_t threads : {1, 3}) {
      SCOPED_TRACE(testing::Message() << block_tokens << " tokens a block, threads " << threads);
      const auto other = LoadEngine(*file_, {.threads = threads, .block_tokens = block_tokens});
      ExpectSame(Answer(*other, prompt, GreedyTokens(40), 50), expected);
    }
  }
}

TEST_F(ExecutorTest, AnswersDoNotDependOnChunksBlocksOrThreadsInAnyKvFormat) {
  const std::vector<TokenId> prompt = RandomTokens(150, 320, 1);
  for (const KvDType dtype : kernels::kKvDTypes) {
    const auto engine = Load({.kv_dtype = dtype});
    EXPECT_EQ(engine->executor().pool().layout().dtype, dtype);
    const std::vector<OutputToken> expected = Answer(*engine, prompt, GreedyTokens(40), 256);
    for (const auto& [chunk, block_tokens] : {std::pair{1, 16}, {7, 8}, {33, 32}, {256, 8}}) {
      SCOPED_TRACE(testing::Message() << kernels::Traits(dtype).name << ", chunk " << chunk
                                      << ", block " << block_tokens);
      const auto other = LoadEngine(
          *file_, {.threads = chunk % 4, .kv_dtype = dtype, .block_tokens = block_tokens});
      ExpectSame(Answer(*other, prompt, GreedyTokens(40), chunk), expected);
    }
  }
}

TEST_F(ExecutorTest, AnswersDoNotDependOnTheCachedPrefix) {
  const std::vector<TokenId> prompt = RandomTokens(160, 320, 1);  // ten blocks exactly
  const std::vector<OutputToken> expected =
      Answer(*Load({.prefix_cache = false}), prompt, GreedyTokens(20), 256);
  for (size_t shared = 0; shared <= prompt.size(); shared += 20) {
    SCOPED_TRACE(testing::Message() << shared << " tokens shared");
    const auto engine = Load();
    std::vector<TokenId> earlier(prompt.begin(), prompt.begin() + shared);
    earlier.push_back((prompt[std::min<size_t>(shared, 159)] + 1) % 320);  // and then another way
    Answer(*engine, earlier, GreedyTokens(5), 256);
    const auto result = Generate(&engine->executor(), prompt, GreedyTokens(20), {});
    ASSERT_TRUE(result.ok());
    // A fully cached prompt still computes its last block, whose last token's logits are needed.
    EXPECT_EQ(result->cached_prompt_tokens, std::min<int32_t>(shared / 16 * 16, 144));
    ExpectSame(result->output, expected);
  }
}

TEST_F(ExecutorTest, PrefixesAreSharedOnlyInsideATenant) {
  Executor& executor = engine_->executor();
  const std::vector<TokenId> prompt = RandomTokens(100, 320, 1);
  const auto cached = [&](const std::string& salt) {
    const auto result = Generate(&executor, prompt, GreedyTokens(1), {.salt = salt});
    return result->cached_prompt_tokens;
  };
  EXPECT_EQ(cached("a"), 0);
  EXPECT_EQ(cached("a"), 96);
  EXPECT_EQ(cached("b"), 0);
  EXPECT_EQ(cached(""), 0);
  EXPECT_NE(executor.ChainRootFor("a"), executor.ChainRootFor("b"));
  EXPECT_NE(executor.ChainRootFor(""), Load({.block_tokens = 8})->executor().ChainRootFor(""));
}

TEST_F(ExecutorTest, OutputIsCachedToo) {
  std::vector<TokenId> conversation = RandomTokens(30, 320, 1);
  for (const OutputToken& token : Answer(*engine_, conversation, GreedyTokens(40), 256)) {
    conversation.push_back(token.token);
  }
  conversation.push_back(4);
  const auto result = Generate(&engine_->executor(), conversation, GreedyTokens(1), {});
  EXPECT_EQ(result->cached_prompt_tokens, 64);  // of 71; the last output token has no KV
}

TEST_F(ExecutorTest, SharedBlocksAreNeverWritten) {
  const std::vector<TokenId> prompt = RandomTokens(40, 320, 1);
  Sequence first = NewSequence(prompt);
  Finish(first);
  Sequence second = NewSequence(prompt);
  engine_->executor().TakeCachedPrefix(&second);
  ASSERT_EQ(second.computed_tokens, 32);
  EXPECT_EQ(second.blocks.blocks()[0], first.blocks.blocks()[0]);
  second.computed_tokens = 20;  // a bug that would write into block 1
  const StepRange range{&second, 20};
  ASSERT_TRUE(engine_->executor().Reserve(&second, 20).ok());
  EXPECT_DEATH(engine_->executor().Step({&range, 1}), "nobody writes a shared block");
}

TEST_F(ExecutorTest, UnreservedAndOverlongRangesAreBugs) {
  Sequence sequence = NewSequence({1, 2, 3});
  StepRange range{&sequence, 3};
  EXPECT_DEATH(engine_->executor().Step({&range, 1}), "blocks are reserved");
  range.tokens = 4;
  ASSERT_TRUE(engine_->executor().Reserve(&sequence, 4).ok());
  EXPECT_DEATH(engine_->executor().Step({&range, 1}), "a range is pending tokens");
}

TEST_F(ExecutorTest, LayersThatAreSaidToBeStoredDoNotChange) {
  Executor& executor = engine_->executor();
  const kernels::KvLayout& layout = executor.pool().layout();
  Sequence sequence = NewSequence(RandomTokens(100, 320, 5));
  ASSERT_TRUE(executor.Reserve(&sequence, 100).ok());
  const auto bytes_of_blocks = [&](int32_t layers) {
    std::vector<std::byte> bytes;
    for (const int32_t block : sequence.blocks.blocks()) {
      const auto slab = engine_->slab().subspan(static_cast<size_t>(block * layout.block_bytes()));
      bytes.insert(bytes.end(), slab.begin(), slab.begin() + layers * layout.layer_bytes());
    }
    return bytes;
  };
  std::vector<std::vector<std::byte>> stored;
  const std::function<void(int32_t)> kv_stored = [&](int32_t layers) {
    EXPECT_EQ(layers, static_cast<int32_t>(stored.size()) + 1);
    stored.push_back(bytes_of_blocks(layers));
  };
  for (const int32_t tokens : {60, 40}) {  // without and with logits
    stored.clear();
    const StepRange range{&sequence, tokens};
    EXPECT_EQ(executor.Step({&range, 1}, &kv_stored)[0].has_value(), tokens == 40);
    ASSERT_EQ(stored.size(), static_cast<size_t>(layout.layers));
    for (int32_t layers = 1; layers <= layout.layers; ++layers) {
      EXPECT_TRUE(stored[static_cast<size_t>(layers) - 1] == bytes_of_blocks(layers)) << layers;
    }
  }
}

TEST_F(ExecutorTest, AFullPoolRefusesAndChangesNothing) {
  const auto engine = Load({.block_count = 4});
  Sequence first = *engine->executor().NewSequence(RandomTokens(40, 320, 1), {}, "");
  ASSERT_TRUE(engine->executor().Reserve(&first, 40).ok());
  Sequence second = *engine->executor().NewSequence(RandomTokens(40, 320, 2), {}, "");
  EXPECT_EQ(engine->executor().Reserve(&second, 40).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(second.blocks.size(), 0);
  EXPECT_EQ(engine->executor().pool().counts().held, 3);
  first.blocks.Clear();
  EXPECT_TRUE(engine->executor().Reserve(&second, 40).ok());
}

// A migration: prompt and delivered output arrive together, and the rest is as if nothing happened.
TEST_F(ExecutorTest, AReplayedSequenceGoesOnAsTheFirstWould) {
  SamplingParams sampling = GreedyTokens(30);
  sampling.temperature = 1;
  sampling.seed = 99;
  sampling.frequency_penalty = 0.5;
  const std::vector<TokenId> prompt = RandomTokens(50, 320, 1);
  const std::vector<OutputToken> expected = Answer(*engine_, prompt, sampling, 256);
  for (const size_t delivered : {1, 13, 29}) {
    std::vector<TokenId> tokens = prompt;
    for (size_t i = 0; i < delivered; ++i) tokens.push_back(expected[i].token);
    const auto other = Load();
    Executor& executor = other->executor();
    auto sequence = executor.NewSequence(tokens, sampling, "", static_cast<int32_t>(delivered));
    ASSERT_TRUE(sequence.ok()) << sequence.status();
    std::vector<OutputToken> output(expected.begin(), expected.begin() + delivered);
    while (!executor.Finished(*sequence)) {
      const StepRange range{&*sequence, sequence->pending()};
      ASSERT_TRUE(executor.Reserve(&*sequence, range.tokens).ok());
      output.push_back(*executor.Step({&range, 1})[0]);
    }
    ExpectSame(output, expected);
  }
}

// Many sequences that come and go, share prefixes, and mix prefill and decode in one step.
class Crowd {
 public:
  static constexpr size_t kMostRunning = 8;

  Crowd(LocalEngine& engine, uint32_t seed) : engine_(engine), random_(seed) {}

  void Run(const std::vector<std::vector<TokenId>>& prompts,
           const std::vector<SamplingParams>& samplings) {
    outputs.resize(prompts.size());
    size_t next = 0;
    while (next < prompts.size() || !running_.empty()) {
      const bool arrives =
          running_.empty() || (running_.size() < kMostRunning && random_() % 3 == 0);
      if (next < prompts.size() && arrives) {
        auto sequence = engine_.executor().NewSequence(prompts[next], samplings[next], "");
        ASSERT_TRUE(sequence.ok()) << sequence.status();
        running_.emplace_back(next++, *std::move(sequence));
        engine_.executor().TakeCachedPrefix(&running_.back().second);
      }
      ASSERT_NO_FATAL_FAILURE(Step());
      ASSERT_NO_FATAL_FAILURE(CheckBalance());
    }
  }

  std::vector<std::vector<OutputToken>> outputs;

 private:
  void Step() {
    std::vector<PlanSequence> plan_input;
    for (const auto& [index, sequence] : running_) {
      plan_input.push_back({sequence.pending(), sequence.decoding()});
    }
    const PlanLimits limits{24, static_cast<int32_t>(1 + random_() % 20), 6};
    const std::vector<PlannedRange> plan = PlanStep(plan_input, limits);
    std::vector<StepRange> ranges;
    for (const PlannedRange& range : plan) {
      Sequence& sequence = running_[range.sequence].second;
      ASSERT_TRUE(engine_.executor().Reserve(&sequence, range.tokens).ok());
      ranges.push_back({&sequence, range.tokens});
    }
    const auto results = engine_.executor().Step(ranges);
    ASSERT_EQ(results.size(), ranges.size());
    for (size_t i = 0; i < plan.size(); ++i) {
      if (results[i]) outputs[running_[plan[i].sequence].first].push_back(*results[i]);
    }
    std::erase_if(running_, [&](const auto& entry) {
      return engine_.executor().Finished(entry.second).has_value();
    });
    std::ranges::rotate(running_, running_.begin() + (running_.empty() ? 0 : 1));
  }

  void CheckBalance() const {
    std::set<int32_t> held;
    for (const auto& [index, sequence] : running_) {
      held.insert(sequence.blocks.blocks().begin(), sequence.blocks.blocks().end());
    }
    const BlockCounts counts = engine_.executor().pool().counts();
    ASSERT_EQ(counts.held, static_cast<int32_t>(held.size()));
    ASSERT_EQ(counts.free + counts.held + counts.cached, counts.total);
  }

  LocalEngine& engine_;
  std::mt19937 random_;
  std::vector<std::pair<size_t, Sequence>> running_;
};

void CheckCrowd(const GgufFile& file, size_t count, size_t longest, int32_t output_tokens) {
  const uint32_t seed = 424242;
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  const auto alone = LoadEngine(file, {.threads = 2, .prefix_cache = false});
  const int32_t vocab = alone->model().config().vocab;
  std::mt19937 random(seed);
  const std::vector<TokenId> common = RandomTokens(longest / 2, vocab, seed);
  std::vector<std::vector<TokenId>> prompts;
  std::vector<SamplingParams> samplings;
  for (size_t i = 0; i < count; ++i) {
    prompts.push_back(RandomTokens(1 + random() % longest, vocab, seed + 1 + i));
    if (i % 2 == 0) {
      std::ranges::copy(common | std::views::take(prompts[i].size()), prompts[i].begin());
    }
    samplings.push_back(GreedyTokens(1 + static_cast<int32_t>(random() % output_tokens)));
    if (i % 3 == 0) {
      samplings[i].temperature = 0.9f;
      samplings[i].top_p = 0.9f;
      samplings[i].seed = i;
    }
  }
  // Just room for all that run, so that cached blocks are evicted.
  const int64_t blocks_each = (static_cast<int64_t>(longest) + output_tokens + 15) / 16;
  const auto together =
      LoadEngine(file, {.threads = 2, .block_count = int64_t{Crowd::kMostRunning} * blocks_each});
  Crowd crowd(*together, seed);
  crowd.Run(prompts, samplings);
  for (size_t i = 0; i < count; ++i) {
    SCOPED_TRACE(testing::Message() << "sequence " << i);
    ExpectSame(crowd.outputs[i], Answer(*alone, prompts[i], samplings[i], 256));
  }
  EXPECT_EQ(together->executor().pool().counts().held, 0);
}

TEST_F(ExecutorTest, AnswersDoNotDependOnCompany) { CheckCrowd(*file_, 40, 100, 40); }

TEST(DemoExecutor, AnswersDoNotDependOnCompany) { CheckCrowd(*OpenDemoModel(), 8, 60, 12); }

TEST(DemoExecutor, AnswersDoNotDependOnChunkBlockOrPrefix) {
  const auto file = OpenDemoModel();
  const std::vector<TokenId> text = ReadIds("tests/golden/engine/alice.ids");
  const std::vector<TokenId> prompt(text.begin(), text.begin() + 200);
  const auto engine = LoadEngine(*file, {});
  const std::vector<OutputToken> expected = Answer(*engine, prompt, GreedyTokens(16), 256);
  const auto again = Generate(&engine->executor(), prompt, GreedyTokens(16), {});
  EXPECT_EQ(again->cached_prompt_tokens, 192);
  ExpectSame(again->output, expected);
  for (const auto& [chunk, block_tokens] : {std::pair{1, 16}, {7, 32}, {16, 8}, {255, 32}}) {
    SCOPED_TRACE(testing::Message() << "chunk " << chunk << ", block " << block_tokens);
    const auto other = LoadEngine(*file, {.block_tokens = block_tokens});
    ExpectSame(Answer(*other, prompt, GreedyTokens(16), chunk), expected);
  }
}

TEST(LayoutFor, RefusesOtherBlocks) {
  ModelConfig config;
  config.layers = 2;
  config.kv_heads = 3;
  config.head_dim = 4;
  EXPECT_EQ(*LayoutFor(config, 32, KvDType::kFp8), (kernels::KvLayout{2, 3, 4, 32, KvDType::kFp8}));
  EXPECT_THAT(std::string(LayoutFor(config, 12, KvDType::kF16).status().message()),
              HasSubstr("12"));
}

// Law 9: from its second token on, a sequence costs no allocation, over the ends of several blocks,
// greedy and sampled.
TEST_F(ExecutorTest, DecodeStepsDoNotAllocate) {
  engine_ = Load({.block_count = 64});
  Executor& executor = engine_->executor();
  SamplingParams sampled;
  sampled.temperature = 0.8f;
  sampled.top_p = 0.9f;
  sampled.max_tokens = 200;
  sampled.ignore_eos = true;
  SamplingParams greedy = sampled;
  greedy.temperature = 0;
  std::vector<Sequence> sequences;
  for (const SamplingParams& sampling : {greedy, sampled, greedy}) {
    sequences.push_back(NewSequence({1, 2, static_cast<TokenId>(sequences.size()), 4}, sampling));
    Finish(sequences.back());
  }
  std::vector<StepRange> ranges;
  for (Sequence& sequence : sequences) ranges.push_back({&sequence, 1});
  const auto step = [&] {
    for (Sequence& sequence : sequences) ASSERT_TRUE(executor.Reserve(&sequence, 1).ok());
    executor.Step(ranges);
  };
  step();
  const int64_t before = test::Allocations();
  for (int i = 0; i < 100; ++i) step();
  EXPECT_EQ(test::Allocations(), before);
  EXPECT_GE(sequences[0].hashes.size(), 6u) << "blocks were published meanwhile";
}

// What `baton eval` says of a text is what a prompt's log probabilities say, whatever the chunks,
// and whether or not the prefix cache has the prompt.
TEST_F(ExecutorTest, PromptScoresAreThoseOfPerplexity) {
  const std::vector<TokenId> prompt = RandomTokens(150, 320, 3);
  const double nll =
      Perplexity(&engine_->model(), &engine_->executor().pool(), prompt, 256)->mean_nll;
  SamplingParams sampling = GreedyTokens(4);
  const std::vector<OutputToken> answer = Answer(*engine_, prompt, sampling, 64);
  sampling.prompt_logprobs = 3;
  std::vector<PromptScore> first;
  for (const int32_t chunk : {256, 64, 7, 1}) {
    SCOPED_TRACE(chunk);
    const auto result = Generate(&engine_->executor(), prompt, sampling, {.chunk_tokens = chunk});
    ASSERT_TRUE(result.ok());
    EXPECT_EQ(result->cached_prompt_tokens, 0);
    ExpectSame(result->output, answer);
    ASSERT_EQ(result->prompt_scores.size(), prompt.size() - 1);
    double sum = 0;
    for (size_t i = 0; i < result->prompt_scores.size(); ++i) {
      const PromptScore& score = result->prompt_scores[i];
      ASSERT_EQ(score.position, static_cast<int32_t>(i) + 1);
      ASSERT_EQ(score.token, prompt[i + 1]);
      ASSERT_EQ(score.top.size(), 3u);
      ASSERT_GE(score.rank, 1);
      if (score.rank <= 3) {
        ASSERT_EQ(score.top[static_cast<size_t>(score.rank) - 1].token, score.token);
      }
      if (!first.empty()) {
        ASSERT_EQ(score.logprob, first[i].logprob);
      }
      sum -= score.logprob;
    }
    EXPECT_NEAR(sum / 149, nll, 1e-5);
    if (first.empty()) first = result->prompt_scores;
  }
}

// Allows everything, once it was asked often enough.
class LateConstraint final : public TokenConstraint {
 public:
  LateConstraint(int32_t vocab, int* asked)
      : all_(static_cast<size_t>(vocab + 63) / 64, ~uint64_t{0}), asked_(*asked) {}
  bool Ready(std::span<const TokenId> output) override {
    return output.size() < ready_for_ || ++asked_ % 4 == 0 ? (ready_for_ = output.size() + 1, true)
                                                           : false;
  }
  Next After(std::span<const TokenId> output) override {
    EXPECT_LT(output.size(), ready_for_);
    return {all_, {}, true, false};
  }

 private:
  std::vector<uint64_t> all_;
  size_t ready_for_ = 0;
  int& asked_;
};

// A sequence whose constraint is late sits steps out, and its answer is the same.
TEST_F(ExecutorTest, AConstraintThatIsLateChangesNothing) {
  int asked = 0;
  const auto constrained =
      Load({.make_constraint =
                [&](const std::string&) -> absl::StatusOr<std::unique_ptr<TokenConstraint>> {
        return std::make_unique<LateConstraint>(320, &asked);
      }});
  const std::vector<TokenId> prompt = RandomTokens(40, 320, 8);
  SamplingParams sampling = GreedyTokens(12);
  const std::vector<OutputToken> expected = Answer(*engine_, prompt, sampling, 16);
  sampling.constraint = "any";
  ExpectSame(Answer(*constrained, prompt, sampling, 16), expected);
  EXPECT_GT(asked, 30);
}

}  // namespace
}  // namespace baton::engine
