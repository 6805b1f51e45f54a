#include "router/openai_request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace baton::router {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;

absl::StatusOr<OpenAiRequest> Parse(Endpoint endpoint, std::string_view body,
                                    const RequestLimits& limits = {}) {
  std::string param;
  return ParseOpenAiRequest(endpoint, body, limits, &param);
}

// A chat or completion with `fields` (", \"n\": 2") added to what is needed.
absl::StatusOr<OpenAiRequest> Chat(const std::string& fields) {
  return Parse(Endpoint::kChat, R"({"messages":[{"role":"user","content":"hi"}])" + fields + "}");
}
absl::StatusOr<OpenAiRequest> Completion(const std::string& fields) {
  return Parse(Endpoint::kCompletions, R"({"prompt":"hi")" + fields + "}");
}

// Refused as InvalidArgument with a message that has `text`, naming the field `param`.
void ExpectRefused(Endpoint endpoint, const std::string& body, const std::string& param,
                   const std::string& text) {
  SCOPED_TRACE(body.substr(0, 200));
  std::string error_param;
  const auto request = ParseOpenAiRequest(endpoint, body, RequestLimits{}, &error_param);
  ASSERT_EQ(request.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(request.status().message()), HasSubstr(text));
  EXPECT_EQ(error_param, param);
}
void ExpectChatRefused(const std::string& fields, const std::string& param,
                       const std::string& text) {
  ExpectRefused(Endpoint::kChat, R"({"messages":[{"role":"user","content":"hi"}])" + fields + "}",
                param, text);
}
void ExpectCompletionRefused(const std::string& fields, const std::string& param,
                             const std::string& text) {
  ExpectRefused(Endpoint::kCompletions, R"({"prompt":"hi")" + fields + "}", param, text);
}
void ExpectMessagesRefused(const std::string& messages, const std::string& text) {
  ExpectRefused(Endpoint::kChat, R"({"messages":)" + messages + "}", "messages", text);
}

TEST(OpenAiRequest, TheMostExactNameOfASessionCounts) {
  const auto session = [](const char* fields) {
    const auto request = Chat(fields);
    EXPECT_TRUE(request.ok()) << request.status();
    return request.ok() ? request->Choice(0).session : "";
  };
  EXPECT_EQ(session(""), "");
  EXPECT_EQ(session(R"(, "user":"u")"), "u");
  EXPECT_EQ(session(R"(, "user":"u", "prompt_cache_key":"k")"), "k");
  EXPECT_EQ(session(R"(, "user":"u", "session_id":"s", "prompt_cache_key":"k")"), "s");
}

TEST(OpenAiRequest, ReadsEveryField) {
  const auto request = Chat(R"(, "model":"m", "n":3, "stream":true,
      "stream_options":{"include_usage":true, "include_obfuscation":false},
      "max_completion_tokens":7, "min_tokens":2, "temperature":0.5, "top_p":0.9, "top_k":40,
      "min_p":0.1, "repetition_penalty":1.1, "presence_penalty":1, "frequency_penalty":-0.5,
      "logit_bias":{"5":-100,"17":2.5}, "seed":11, "stop":["a","b"], "stop_token_ids":[1,2],
      "ignore_eos":true, "logprobs":true, "top_logprobs":4, "cache_salt":"s",
      "bad_words":["no", " way"], "allowed_token_ids":[7,8],
      "return_stats":true, "return_token_ids":true)");
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->choices(), 3);
  EXPECT_TRUE(request->stream && request->include_usage);
  EXPECT_TRUE(request->return_stats && request->return_token_ids);
  const GenerateInput input = request->Choice(2);
  EXPECT_EQ(input.model, "m");
  EXPECT_EQ(input.cache_salt, "s");
  EXPECT_TRUE(input.has_max_tokens && input.has_seed);
  EXPECT_THAT(input.stop, ElementsAre("a", "b"));
  const SamplingParams& sampling = input.sampling;
  EXPECT_EQ(sampling.max_tokens, 7);
  EXPECT_EQ(sampling.min_tokens, 2);
  EXPECT_EQ(sampling.temperature, 0.5f);
  EXPECT_EQ(sampling.top_p, 0.9f);
  EXPECT_EQ(sampling.top_k, 40);
  EXPECT_EQ(sampling.min_p, 0.1f);
  EXPECT_EQ(sampling.repetition_penalty, 1.1f);
  EXPECT_EQ(sampling.presence_penalty, 1.0f);
  EXPECT_EQ(sampling.frequency_penalty, -0.5f);
  EXPECT_THAT(sampling.logit_bias, ElementsAre(Pair(5, -100.0f), Pair(17, 2.5f)));
  EXPECT_EQ(sampling.seed, 13u) << "the third choice's seed";
  EXPECT_THAT(sampling.stop_token_ids, ElementsAre(1, 2));
  EXPECT_THAT(sampling.allowed_token_ids, ElementsAre(7, 8));
  EXPECT_THAT(input.bad_words, ElementsAre("no", " way"));
  EXPECT_TRUE(sampling.ignore_eos);
  EXPECT_EQ(sampling.logprobs, 4);
}

TEST(OpenAiRequest, DefaultsAreOpenAis) {
  const auto chat = Chat("");
  ASSERT_TRUE(chat.ok()) << chat.status();
  const GenerateInput input = chat->Choice(0);
  EXPECT_EQ(input.model, "");
  EXPECT_FALSE(input.has_max_tokens) << "a chat goes on to the context's end";
  EXPECT_FALSE(input.has_seed);
  EXPECT_EQ(input.sampling.temperature, 1.0f);
  EXPECT_EQ(input.sampling.logprobs, -1);
  EXPECT_FALSE(chat->stream);
  const auto completion = Completion("");
  ASSERT_TRUE(completion.ok()) << completion.status();
  EXPECT_TRUE(completion->Choice(0).has_max_tokens);
  EXPECT_EQ(completion->Choice(0).sampling.max_tokens, 16);
}

TEST(OpenAiRequest, NullIsNotGiven) {
  const auto request = Chat(R"(, "n":null, "stop":null, "seed":null, "logit_bias":null,
      "max_tokens":null, "temperature":null, "tools":null, "response_format":null, "stream":null,
      "stream_options":null, "user":null, "reasoning_effort":null)");
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->choices(), 1);
  EXPECT_FALSE(request->Choice(0).has_seed);
}

TEST(OpenAiRequest, SeedsMayBeNegativeOrLarge) {
  EXPECT_EQ(Chat(R"(,"seed":-1)")->Choice(0).sampling.seed, UINT64_MAX);
  EXPECT_EQ(Chat(R"(,"seed":18446744073709551615)")->Choice(0).sampling.seed, UINT64_MAX);
  ExpectChatRefused(R"(,"seed":1.5)", "seed", "must be an integer, not a number with a fraction");
}

TEST(OpenAiRequest, MessagesAndParts) {
  const auto request = Parse(Endpoint::kChat, R"({"messages":[
      {"role":"developer","content":"be brief"},
      {"role":"user","name":"ann",
       "content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]},
      {"role":"assistant","content":"\u00e9\ud83d\ude42","tool_calls":[],"refusal":null},
      {"role":"tool","tool_call_id":"x","content":""}]})");
  ASSERT_TRUE(request.ok()) << request.status();
  const auto& messages = std::get<std::vector<text::ChatMessage>>(request->prompts[0].prompt);
  ASSERT_EQ(messages.size(), 4u);
  EXPECT_EQ(messages[0].role, "system");
  EXPECT_EQ(messages[1].content, "a\nb");
  EXPECT_EQ(messages[2].content, "é🙂");
  EXPECT_EQ(messages[3].role, "tool");
}

TEST(OpenAiRequest, UnsoundMessagesAreRefused) {
  ExpectMessagesRefused("[]", "'messages' has 0 messages, but must have 1 to 4096");
  ExpectMessagesRefused("{}", "'messages' must be an array, not an object");
  ExpectMessagesRefused("[3]", "'messages[0]' must be an object, not an integer");
  ExpectMessagesRefused(R"([{"content":"x"}])", "'messages[0].role' is missing");
  ExpectMessagesRefused(R"([{"role":"user"}])", "'messages[0].content' is missing");
  ExpectMessagesRefused(R"([{"role":"king","content":"x"}])", "'messages[0].role' is 'king'");
  ExpectMessagesRefused(
      R"([{"role":"user","content":null}])",
      "'messages[0].content' must be a string or an array of text parts, not null");
  ExpectMessagesRefused(R"([{"role":"user","content":"x","contant":1}])",
                        "unknown field 'messages[0].contant'; did you mean 'content'?");
  ExpectMessagesRefused(R"([{"role":"user","content":"x","tool_calls":[1]}])",
                        "'messages[0].tool_calls' is an assistant's, not of the role 'user'");
  ExpectMessagesRefused(R"([{"role":"assistant","tool_calls":[1]}])",
                        "'messages[0].tool_calls[0]' must be an object, not an integer");
  ExpectMessagesRefused(
      R"([{"role":"assistant","tool_calls":[{"id":"1","type":"function",
          "function":{"name":"f","arguments":"{"}}]}])",
      "'messages[0].tool_calls[0].function.arguments' is no JSON object");
  ExpectMessagesRefused(
      R"([{"role":"user","content":[{"type":"image_url","image_url":{"url":"x"}}]}])",
      "'messages[0].content[0]' is a part of type 'image_url'; only 'text' is supported");
  ExpectMessagesRefused(R"([{"role":"user","content":[{"type":"text"}]}])",
                        "'messages[0].content[0].text' is missing");
  ExpectMessagesRefused(R"([{"role":"user","content":[{"type":"text","text":7}]}])",
                        "'messages[0].content[0].text' must be a string, not an integer");
}

TEST(OpenAiRequest, PromptForms) {
  const auto prompts = [](const std::string& prompt) {
    auto request = Parse(Endpoint::kCompletions, R"({"prompt":)" + prompt + "}");
    EXPECT_TRUE(request.ok()) << request.status();
    return request.ok() ? request->prompts : std::vector<GenerateInput>{};
  };
  EXPECT_EQ(std::get<std::string>(prompts(R"("x")").at(0).prompt), "x");
  EXPECT_EQ(prompts(R"(["x","y"])").size(), 2u);
  EXPECT_EQ(std::get<std::string>(prompts(R"(["x","y"])").at(1).prompt), "y");
  EXPECT_THAT(std::get<std::vector<TokenId>>(prompts("[1,2,3]").at(0).prompt),
              ElementsAre(1, 2, 3));
  EXPECT_THAT(std::get<std::vector<TokenId>>(prompts("[[1],[2,3]]").at(1).prompt),
              ElementsAre(2, 3));
}

TEST(OpenAiRequest, UnsoundPromptsAreRefused) {
  const auto refused = [](const std::string& prompt, const std::string& text) {
    ExpectRefused(Endpoint::kCompletions, R"({"prompt":)" + prompt + "}", "prompt", text);
  };
  refused("[]", "'prompt' has 0 prompts");
  refused("[[]]", "'prompt[0]' has no tokens");
  refused("7", "'prompt' must be a string, an array of strings or an array of token ids");
  refused("null", "'prompt' is missing");
  refused(R"(["x",1])", "'prompt[1]' must be a string or an array of token ids, not an integer");
  refused(R"([1,"x"])", "'prompt[1]' must be a token id, not a string");
  refused(R"(["x",[1]])", "'prompt[1]' must be a string, not an array");
  refused("[-1]", "'prompt[0]' is -1");
  refused("[1.5]", "'prompt[0]' must be a token id, not a number with a fraction");
  refused("[99999999999]", "'prompt[0]' is 99999999999");
  std::string many = "[\"x\"";
  for (int i = 0; i < 64; ++i) many += ",\"x\"";
  refused(many + "]", "'prompt' has 65 prompts, but must have 1 to 64");
}

TEST(OpenAiRequest, ChoicesOfSeveralPrompts) {
  const auto request =
      Parse(Endpoint::kCompletions, R"({"prompt":["a","b"],"n":2,"best_of":2,"seed":5})");
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->choices(), 4);
  EXPECT_EQ(std::get<std::string>(request->Choice(1).prompt), "a");
  EXPECT_EQ(std::get<std::string>(request->Choice(2).prompt), "b");
  EXPECT_EQ(request->Choice(1).sampling.seed, 6u);
  EXPECT_EQ(request->Choice(2).sampling.seed, 5u);
}

TEST(OpenAiRequest, UnknownFieldsNameTheNearest) {
  ExpectChatRefused(R"(,"max_token":5)", "max_token",
                    "unknown field 'max_token'; did you mean 'max_tokens'?");
  ExpectChatRefused(R"(,"zzzzzzzzzz":5)", "zzzzzzzzzz", "unknown field 'zzzzzzzzzz'");
  ExpectChatRefused(R"(,"prompt":"x")", "prompt",
                    "'prompt' is a field of /v1/completions, not of this endpoint");
  ExpectCompletionRefused(R"(,"top_logprobs":2)", "top_logprobs",
                          "a field of /v1/chat/completions");
  ExpectChatRefused(R"(,"stream":true,"stream_options":{"include_usag":true})", "stream_options",
                    "unknown field 'stream_options.include_usag'; did you mean 'include_usage'?");
}

TEST(OpenAiRequest, WrongTypesAreNamed) {
  ExpectChatRefused(R"(,"max_tokens":"5")", "max_tokens",
                    "'max_tokens' must be an integer, not a string");
  ExpectChatRefused(R"(,"temperature":"hot")", "temperature",
                    "'temperature' must be a number, not a string");
  ExpectChatRefused(R"(,"stream":1)", "stream", "'stream' must be a boolean, not an integer");
  ExpectChatRefused(R"(,"model":[])", "model", "'model' must be a string, not an array");
  ExpectChatRefused(R"(,"logprobs":5)", "logprobs", "'logprobs' must be a boolean, not an integer");
  ExpectCompletionRefused(R"(,"logprobs":true)", "logprobs",
                          "'logprobs' must be an integer, not a boolean");
  ExpectChatRefused(R"(,"stop":{})", "stop", "'stop' must be a string or an array of strings");
  ExpectChatRefused(R"(,"stop":["a",2])", "stop", "'stop[1]' must be a string, not an integer");
  ExpectChatRefused(R"(,"logit_bias":[])", "logit_bias", "'logit_bias' must be an object");
  ExpectChatRefused(R"(,"logit_bias":{"x":1})", "logit_bias", "the key 'x'");
  ExpectChatRefused(R"(,"logit_bias":{"-4":1})", "logit_bias", "the key '-4'");
  ExpectChatRefused(R"(,"allowed_token_ids":[])", "allowed_token_ids", "no token would be left");
  ExpectChatRefused(R"(,"allowed_token_ids":5)", "allowed_token_ids", "an array of token ids");
  ExpectChatRefused(R"(,"bad_words":"no")", "bad_words", "must be an array of strings");
  ExpectChatRefused(R"(,"bad_words":["a",1])", "bad_words", "'bad_words[1]' must be a string");
  ExpectChatRefused(R"(,"logit_bias":{"4":"1"})", "logit_bias",
                    "'logit_bias.4' must be a number, not a string");
  ExpectChatRefused(R"(,"stop_token_ids":5)", "stop_token_ids", "must be an array of token ids");
  ExpectChatRefused(R"(,"max_tokens":99999999999)", "max_tokens",
                    "'max_tokens' is 99999999999, but must be in");
  ExpectChatRefused(R"(,"max_tokens":18446744073709551615)", "max_tokens",
                    "'max_tokens' is 18446744073709551615");
}

TEST(OpenAiRequest, BoundsAndContradictions) {
  ExpectChatRefused(R"(,"n":0)", "n", "'n' is 0, but must be in [1, 16]");
  ExpectChatRefused(R"(,"n":17)", "n", "'n' is 17, but must be in [1, 16]");
  ExpectChatRefused(R"(,"stop":"")", "stop", "is 0, but must be in [1, 256]");
  ExpectChatRefused(R"(,"stop":")" + std::string(257, 'x') + "\"", "stop", "is 257");
  ExpectChatRefused(
      R"(,"stop":["a","a","a","a","a","a","a","a","a","a","a","a","a","a","a","a","a"])", "stop",
      "'number of stop strings' is 17, but must be in [0, 16]");
  ExpectChatRefused(R"(,"top_logprobs":2)", "top_logprobs", "needs 'logprobs': true");
  ExpectChatRefused(R"(,"logprobs":true,"top_logprobs":21)", "top_logprobs", "is 21");
  ExpectCompletionRefused(R"(,"logprobs":-1)", "logprobs", "'logprobs' is -1");
  ExpectChatRefused(R"(,"max_tokens":5,"max_completion_tokens":6)", "max_completion_tokens",
                    "'max_completion_tokens' is 6, but 'max_tokens' is 5");
  ExpectChatRefused(R"(,"stream_options":{"include_usage":true})", "stream_options",
                    "needs 'stream': true");
  EXPECT_TRUE(Chat(R"(,"max_tokens":5,"max_completion_tokens":5)").ok());
}

TEST(OpenAiRequest, FieldsWithoutEffectAreTaken) {
  EXPECT_TRUE(Chat(R"(,"user":"u","metadata":{"a":"b"},"store":true,"service_tier":"auto",
      "parallel_tool_calls":false,"tools":[],"tool_choice":"none",
      "response_format":{"type":"text"},"modalities":["text"],"prompt_cache_key":"k")")
                  .ok());
  EXPECT_TRUE(Completion(R"(,"echo":false,"suffix":"","best_of":1,"user":"u")").ok());
}

TEST(OpenAiRequest, WhatWouldChangeTheAnswerIsRefused) {
  ExpectChatRefused(R"(,"functions":[{}])", "functions", "not supported");
  ExpectChatRefused(R"(,"modalities":["text","audio"])", "modalities", "not supported");
  ExpectChatRefused(R"(,"audio":{})", "audio", "not supported");
  ExpectChatRefused(R"(,"reasoning_effort":"high")", "reasoning_effort", "not supported");
  ExpectCompletionRefused(R"(,"stream":true,"prompt_logprobs":1)", "prompt_logprobs",
                          "for streams");
  ExpectCompletionRefused(R"(,"prompt_logprobs":21)", "prompt_logprobs", "in [0, 20]");
  const auto echo = Completion(R"(,"echo":true,"logprobs":2)");
  ASSERT_TRUE(echo.ok());
  EXPECT_EQ(echo->prompts.front().sampling.prompt_logprobs, 2);
  EXPECT_EQ(Completion(R"(,"prompt_logprobs":0)")->prompts.front().sampling.prompt_logprobs, 0);
  ExpectChatRefused(R"(,"guided_grammar":"root ::= x")", "guided_grammar", "not supported");
  ExpectCompletionRefused(R"(,"suffix":"x")", "suffix", "'suffix' is not supported");
  ExpectCompletionRefused(R"(,"best_of":3,"stream":true)", "best_of",
                          "'best_of' 3 is more than 'n' 1, which a stream cannot choose from");
  ExpectCompletionRefused(R"(,"n":3,"best_of":2)", "best_of", "'best_of' is 2");
}

TEST(OpenAiRequest, ConstraintsComeFromEitherFamilyOfNames) {
  const auto constraint = [](const std::string& fields) {
    const auto request = Chat(fields);
    EXPECT_TRUE(request.ok()) << request.status();
    return request.ok() ? request->prompts.front().sampling.constraint : "";
  };
  EXPECT_EQ(constraint(R"(,"response_format":{"type":"text"})"), "");
  EXPECT_EQ(constraint(R"(,"response_format":{"type":"json_object"})"), R"({"json_object":true})");
  const std::string schema = R"({"json_schema": {"type":"null"}})";
  EXPECT_EQ(constraint(R"(,"response_format":{"type":"json_schema","json_schema":{"name":"n",
      "strict":true,"schema":{"type":"null"}}})"),
            schema);
  EXPECT_EQ(constraint(R"(,"guided_json":{"type":"null"})"), schema);
  EXPECT_EQ(constraint(R"(,"guided_json":"{\"type\":\"null\"}")"), schema);
  EXPECT_EQ(constraint(R"(,"structured_outputs":{"json":{"type":"null"},"regex":null})"), schema);
  EXPECT_EQ(constraint(R"(,"guided_regex":"a+")"), R"({"regex":"a+"})");
  EXPECT_EQ(constraint(R"(,"guided_choice":["a","b"])"), R"({"choice":["a","b"]})");
  EXPECT_EQ(constraint(R"(,"structured_outputs":{"choice":["a"]})"), R"({"choice":["a"]})");
}

TEST(OpenAiRequest, ConstraintsThatAreNotPossibleSayWhyAndWhere) {
  ExpectChatRefused(
      R"(,"response_format":{"type":"xml"})", "response_format",
      "'response_format.type' is 'xml', but must be text, json_object or json_schema");
  ExpectChatRefused(R"(,"response_format":{"type":"json_schema"})", "response_format",
                    "'response_format.json_schema' is missing");
  ExpectChatRefused(R"(,"response_format":{"type":"json_schema","json_schema":{"schema":
      {"type":"object","properties":{"a":{"not":{}}}}}})",
                    "response_format",
                    "'response_format' is not possible: the keyword 'not' is not supported at "
                    "#/properties/a");
  ExpectChatRefused(R"x(,"guided_regex":"(?=a)")x", "guided_regex", "a look-around");
  ExpectChatRefused(R"(,"guided_choice":[])", "guided_choice", "something in it");
  ExpectChatRefused(R"(,"guided_choice":["a"],"guided_regex":"a")", "guided_choice",
                    "'guided_choice' beside 'guided_regex'");
  ExpectChatRefused(R"(,"structured_outputs":{"grammar":"x"})", "structured_outputs",
                    "'structured_outputs.grammar' is not supported");
}

constexpr char kTool[] =
    R"({"type":"function","function":{"name":"f","parameters":{"type":"object"}}})";

TEST(OpenAiRequest, ToolsAndTheChoiceAmongThem) {
  const std::string tools = std::string(R"(,"tools":[)") + kTool + "]";
  const auto choice = [&](const std::string& fields) {
    const auto request = Chat(tools + fields);
    EXPECT_TRUE(request.ok()) << request.status();
    return request.ok() ? *request : OpenAiRequest{};
  };
  EXPECT_EQ(choice("").tools.choice, ToolUse::Choice::kAuto);
  EXPECT_EQ(choice("").prompts.front().tools, std::string("[") + kTool + "]");
  EXPECT_EQ(choice(R"(,"tool_choice":"none")").tools.choice, ToolUse::Choice::kNone);
  EXPECT_EQ(choice(R"(,"tool_choice":"none")").prompts.front().tools, "");
  EXPECT_EQ(choice(R"(,"tool_choice":"required")").tools.choice, ToolUse::Choice::kRequired);
  EXPECT_FALSE(choice(R"(,"parallel_tool_calls":false)").tools.parallel);
  const auto named = choice(R"(,"tool_choice":{"type":"function","function":{"name":"f"}})");
  EXPECT_EQ(named.tools.choice, ToolUse::Choice::kRequired);
  EXPECT_EQ(named.tools.only, std::string("[") + kTool + "]");
  const auto history = Parse(Endpoint::kChat, R"({"messages":[{"role":"user","content":"hi"},
      {"role":"assistant","content":null,"tool_calls":[{"id":"1","type":"function",
       "function":{"name":"f","arguments":"{}"}}]},
      {"role":"tool","tool_call_id":"1","content":"done"}]})");
  ASSERT_TRUE(history.ok()) << history.status();
  const auto& messages = std::get<std::vector<text::ChatMessage>>(history->prompts.front().prompt);
  EXPECT_THAT(messages.at(1).tool_calls, HasSubstr(R"("name":"f")"));
  EXPECT_EQ(messages.at(2).tool_call_id, "1");
}

TEST(OpenAiRequest, UnsoundToolsAreRefused) {
  const std::string tools = std::string(R"(,"tools":[)") + kTool + "]";
  ExpectChatRefused(R"(,"tools":[{"type":"function"}])", "tools", "'tools[0].function' is missing");
  ExpectChatRefused(R"(,"tools":[{"type":"web_search"}])", "tools",
                    "other tools are not supported");
  ExpectChatRefused(R"(,"tools":[{"type":"function","function":{"name":"a b"}}])", "tools",
                    "'tools[0].function.name' must be 1 to 64");
  ExpectChatRefused(std::string(R"(,"tools":[)") + kTool + "," + kTool + "]", "tools",
                    "is that of an earlier tool");
  ExpectChatRefused(R"(,"tool_choice":"required")", "tool_choice", "there are no 'tools'");
  ExpectChatRefused(tools + R"(,"tool_choice":"always")", "tool_choice",
                    "'tool_choice' is 'always'");
  ExpectChatRefused(tools + R"(,"tool_choice":{"type":"function","function":{"name":"g"}})",
                    "tool_choice", "the function \"g\", which is not among the tools");
}

TEST(OpenAiRequest, UnsoundJson) {
  const auto refused = [](const std::string& body, const std::string& text) {
    ExpectRefused(Endpoint::kChat, body, "", text);
  };
  refused("", "the body is empty");
  refused(" \n", "the body is empty");
  refused("{", "not valid JSON");
  refused("[]", "must be a JSON object, not an array");
  refused("{} x", "something follows the object at byte 3");
  refused(R"({"a":1,})", "not valid JSON");
  refused(R"({"a":NaN})", "not valid JSON");
  refused(R"({"a":01})", "not valid JSON");
  refused(R"({"a":"\x"})", "not valid JSON");
  refused(R"({/*c*/})", "not valid JSON");
  refused(R"({"messages":"\ud800"})", "not valid JSON");
  refused("{\"a\":\"\xC0\xAF\"}", "not valid JSON");
  refused("{\"a\":\"\xED\xA0\x80\"}", "not valid JSON");
  refused("{\"a\":\"\xF4\x90\x80\x80\"}", "not valid JSON");
  refused("{\"a\":\"\xFF\"}", "not valid JSON");
  refused("{\"a\":\"line\nbreak\"}", "not valid JSON");
}

TEST(OpenAiRequest, DepthIsBoundedAt32) {
  const auto nested = [](size_t depth) {
    return R"({"metadata":)" + std::string(depth - 1, '[') + std::string(depth - 1, ']') +
           R"(,"messages":[{"role":"user","content":"hi"}]})";
  };
  EXPECT_TRUE(Parse(Endpoint::kChat, nested(32)).ok());
  ExpectRefused(Endpoint::kChat, nested(33), "", "not valid JSON");
  ExpectRefused(Endpoint::kChat, nested(1'000'000), "", "not valid JSON");
}

}  // namespace
}  // namespace baton::router
