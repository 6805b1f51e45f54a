#include "router/tgi_answer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/router/scripted_dispatcher.h"

namespace baton::router {
namespace {

using testing::HasSubstr;

TEST(TgiAnswerTest, TheLastEventHasTheWholeText) {
  TgiAnswer answer({.full_text = true, .prompt = "Say: "}, /*stream=*/true);
  std::string out;
  answer.Add(TextDelta(0, "Hel"), &out);
  EXPECT_EQ(out, "");
  answer.Add(TextDelta(1, "lo"), &out);
  EXPECT_THAT(out, HasSubstr(R"("text":"Hel")"));
  EXPECT_THAT(out, HasSubstr(R"("generated_text":null,"details":null})"));
  out.clear();
  answer.Add(TestFinish(2, FinishReason::kLength), &out);
  EXPECT_TRUE(answer.complete());
  EXPECT_THAT(out, HasSubstr(R"("index":2)"));
  EXPECT_THAT(out, HasSubstr(R"("generated_text":"Say: Hello")"));
  EXPECT_THAT(out, HasSubstr(R"("finish_reason":"length","generated_tokens":2,"input_length":5)"));
}

TEST(TgiAnswerTest, TellsEndTokensFromStopStrings) {
  const auto reason = [](const std::string& last, bool has_stop) {
    TgiAnswer answer({.details = true, .has_stop = has_stop}, /*stream=*/false);
    std::string out;
    answer.Add(TextDelta(0, last), &out);
    answer.Add(TestFinish(1), &out);
    return answer.Body();
  };
  EXPECT_THAT(reason("", true), HasSubstr(R"("finish_reason":"eos_token")"));
  EXPECT_THAT(reason("", true), HasSubstr(R"("special":true)"));
  EXPECT_THAT(reason("x", true), HasSubstr(R"("finish_reason":"stop_sequence")"));
  EXPECT_THAT(reason("x", false), HasSubstr(R"("finish_reason":"eos_token")"));
}

TEST(TgiAnswerTest, ThePromptsTokensAreDetails) {
  TgiAnswer answer({.details = true}, /*stream=*/false);
  std::string out;
  Delta delta = TextDelta(0, "x");
  delta.prompt = {{1, "a", 0, {}}, {2, "b", -0.5f, {}}};
  answer.Add(delta, &out);
  answer.Add(TestFinish(1), &out);
  EXPECT_THAT(answer.Body(), HasSubstr(R"("prefill":[{"id":1,"text":"a","logprob":null},)"
                                       R"({"id":2,"text":"b","logprob":-0.5}],"tokens":[)"));
}

TEST(TgiAnswerTest, ErrorsAreInItsShape) {
  EXPECT_EQ(TgiErrorBody(absl::InvalidArgumentError("no")),
            R"({"error":"no","error_type":"validation"})");
  EXPECT_EQ(TgiErrorBody(absl::ResourceExhaustedError("no")),
            R"({"error":"no","error_type":"overloaded"})");
  EXPECT_EQ(TgiErrorBody(absl::InternalError("no")), R"({"error":"no","error_type":"generation"})");
}

}  // namespace
}  // namespace baton::router
