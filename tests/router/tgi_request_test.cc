#include "router/tgi_request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace baton::router {
namespace {

using testing::HasSubstr;

absl::StatusOr<OpenAiRequest> Read(const std::string& parameters, TgiOptions* options,
                                   std::string* param) {
  return ParseTgiRequest(R"({"inputs":"hi","parameters":{)" + parameters + "}}", false, {}, options,
                         param);
}

TEST(TgiRequestTest, ReadsEveryParameter) {
  TgiOptions options;
  std::string param;
  const auto request = Read(R"("best_of":1,"decoder_input_details":false,"details":true,
      "do_sample":true,"frequency_penalty":0.5,"grammar":{"type":"regex","value":"a+"},
      "max_new_tokens":7,"repetition_penalty":1.1,"return_full_text":true,"seed":3,"stop":["x"],
      "temperature":0.5,"top_k":4,"top_n_tokens":2,"top_p":0.9,"truncate":5,"typical_p":null,
      "watermark":true)",
                            &options, &param);
  ASSERT_TRUE(request.ok()) << request.status();
  const GenerateInput& input = request->prompts.at(0);
  const SamplingParams& sampling = input.sampling;
  EXPECT_EQ(std::get<std::string>(input.prompt), "hi");
  EXPECT_FLOAT_EQ(sampling.temperature, 0.5f);
  EXPECT_EQ(sampling.top_k, 4);
  EXPECT_FLOAT_EQ(sampling.top_p, 0.9f);
  EXPECT_FLOAT_EQ(sampling.frequency_penalty, 0.5f);
  EXPECT_FLOAT_EQ(sampling.repetition_penalty, 1.1f);
  EXPECT_TRUE(sampling.watermark);
  EXPECT_EQ(sampling.constraint, R"({"regex":"a+"})");
  EXPECT_EQ(sampling.logprobs, 2);
  EXPECT_EQ(sampling.max_tokens, 7);
  EXPECT_EQ(sampling.seed, 3u);
  EXPECT_EQ(input.truncate_prompt_tokens, 5);
  EXPECT_EQ(input.stop, std::vector<std::string>{"x"});
  EXPECT_TRUE(options.details && options.full_text && options.has_stop && options.has_seed);
}

TEST(TgiRequestTest, IsGreedyUnlessSamplingIsSpokenOf) {
  TgiOptions options;
  std::string param;
  EXPECT_EQ(Read("", &options, &param)->prompts[0].sampling.temperature, 0);
  EXPECT_EQ(Read("", &options, &param)->prompts[0].sampling.max_tokens, 100);
  for (const char* said : {R"("do_sample":true)", R"("top_k":5)", R"("top_p":0.5)"}) {
    EXPECT_EQ(Read(said, &options, &param)->prompts[0].sampling.temperature, 1) << said;
  }
  EXPECT_FLOAT_EQ(Read(R"("temperature":0.3)", &options, &param)->prompts[0].sampling.temperature,
                  0.3f);
}

TEST(TgiRequestTest, RefusesByName) {
  const std::tuple<const char*, const char*, const char*> cases[] = {
      {R"("max_new_token":1)", "max_new_token", "did you mean 'max_new_tokens'?"},
      {R"("typical_p":0.5)", "typical_p", "not supported"},
      {R"("best_of":2)", "best_of", "not supported"},
      {R"("adapter_id":"x")", "adapter_id", "not supported"},
      {R"("grammar":{"type":"regex"})", "grammar", "with 'type' and 'value'"},
      {R"("grammar":{"type":"json","value":{"not":{}}})", "grammar", "the keyword 'not'"},
      {R"("seed":-1)", "seed", "from 0 on"},
      {R"("stop":"x")", "stop", "an array of strings"},
  };
  for (const auto& [parameters, name, why] : cases) {
    TgiOptions options;
    std::string param;
    const auto request = Read(parameters, &options, &param);
    EXPECT_THAT(std::string(request.status().message()), HasSubstr(why)) << parameters;
    EXPECT_EQ(param, name);
  }
}

}  // namespace
}  // namespace baton::router
