// Files that `baton plan` reads: models, hardware, traces.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cli/plan_facts.h"
#include "cli/trace_file.h"
#include "planner/cost_model.h"

namespace baton::cli {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::string Message(const absl::Status& status) { return std::string(status.message()); }

TEST(PlanFacts, ConfigJsonOfAMixtureOfExperts) {
  // The fields that Mixtral 8x7B's config.json has.
  const auto model = ModelFactsFromConfigJson(
      R"({"architectures":["MixtralForCausalLM"],"hidden_size":4096,"intermediate_size":14336,
          "num_attention_heads":32,"num_experts_per_tok":2,"num_hidden_layers":32,
          "num_key_value_heads":8,"num_local_experts":8,"sliding_window":null,
          "tie_word_embeddings":false,"torch_dtype":"bfloat16","vocab_size":32000})",
      "config.json");
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(planner::Parameters(*model),
            planner::Parameters(*planner::KnownModelFacts("mixtral-8x7b")));
}

TEST(PlanFacts, ConfigJsonOfLatentAttention) {
  const auto model = ModelFactsFromConfigJson(
      R"({"hidden_size":5120,"intermediate_size":12288,"num_attention_heads":128,
          "num_hidden_layers":60,"num_key_value_heads":128,"vocab_size":102400,
          "n_routed_experts":160,"num_experts_per_tok":6,"moe_intermediate_size":1536,
          "n_shared_experts":2,"first_k_dense_replace":1,"kv_lora_rank":512,"q_lora_rank":1536,
          "qk_nope_head_dim":128,"qk_rope_head_dim":64,"v_head_dim":128})",
      "config.json");
  ASSERT_TRUE(model.ok()) << model.status();
  const planner::ModelFacts known = *planner::KnownModelFacts("deepseek-v2");
  EXPECT_EQ(planner::Parameters(*model), planner::Parameters(known));
  EXPECT_EQ(planner::KvBytesPerToken(*model, {}), planner::KvBytesPerToken(known, {}));
}

TEST(PlanFacts, ConfigJsonRefused) {
  const auto error = [](const char* text) {
    return Message(ModelFactsFromConfigJson(text, "c.json").status());
  };
  EXPECT_THAT(error("{"), HasSubstr("c.json is no JSON object"));
  EXPECT_THAT(error("[]"), HasSubstr("c.json is no JSON object"));
  EXPECT_THAT(error("{}"), HasSubstr("layers is 0"));
  EXPECT_THAT(error(R"({"num_hidden_layers":-3})"), HasSubstr("'num_hidden_layers' must be a"));
  EXPECT_THAT(error(R"({"num_hidden_layers":"80"})"), HasSubstr("not \"80\""));
  EXPECT_THAT(error(R"({"num_hidden_layers":99999999})"), HasSubstr("must be 1 to 4096"));
}

TEST(PlanFacts, GgufOfTheDemoModel) {
  const auto model = LoadModelFacts("models/SmolLM2-135M-Instruct.Q4_1.gguf");
  ASSERT_TRUE(model.ok()) << model.status();
  const planner::ModelFacts known = *planner::KnownModelFacts("smollm2-135m");
  EXPECT_NEAR(planner::Parameters(*model), planner::Parameters(known), 1e6);
  EXPECT_EQ(planner::KvBytesPerToken(*model, {}), planner::KvBytesPerToken(known, {}));
  EXPECT_GT(model->stored_bytes_each, 0.6);  // Q4_1 is 0.625
  EXPECT_LT(model->stored_bytes_each, 0.9);
}

TEST(PlanFacts, HardwareFromAFile) {
  const auto hardware = HardwareFactsFromYaml(
      "{name: mine, flops_16bit_per_s: 1e12, hbm_bytes: 64e9, hbm_bytes_per_s: 2e11,\n"
      " network_bytes_per_s: 1e9}",
      "mine.yaml");
  ASSERT_TRUE(hardware.ok()) << hardware.status();
  EXPECT_EQ(hardware->name, "mine");
  EXPECT_EQ(hardware->hbm_bytes, 64e9);
  const auto error = [](const char* text) {
    return Message(HardwareFactsFromYaml(text, "h.yaml").status());
  };
  EXPECT_THAT(error("{hbm_byte: 1}"),
              HasSubstr("unknown key 'hbm_byte'; did you mean 'hbm_bytes'"));
  EXPECT_THAT(error("{hbm_bytes: lots}"), HasSubstr("h.yaml: "));
  EXPECT_THAT(error("{hbm_bytes: .nan}"), HasSubstr("must be positive"));
  EXPECT_THAT(error("[1]"), HasSubstr("must be a map"));
}

TEST(PlanFacts, BytesOfFormats) {
  EXPECT_EQ(*BytesOfDtype("bf16"), 2);
  EXPECT_EQ(*BytesOfDtype("int4"), 0.5);
  EXPECT_EQ(*BytesOfDtype("q4_1"), 0.625);
  EXPECT_THAT(Message(BytesOfDtype("bf61").status()), HasSubstr("no format 'bf61'; known: bf16"));
}

TEST(TraceFile, AzureCsv) {
  const auto trace = ParseTrace(
      "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
      "2023-11-16 23:59:59.5000000,374,44\r\n"
      "2023-11-17 00:00:01,396,109");
  ASSERT_TRUE(trace.ok()) << trace.status();
  ASSERT_EQ(trace->requests.size(), 2);
  EXPECT_DOUBLE_EQ(trace->requests[1].arrival_s - trace->requests[0].arrival_s, 1.5);
  EXPECT_EQ(trace->requests[1].input_tokens, 396);
  EXPECT_EQ(trace->requests[1].output_tokens, 109);
}

TEST(TraceFile, MooncakeJsonl) {
  const auto trace = ParseTrace(
      R"({"timestamp": 0, "input_length": 1000, "output_length": 50, "hash_ids": [0, 1]}
{"timestamp": 3000, "input_length": 600, "output_length": 7, "hash_ids": [0, 5]}
)");
  ASSERT_TRUE(trace.ok()) << trace.status();
  EXPECT_EQ(trace->block_tokens, 512);
  EXPECT_EQ(trace->requests[1].arrival_s, 3);
  EXPECT_THAT(trace->requests[1].prefix_blocks, ElementsAre(0, 5));
}

TEST(TraceFile, TheRoutersAccessLog) {
  const auto trace = ParseTrace(
      R"({"arrival_us":1795309325000000,"status":200,"input_tokens":800,"cached_tokens":200,)"
      R"("output_tokens":64,"e2e_s":0.1,"stages":{"placed":0.01}})"
      "\n"
      R"({"arrival_us":1795309323500000,"status":200,"input_tokens":100,"output_tokens":400})"
      "\n"
      R"({"arrival_us":1795309326000000,"status":429,"code":"RESOURCE_EXHAUSTED"})"
      "\n"
      R"({"arrival_us":1795309327000000,"status":503,"code":"UNAVAILABLE","input_tokens":10})"
      "\n");
  ASSERT_TRUE(trace.ok()) << trace.status();
  ASSERT_EQ(trace->requests.size(), 3);
  EXPECT_EQ(trace->requests[0].input_tokens, 100);  // by arrival, not by end
  EXPECT_DOUBLE_EQ(trace->requests[1].arrival_s - trace->requests[0].arrival_s, 1.5);
  EXPECT_EQ(trace->requests[1].output_tokens, 64);
  EXPECT_EQ(trace->requests[2].output_tokens, 0);
  const auto workload = planner::WorkloadOf(*trace);
  ASSERT_TRUE(workload.ok()) << workload.status();
  EXPECT_DOUBLE_EQ(workload->requests[1].cached_share, 0.25);
  EXPECT_EQ(workload->requests[2].output_tokens, 1);
}

TEST(TraceFile, RefusesNamingTheLine) {
  const std::string head = "TIMESTAMP,ContextTokens,GeneratedTokens\n";
  const std::pair<std::string, const char*> cases[] = {
      {"", "the trace is empty"},
      {" \n\n", "the trace is empty"},
      {"a,b,c\n", "line 1 of the trace: must be TIMESTAMP"},
      {"\n2023-11-16 18:15:46,1,2\n", "line 2 of the trace: must be TIMESTAMP"},
      {head + "2023-11-16 18:15:46,1", "line 2 of the trace: has less than three columns"},
      {head + "2023-11-16 18:15:46,1,2,3", "tokens must be whole numbers"},
      {head + "2023-11-16 18:15:46,-1,2", "tokens must be whole numbers"},
      {head + "2023-13-16 18:15:46,1,2", "the time must be as in"},
      {head + "2023-02-30 18:15:46,1,2", "the time must be as in"},
      {head + "2023-11-16 18:15:46.12x,1,2", "the time must be as in"},
      {head + "\n2023-11-16 18:15:46,1,99999999999", "line 3 of the trace"},
      {"{\n", "line 1 of the trace: must be one JSON object"},
      {R"({"timestamp":0})", "'input_length' must be a whole number"},
      {R"({"timestamp":-1,"input_length":1,"output_length":1})", "'timestamp' must be a whole"},
      {R"({"timestamp":0,"input_length":1.5,"output_length":1})", "'input_length' must be a whole"},
      {R"({"timestamp":0,"input_length":1,"output_length":1,"hash_ids":["a"]})", "whole numbers"},
      {R"({"arrival_us":1,"status":401})", "no line with input_tokens"},
      {R"({"arrival_us":1.5,"input_tokens":1})", "'arrival_us' must be a whole number"},
      {R"({"arrival_us":1,"input_tokens":999999999})", "line 1 of the trace: more than"},
      {R"({"timestamp":0,"input_length":1,"output_length":1,"user":"x"})", "unknown field 'user'"},
  };
  for (const auto& [text, expected] : cases) {
    EXPECT_THAT(Message(ParseTrace(text).status()), HasSubstr(expected)) << text;
  }
}

}  // namespace
}  // namespace baton::cli
