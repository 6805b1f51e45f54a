#include "router/responses_request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace baton::router {
namespace {

using testing::HasSubstr;

absl::StatusOr<OpenAiRequest> Read(const std::string& body, ResponsesOptions* options = nullptr) {
  ResponsesOptions own;
  std::string param;
  return ParseResponsesRequest(body, RequestLimits{}, options == nullptr ? &own : options, &param);
}

const std::vector<text::ChatMessage>& MessagesOf(const OpenAiRequest& request) {
  return std::get<std::vector<text::ChatMessage>>(request.prompts.front().prompt);
}

TEST(ResponsesRequestTest, AStringIsAUsersMessageBehindTheInstructions) {
  ResponsesOptions options;
  const auto request = Read(
      R"({"model": "m", "input": "Hi", "instructions": "Be brief.", "max_output_tokens": 9,
          "temperature": 0.5, "stream": true, "store": true, "metadata": {"a": "b"}, "tools": []})",
      &options);
  ASSERT_TRUE(request.ok()) << request.status();
  ASSERT_EQ(MessagesOf(*request).size(), 2u);
  EXPECT_EQ(MessagesOf(*request)[0].role, "system");
  EXPECT_EQ(MessagesOf(*request)[1].content, "Hi");
  EXPECT_EQ(request->prompts.front().sampling.max_tokens, 9);
  EXPECT_EQ(request->prompts.front().sampling.temperature, 0.5f);
  EXPECT_TRUE(request->stream);
  EXPECT_EQ(options.instructions, "\"Be brief.\"");
  EXPECT_EQ(options.max_output_tokens, "9");
  EXPECT_EQ(options.metadata, R"({"a":"b"})");
}

TEST(ResponsesRequestTest, MessagesMayHavePartsAndCarryWhatEarlierAnswersHad) {
  const auto request = Read(R"({"input": [
      {"role": "developer", "content": "Rules"},
      {"role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
      {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant",
       "content": [{"type": "output_text", "text": "Hello", "annotations": []}]}]})");
  ASSERT_TRUE(request.ok()) << request.status();
  ASSERT_EQ(MessagesOf(*request).size(), 3u);
  EXPECT_EQ(MessagesOf(*request)[1].content, "Hi");
  EXPECT_EQ(MessagesOf(*request)[2].role, "assistant");
  EXPECT_EQ(MessagesOf(*request)[2].content, "Hello");
}

TEST(ResponsesRequestTest, AFormatIsAConstraint) {
  const auto request = Read(R"({"input": "x", "text": {"format": {"type": "json_schema",
      "name": "n", "strict": true, "schema": {"type": "integer"}}}})");
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->prompts.front().sampling.constraint, R"({"json_schema": {"type":"integer"}})");
  EXPECT_EQ(Read(R"({"input": "x", "text": {"format": {"type": "text"}}})")
                ->prompts.front()
                .sampling.constraint,
            "");
}

TEST(ResponsesRequestTest, WhatIsNotTextIsRefused) {
  const std::pair<const char*, const char*> refused[] = {
      {R"({})", "'input' is missing"},
      {R"({"input": 7})", "an array of messages"},
      {R"({"input": "x", "previous_response_id": "resp_1"})", "'previous_response_id' is not"},
      {R"({"input": "x", "tools": [{"type": "web_search"}]})", "'tools' is not"},
      {R"({"input": "x", "truncation": "auto"})", "must be disabled"},
      {R"({"input": [{"type": "function_call_output", "output": "x"}]})", "'input[0].type'"},
      {R"({"input": [{"role": "user", "content": [{"type": "input_image"}]}]})", "input_image"},
      {R"({"input": "x", "text": {"format": {"type": "grammar"}}})", "must be text, json_object"},
      {R"({"input": "x", "inpt": 1})", "did you mean 'input'"}};
  for (const auto& [body, words] : refused) {
    EXPECT_THAT(std::string(Read(body).status().message()), HasSubstr(words)) << body;
  }
}

}  // namespace
}  // namespace baton::router
