#include "router/responses_answer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "tests/router/scripted_dispatcher.h"

namespace baton::router {
namespace {

// (event's name, its data)
std::vector<std::pair<std::string, boost::json::value>> EventsOf(std::string_view stream) {
  std::vector<std::pair<std::string, boost::json::value>> events;
  while (!stream.empty()) {
    const size_t end = stream.find("\n\n");
    const std::string_view event = stream.substr(0, end);
    stream.remove_prefix(end + 2);
    const size_t line = event.find('\n');
    const std::string data(event.substr(line + 7));
    events.emplace_back(event.substr(7, line - 7), boost::json::parse(data));
    EXPECT_EQ(std::string(events.back().second.at("type").as_string()), events.back().first);
    EXPECT_EQ(events.back().second.at("sequence_number"), events.size() - 1);
  }
  return events;
}

ResponsesOptions Options() {
  ResponsesOptions options;
  options.id = "7";
  options.model = "m";
  options.created_s = 17;
  options.instructions = R"("Be brief.")";
  return options;
}

TEST(ResponsesAnswerTest, AStreamHasTheApisEvents) {
  ResponsesAnswer answer(Options(), /*stream=*/true);
  std::string out;
  answer.Add(TextDelta(0, "Say \"é\""), &out);
  answer.Add(TextDelta(1, ""), &out);
  answer.Add(TextDelta(2, "!"), &out);
  EXPECT_FALSE(answer.complete());
  answer.Add(TestFinish(3), &out);
  EXPECT_TRUE(answer.complete());
  const auto events = EventsOf(out);
  std::vector<std::string> names;
  for (const auto& [name, data] : events) names.push_back(name);
  EXPECT_THAT(names,
              testing::ElementsAre("response.created", "response.in_progress",
                                   "response.output_item.added", "response.content_part.added",
                                   "response.output_text.delta", "response.output_text.delta",
                                   "response.output_text.done", "response.content_part.done",
                                   "response.output_item.done", "response.completed"));
  EXPECT_EQ(events[0].second.at("response").at("status"), "in_progress");
  EXPECT_TRUE(events[0].second.at("response").at("output").as_array().empty());
  EXPECT_EQ(events[4].second.at("delta"), "Say \"é\"");
  EXPECT_EQ(events[6].second.at("text"), "Say \"é\"!");
  const boost::json::value& response = events[9].second.at("response");
  EXPECT_EQ(response, boost::json::parse(answer.Body()));
  EXPECT_EQ(response.at("output").at(0).at("content").at(0).at("text"), "Say \"é\"!");
  EXPECT_EQ(response.at("instructions"), "Be brief.");
  EXPECT_EQ(response.at("usage").at("output_tokens"), 3);
}

TEST(ResponsesAnswerTest, AnAnswerThatIsCutOffIsIncomplete) {
  ResponsesAnswer answer(Options(), /*stream=*/false);
  std::string out;
  answer.Add(TextDelta(0, "a"), &out);
  answer.Add(TestFinish(1, FinishReason::kLength), &out);
  EXPECT_EQ(out, "");
  const boost::json::value response = boost::json::parse(answer.Body());
  EXPECT_EQ(response.at("status"), "incomplete");
  EXPECT_EQ(response.at("incomplete_details").at("reason"), "max_output_tokens");
}

}  // namespace
}  // namespace baton::router
