#include "router/openai_answer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "tests/router/scripted_dispatcher.h"

namespace baton::router {
namespace {

using testing::HasSubstr;

AnswerShape Shape(Endpoint endpoint) {
  AnswerShape shape;
  shape.endpoint = endpoint;
  shape.id = "id-1";
  shape.model = "m";
  shape.created_s = 17;
  return shape;
}

constexpr char kStats[] =
    R"("baton":{"request_id":"0123456789abcdef-0000000000000001","prefill_worker":"prefill-0",)"
    R"("decode_worker":"decode-0","transport":"shm","kv_blocks_moved":3,"kv_bytes_moved":4096,)"
    R"("cached_prompt_tokens":2,"ttft_s":0.25,"mean_itl_s":0.5,"total_s":1,"handover_s":0.125,)"
    R"("migrations":2})";
constexpr char kUsage[] = R"("usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7,)"
                          R"("prompt_tokens_details":{"cached_tokens":2}})";

std::string StreamOf(AnswerShape shape, const std::vector<Delta>& deltas) {
  StreamAnswer answer(std::move(shape));
  std::string out;
  for (const Delta& delta : deltas) answer.Add(0, delta, &out);
  EXPECT_FALSE(answer.complete());
  answer.Add(0, TestFinish(static_cast<int32_t>(deltas.size())), &out);
  EXPECT_TRUE(answer.complete());
  return out;
}

boost::json::value WholeOf(AnswerShape shape, const std::vector<Delta>& deltas) {
  WholeAnswer answer(std::move(shape));
  for (const Delta& delta : deltas) answer.Add(0, delta);
  answer.Add(0, TestFinish(static_cast<int32_t>(deltas.size())));
  return boost::json::parse(answer.Body());
}

TEST(StreamAnswer, Chat) {
  constexpr char kHead[] =
      R"(data: {"id":"id-1","object":"chat.completion.chunk","created":17,"model":"m","choices":[)";
  const std::string expected =
      std::string(kHead) +
      R"({"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,)"
      R"("finish_reason":null}]})" +
      "\n\n" + kHead +
      R"({"index":0,"delta":{"content":"Say \"é\"\n"},"logprobs":null,"finish_reason":null}]})" +
      "\n\n" + kHead + R"({"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]})" +
      "\n\ndata: [DONE]\n\n";
  EXPECT_EQ(StreamOf(Shape(Endpoint::kChat), {TextDelta(0, "Say \"é\"\n")}), expected);
}

TEST(StreamAnswer, CompletionWithUsageAndStats) {
  AnswerShape shape = Shape(Endpoint::kCompletions);
  shape.include_usage = true;
  shape.return_stats = true;
  constexpr char kHead[] =
      R"(data: {"id":"id-1","object":"text_completion","created":17,"model":"m","choices":[)";
  const std::string expected =
      std::string(kHead) +
      R"({"index":0,"text":"a","logprobs":null,"finish_reason":null}],"usage":null})" + "\n\n" +
      kHead + R"({"index":0,"text":"b","logprobs":null,"finish_reason":null}],"usage":null})" +
      "\n\n" + kHead +
      R"({"index":0,"text":"","logprobs":null,"finish_reason":"stop"}],"usage":null})" + "\n\n" +
      kHead + "]," + kUsage + "," + kStats + "}\n\ndata: [DONE]\n\n";
  EXPECT_EQ(StreamOf(shape, {TextDelta(0, "a"), TextDelta(1, "b")}), expected);
}

// Text that is held back (part of a character, or of a stop string) makes no event by itself.
TEST(StreamAnswer, PiecesWithoutTextAreLeftOut) {
  Delta held = TextDelta(0, "x");
  held.text.clear();
  AnswerShape shape = Shape(Endpoint::kCompletions);
  StreamAnswer answer(shape);
  std::string out;
  answer.Add(0, held, &out);
  EXPECT_EQ(out, "");
  shape.return_token_ids = true;
  shape.prompt_token_ids = {{1, 2}};
  StreamAnswer with_tokens(shape);
  with_tokens.Add(0, held, &out);
  EXPECT_THAT(out, HasSubstr(R"("text":"","logprobs":null,"prompt_token_ids":[1,2],)"
                             R"("token_ids":[100],"finish_reason":null)"));
}

TEST(StreamAnswer, TokenIdsOfAChat) {
  AnswerShape shape = Shape(Endpoint::kChat);
  shape.return_token_ids = true;
  shape.prompt_token_ids = {{1, 2}};
  const std::string out = StreamOf(shape, {TextDelta(0, "a"), TextDelta(1, "b")});
  const std::string prompt = R"("model":"m","prompt_token_ids":[1,2],"choices")";
  EXPECT_THAT(out, HasSubstr(prompt));
  EXPECT_EQ(out.find(prompt), out.rfind(prompt)) << "only the first chunk has the prompt";
  EXPECT_THAT(out, HasSubstr(R"("delta":{"content":"b"},"logprobs":null,"token_ids":[101],)"));
}

TEST(StreamAnswer, ChatLogprobs) {
  AnswerShape shape = Shape(Endpoint::kChat);
  shape.logprobs = true;
  const std::string out = StreamOf(shape, {TextDelta(0, "é")});
  EXPECT_THAT(out,
              HasSubstr(R"("logprobs":{"content":[{"token":"é","logprob":-0.5,"bytes":[195,169],)"
                        R"("top_logprobs":[{"token":"é","logprob":-0.5,"bytes":[195,169]},)"
                        R"({"token":")"
                        "\xEF\xBF\xBD"
                        R"(","logprob":-1.25,"bytes":[226,128]}]}],"refusal":null})"));
}

TEST(StreamAnswer, LegacyOffsetsCountOverChunks) {
  AnswerShape shape = Shape(Endpoint::kCompletions);
  shape.logprobs = true;
  const std::string out = StreamOf(shape, {TextDelta(0, "éa"), TextDelta(1, "b")});
  EXPECT_THAT(out, HasSubstr(R"({"tokens":["éa"],"token_logprobs":[-0.5],"top_logprobs":)"
                             R"([{"éa":-0.5,"bytes:\\xe2\\x80":-1.25}],"text_offset":[0]})"));
  EXPECT_THAT(out, HasSubstr(R"("text_offset":[2]})"));
}

TEST(StreamAnswer, SeveralChoicesEndTogether) {
  AnswerShape shape = Shape(Endpoint::kChat);
  shape.choices = 2;
  shape.choices_per_prompt = 2;
  shape.include_usage = true;
  StreamAnswer answer(shape);
  std::string out;
  answer.Add(1, TextDelta(0, "one"), &out);
  answer.Add(1, TestFinish(1, FinishReason::kLength), &out);
  EXPECT_THAT(out, HasSubstr(R"({"index":1,"delta":{},"logprobs":null,"finish_reason":"length"})"));
  EXPECT_EQ(out.find("[DONE]"), std::string::npos);
  answer.Add(0, TextDelta(0, "zero"), &out);
  answer.Add(0, TestFinish(2), &out);
  EXPECT_TRUE(out.ends_with("data: [DONE]\n\n"));
  EXPECT_THAT(out,
              HasSubstr(R"("usage":{"prompt_tokens":5,"completion_tokens":3,"total_tokens":8,)"))
      << "the prompt counts once";
  for (size_t at = 0; (at = out.find("data: {", at)) != std::string::npos; ++at) {
    boost::json::parse(out.substr(at + 6, out.find("\n\n", at) - at - 6));  // throws when unsound
  }
}

TEST(WholeAnswer, Chat) {
  AnswerShape shape = Shape(Endpoint::kChat);
  shape.return_stats = true;
  WholeAnswer answer(shape);
  answer.Add(0, TextDelta(0, "Hello"));
  answer.Add(0, TextDelta(1, "\x01"));
  answer.Add(0, TestFinish(2));
  EXPECT_EQ(answer.Body(),
            std::string(R"({"id":"id-1","object":"chat.completion","created":17,"model":"m",)"
                        R"("choices":[{"index":0,"message":{"role":"assistant","content":)"
                        R"("Hello\u0001","refusal":null},"logprobs":null,)"
                        R"("finish_reason":"stop"}],)") +
                kUsage + "," + kStats + "}");
}

TEST(WholeAnswer, CompletionsOfTwoPrompts) {
  AnswerShape shape = Shape(Endpoint::kCompletions);
  shape.choices = 2;
  shape.return_stats = true;
  shape.return_token_ids = true;
  shape.prompt_token_ids = {{1}, {2, 3}};
  WholeAnswer answer(shape);
  answer.Add(1, TextDelta(0, "second"));
  answer.Add(0, TextDelta(0, "first"));
  answer.Add(0, TestFinish(1, FinishReason::kLength));
  EXPECT_FALSE(answer.complete());
  answer.Add(1, TestFinish(1));
  ASSERT_TRUE(answer.complete());
  const boost::json::value body = boost::json::parse(answer.Body());
  EXPECT_EQ(boost::json::serialize(body.at("choices")),
            R"([{"index":0,"text":"first","logprobs":null,"finish_reason":"length",)"
            R"("prompt_token_ids":[1],"token_ids":[100]},)"
            R"({"index":1,"text":"second","logprobs":null,"finish_reason":"stop",)"
            R"("prompt_token_ids":[2,3],"token_ids":[100]}])");
  EXPECT_EQ(body.at("usage").at("prompt_tokens").as_int64(), 10) << "both prompts count";
  EXPECT_EQ(body.at("baton").at("choices").as_array().size(), 2u);
}

TEST(WholeAnswer, Logprobs) {
  AnswerShape shape = Shape(Endpoint::kChat);
  shape.logprobs = true;
  const auto chat = WholeOf(shape, {TextDelta(0, "a"), TextDelta(1, "b")});
  const auto& content = chat.at("choices").at(0).at("logprobs").at("content").as_array();
  ASSERT_EQ(content.size(), 2u);
  EXPECT_EQ(content[1].at("token").as_string(), "b");
  EXPECT_EQ(content[1].at("top_logprobs").as_array().size(), 2u);

  shape.endpoint = Endpoint::kCompletions;
  Delta unlisted = TextDelta(2, "c");
  unlisted.tokens[0].top.clear();
  const auto legacy = WholeOf(shape, {TextDelta(0, "é"), TextDelta(1, "b"), unlisted});
  EXPECT_EQ(boost::json::serialize(legacy.at("choices").at(0).at("logprobs")),
            R"({"tokens":["é","b","c"],"token_logprobs":[-5E-1,-5E-1,-5E-1],"top_logprobs":)"
            R"([{"é":-5E-1,"bytes:\\xe2\\x80":-1.25E0},{"b":-5E-1,"bytes:\\xe2\\x80":-1.25E0},)"
            R"({"c":-5E-1}],"text_offset":[0,1,2]})");
}

Delta PromptDelta(int32_t index, std::vector<TokenDetail> prompt) {
  Delta delta;
  delta.prompt_index = index;
  delta.prompt = std::move(prompt);
  return delta;
}

// OpenAI's: the prompt's tokens first, the very first without a number.
TEST(EchoedLogprobs, StandBeforeTheAnswers) {
  AnswerShape shape = Shape(Endpoint::kCompletions);
  shape.logprobs = shape.echo_logprobs = true;
  shape.echoes = {"ab"};
  Delta token = TextDelta(0, "c");
  token.tokens = {{7, "c", -1.5f, {}}};
  const std::vector<Delta> deltas = {PromptDelta(0, {{1, "a", 0, {}}}),
                                     PromptDelta(1, {{2, "b", -0.5f, {{3, "x", -0.25f}}, 2}}),
                                     token};
  const boost::json::value expected = boost::json::parse(
      R"({"tokens": ["a", "b", "c"], "token_logprobs": [null, -0.5, -1.5],
          "top_logprobs": [null, {"x": -0.25, "b": -0.5}, {"c": -1.5}],
          "text_offset": [0, 1, 2]})");
  const boost::json::value whole = WholeOf(shape, deltas).at("choices").at(0);
  EXPECT_EQ(whole.at("text"), "abc");
  EXPECT_EQ(whole.at("logprobs"), expected);

  const std::string stream = StreamOf(shape, deltas);
  const std::string first = stream.substr(6, stream.find("\n\n") - 6);
  EXPECT_EQ(boost::json::parse(first).at("choices").at(0).at("logprobs"), expected) << first;
  EXPECT_EQ(boost::json::parse(first).at("choices").at(0).at("text"), "abc");
}

TEST(PromptLogprobs, AreVllmsList) {
  AnswerShape shape = Shape(Endpoint::kChat);
  shape.prompt_logprobs = true;
  const boost::json::value whole =
      WholeOf(shape, {PromptDelta(0, {{1, "a", 0, {}}, {2, "b", -0.5f, {{3, "x", -0.25f}}, 2}}),
                      TextDelta(0, "c")});
  const boost::json::value expected = boost::json::parse(
      R"([null, {"2": {"logprob": -0.5, "rank": 2, "decoded_token": "b"},
                 "3": {"logprob": -0.25, "rank": 1, "decoded_token": "x"}}])");
  EXPECT_EQ(whole.at("prompt_logprobs"), expected);
}

TEST(StreamedCalls, BeginWithTheirNameAndGoOnWithArguments) {
  AnswerShape shape = Shape(Endpoint::kChat);
  shape.tools = R"([{"type": "function", "function": {"name": "f"}}])";
  const std::string out =
      StreamOf(shape, {TextDelta(0, "<tool_call>{\"name\": \"f\", \"arguments\": {"),
                       TextDelta(1, "\"a\": 1"), TextDelta(2, "}}</tool_call>")});
  EXPECT_THAT(out, HasSubstr(R"("delta":{"tool_calls":[{"index":0,"id":"call_1-0-0","type":)"
                             R"("function","function":{"name":"f","arguments":"{"}}]})"));
  EXPECT_THAT(
      out,
      HasSubstr(R"("delta":{"tool_calls":[{"index":0,"function":{"arguments":"\"a\": 1"}}]})"));
  EXPECT_THAT(out, HasSubstr(R"("finish_reason":"tool_calls")"));
  EXPECT_THAT(out, testing::Not(HasSubstr("tool_call>")));
}

}  // namespace
}  // namespace baton::router
