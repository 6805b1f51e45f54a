#include "grammar/json_values.h"

#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "tests/grammar/matching.h"

namespace baton::grammar {
namespace {

TEST(JsonValuesTest, AnyObjectIsAnyObject) {
  Matching json(R"({"json_object": true})");
  for (const char* taken :
       {"{}", "{ }", R"({"a":1})", R"({"a": [1, -2.5e-3, true, null, "x\n\u00e9\ud83d\ude00"]})",
        "{\n  \"a\": {\n    \"b\": []\n  }\n}", R"({"": "\"\\\/"})",
        "{\"\xC3\xA9\": \"\xF0\x9F\x98\x80\"}"}) {
    EXPECT_TRUE(json.Takes(taken)) << taken;
  }
  for (const char* refused : {"",
                              "[]",
                              "1",
                              "{",
                              R"({"a"})",
                              R"({"a":1,})",
                              R"({a:1})",
                              R"({"a":01})",
                              R"({"a":.5})",
                              R"({"a":+1})",
                              R"({"a":1}x)",
                              R"({"a":"\x"})",
                              R"({"a":"\ud800"})",
                              R"({"a":"\udc00"})",
                              "{\"a\":\"\n\"}",
                              "{\"a\":\"\xC3\"}",
                              "{\"a\":\"\xED\xA0\x80\"}",
                              " {}",
                              "{}\n",
                              R"({"a"   :1})",
                              R"({"a":    1})",
                              R"({"a":tru})"}) {
    EXPECT_FALSE(json.Takes(refused)) << refused;
  }
}

TEST(JsonValuesTest, RandomObjectsAreJson) {
  Matching matching(R"({"json_object": true})");
  std::mt19937 random(17);
  for (int i = 0; i < 300; ++i) {
    const std::string text = matching.Random(&random, 200);
    boost::json::parse_options options;
    options.max_depth = 200;
    boost::json::error_code error;
    const auto value = boost::json::parse({text.data(), text.size()}, error, {}, options);
    ASSERT_FALSE(error) << error.message() << "\n" << text;
    EXPECT_TRUE(value.is_object());
  }
}

}  // namespace
}  // namespace baton::grammar
