#include "engine/model_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/fingerprint.h"
#include "engine/model_tensors.h"
#include "tests/engine/tiny_model.h"

namespace baton::engine {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(ModelConfig, ReadsTheDemoModel) {
  const auto file = GgufFile::Open("models/SmolLM2-135M-Instruct.Q4_1.gguf");
  ASSERT_TRUE(file.ok()) << file.status();
  const auto config = ModelConfig::FromGguf(**file);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->architecture, "llama");
  EXPECT_EQ(config->name, "Smollm2 135M 8k Lc100K Mix1 Ep2");
  EXPECT_EQ(config->layers, 30);
  EXPECT_EQ(config->embedding, 576);
  EXPECT_EQ(config->feed_forward, 1536);
  EXPECT_EQ(config->heads, 9);
  EXPECT_EQ(config->kv_heads, 3);
  EXPECT_EQ(config->head_dim, 64);
  EXPECT_EQ(config->vocab, 49152);
  EXPECT_EQ(config->context, 8192);
  EXPECT_EQ(config->rope_dim, 64);
  EXPECT_EQ(config->rope_base, 100000);
  EXPECT_EQ(config->rope_factor, 1);
  EXPECT_TRUE(config->tied_output);
  EXPECT_THAT(config->end_tokens, ElementsAre(0, 2));  // <|endoftext|>, <|im_end|>
  EXPECT_EQ(config->fingerprint.size(), 64u);
}

absl::StatusOr<ModelConfig> Read(const TinySpec& spec) {
  return ModelConfig::FromGguf(*OpenTiny(spec));
}

void ExpectRefused(const TinySpec& spec, const std::string& why) {
  const auto config = Read(spec);
  ASSERT_FALSE(config.ok()) << "accepted, though: " << why;
  EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(config.status().message()), HasSubstr(why));
}

TEST(ModelConfig, TakesDefaultsOfTheFormat) {
  TinySpec spec;
  spec.heads = spec.kv_heads = 4;
  spec.omit = {"llama.attention.key_length", "llama.attention.value_length",
               "llama.attention.head_count_kv", "general.name", "tokenizer.ggml.eos_token_id"};
  const auto config = Read(spec);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->head_dim, 64);
  EXPECT_EQ(config->kv_heads, 4);
  EXPECT_EQ(config->rope_dim, 64);
  EXPECT_EQ(config->rope_base, 10000);
  EXPECT_EQ(config->name, "unnamed");
  EXPECT_TRUE(config->end_tokens.empty());
}

TEST(ModelConfig, HeadDimensionMayDifferFromTheEmbedding) {
  TinySpec spec;
  spec.head_dim = 32;  // 4 heads of 32 are not 256
  const auto config = Read(spec);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->head_dim, 32);
}

TEST(ModelConfig, AnOutputMatrixUntiesTheModel) {
  TinySpec spec;
  spec.tied = false;
  EXPECT_FALSE(Read(spec)->tied_output);
}

TEST(ModelConfig, EndTokensComeFromIdsAndFromNamesOfControlTokens) {
  TinySpec spec;
  spec.vocabulary.assign(spec.vocab, "word");
  spec.token_types.assign(spec.vocab, 1);
  spec.vocabulary[7] = spec.vocabulary[8] = "<|eot_id|>";
  spec.token_types[7] = 3;  // control; 8 is plain text that looks like it
  spec.ints["tokenizer.ggml.eot_token_id"] = 5;
  spec.ints["tokenizer.ggml.eom_token_id"] = 7;
  EXPECT_THAT(Read(spec)->end_tokens, ElementsAre(2, 5, 7));
}

TEST(ModelConfig, LinearRopeScalingIsReadInBothSpellings) {
  TinySpec spec;
  spec.strings["llama.rope.scaling.type"] = "linear";
  spec.floats["llama.rope.scaling.factor"] = 4;
  EXPECT_EQ(Read(spec)->rope_factor, 4);
  TinySpec old_spelling;
  old_spelling.floats["llama.rope.scale_linear"] = 2;
  EXPECT_EQ(Read(old_spelling)->rope_factor, 2);
  spec.strings["llama.rope.scaling.type"] = "none";
  EXPECT_EQ(Read(spec)->rope_factor, 1);
}

TEST(ModelConfig, RefusesWhatItDoesNotKnow) {
  ExpectRefused({.strings = {{"general.architecture", "qwen2"}}},
                "architecture 'qwen2' is not supported; supported: llama");
  ExpectRefused({.omit = {"general.architecture"}}, "architecture '' is not supported");
  ExpectRefused({.ints = {{"llama.expert_count", 8}}}, "llama.expert_count is 8");
  ExpectRefused({.ints = {{"llama.attention.sliding_window", 4096}}}, "sliding_window is 4096");
  ExpectRefused({.strings = {{"llama.rope.scaling.type", "yarn"}}}, "'yarn' is not supported");
  ExpectRefused({.floats = {{"llama.rope.scaling.factor", 4}}}, "without a scaling.type");
  ExpectRefused({.extra_vectors = {{"blk.0.attn_q.bias", std::vector<float>(256)}}},
                "has a tensor blk.0.attn_q.bias, which the llama architecture does not have");
  ExpectRefused({.extra_vectors = {{"blk.3.attn_norm.weight", std::vector<float>(256)}}},
                "has a tensor blk.3.attn_norm.weight");
}

TEST(ModelConfig, RefusesMissingAndAbsurdNumbers) {
  ExpectRefused({.omit = {"llama.block_count"}}, "it has no key llama.block_count");
  ExpectRefused({.ints = {{"llama.block_count", 0}}}, "block_count is 0, but must be in [1, 1024]");
  ExpectRefused({.ints = {{"llama.block_count", 1025}}}, "block_count is 1025");
  ExpectRefused({.ints = {{"llama.embedding_length", 0}}}, "embedding_length is 0");
  ExpectRefused({.ints = {{"llama.feed_forward_length", 0}}}, "feed_forward_length is 0");
  ExpectRefused({.ints = {{"llama.attention.head_count", 0}}}, "head_count is 0");
  ExpectRefused({.ints = {{"llama.attention.head_count_kv", 3}}},
                "4 heads cannot share 3 kv heads evenly");
  ExpectRefused({.ints = {{"llama.attention.key_length", 63}}}, "head dimension is 63");
  ExpectRefused({.ints = {{"llama.attention.value_length", 32}}},
                "keys have 64 dimensions and values 32");
  ExpectRefused(
      {.omit = {"llama.attention.key_length"}, .ints = {{"llama.attention.head_count", 6}}},
      "an embedding of 256 is not a multiple of 6 heads");
  ExpectRefused({.ints = {{"llama.context_length", 1}}}, "context_length is 1");
  ExpectRefused({.ints = {{"llama.rope.dimension_count", 66}}}, "dimension_count is 66");
  ExpectRefused({.ints = {{"llama.rope.dimension_count", 31}}}, "must be even");
  ExpectRefused({.floats = {{"llama.rope.freq_base", 0}}}, "freq_base is 0");
  ExpectRefused({.floats = {{"llama.rope.freq_base", NAN}}}, "freq_base is nan");
  ExpectRefused({.omit = {"llama.attention.layer_norm_rms_epsilon"}},
                "no key llama.attention.layer_norm_rms_epsilon");
  ExpectRefused({.floats = {{"llama.attention.layer_norm_rms_epsilon", -1}}}, "epsilon is -1");
  ExpectRefused({.ints = {{"llama.vocab_size", 319}}},
                "llama.vocab_size is 319, but token_embd.weight has 320 rows");
  ExpectRefused({.ints = {{"tokenizer.ggml.eos_token_id", 320}}}, "eos_token_id is 320");
  ExpectRefused({.vocabulary = {"a", "b"}, .token_types = {1, 1}},
                "the tokenizer has 2 tokens, but token_embd.weight has 320 rows");
}

TEST(ModelConfig, RefusesMissingAndMisshapenTensors) {
  ExpectRefused({.omit = {"token_embd.weight"}}, "no tensor token_embd.weight");
  ExpectRefused({.omit = {"output_norm.weight"}}, "no tensor output_norm.weight");
  ExpectRefused({.omit = {"blk.2.ffn_up.weight"}}, "no tensor blk.2.ffn_up.weight");
  ExpectRefused({.shapes = {{"blk.0.attn_k.weight", {256, 64}}}},
                "blk.0.attn_k.weight is 256 x 64, but must be 256 x 128 for 2 kv heads of 64");
  ExpectRefused(
      {.shapes = {{"blk.1.ffn_down.weight", {256, 512}}}},
      "blk.1.ffn_down.weight is 256 x 512, but must be 512 x 256 for a feed-forward width of "
      "512");
  ExpectRefused(
      {.shapes = {{"token_embd.weight", {128, 320}}}},
      "token_embd.weight is 128 x 320, but must be 256 x 320 for a vocabulary of 320 and an "
      "embedding of 256");
  ExpectRefused({.shapes = {{"blk.0.attn_q.weight", {256, 16, 16}}}},
                "blk.0.attn_q.weight is 256 x 16 x 16");
  ExpectRefused({.extra_vectors = {{"rope_freqs.weight", {1, 2, 3}}}},
                "rope_freqs.weight is 3, but must be 32 for 64 rotated dimensions");
}

TEST(VectorValues, TakesFloatsAndHalvesAndRefusesOthers) {
  const std::vector<uint16_t> halves = {kernels::FloatToHalf(1.5f), kernels::FloatToHalf(-2)};
  GgufTensor tensor{"v", DType::kF16, {2}, std::as_bytes(std::span(halves))};
  EXPECT_THAT(*VectorValues(tensor), ElementsAre(1.5f, -2));
  std::vector<float> floats = {0.25f, 3};
  tensor = {"v", DType::kF32, {2}, std::as_bytes(std::span(floats))};
  EXPECT_THAT(*VectorValues(tensor), ElementsAre(0.25f, 3));
  floats[1] = NAN;
  EXPECT_THAT(std::string(VectorValues(tensor).status().message()),
              HasSubstr("v has the value nan at 1"));
  tensor.dtype = DType::kBF16;
  EXPECT_THAT(std::string(VectorValues(tensor).status().message()), HasSubstr("v is BF16"));
}

TEST(Fingerprint, TellsModelsApart) {
  const std::string original = Fingerprint(*OpenTiny({}));
  EXPECT_EQ(Fingerprint(*OpenTiny({})), original);
  EXPECT_NE(Fingerprint(*OpenTiny({.seed = 2})), original);
  EXPECT_NE(Fingerprint(*OpenTiny({.strings = {{"general.name", "timy"}}})), original);
}

}  // namespace
}  // namespace baton::engine
