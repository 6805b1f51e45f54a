#include "grammar/json_schema.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/grammar/matching.h"

namespace baton::grammar {
namespace {

using testing::HasSubstr;

struct SchemaCase {
  const char* schema;
  std::vector<std::string> taken, refused;
};

void Check(const std::vector<SchemaCase>& cases) {
  for (const SchemaCase& one : cases) {
    Matching matching(JsonSchemaConstraint(one.schema));
    for (const std::string& text : one.taken) {
      EXPECT_TRUE(matching.Takes(text)) << one.schema << "\n" << text;
    }
    for (const std::string& text : one.refused) {
      EXPECT_FALSE(matching.Takes(text)) << one.schema << "\n" << text;
    }
    std::mt19937 random(1);
    for (int i = 0; i < 20; ++i) EXPECT_TRUE(matching.Takes(matching.Random(&random, 100)));
  }
}

TEST(JsonSchemaTest, Scalars) {
  Check({
      {R"({"type": "boolean"})", {"true", "false"}, {"null", "1", "tru"}},
      {R"({"type": "null", "title": "t", "description": "d", "x-y": 1})", {"null"}, {"0"}},
      {R"({"type": ["integer", "null"]})", {"12", "-3", "0", "null"}, {"1.5", "00", "\"1\""}},
      {R"({"type": "number"})", {"1", "-1.5", "2e9"}, {"1.", "e", "\"1\""}},
      {R"({"type": "integer", "minimum": 3, "exclusiveMaximum": 21})",
       {"3", "20", "9", "10"},
       {"2", "21", "03", "30", "3.0"}},
      {R"({"type": "number", "minimum": -0.5, "maximum": 1.25})",
       {"0", "-0.5", "1.25", "1.1"},
       {"-0.51", "1.26", "2"}},
      {R"({"minimum": 3})", {"3"}, {"2"}},
      {R"({"type": "string"})", {R"("")", R"("a\"b")", "\"\xC3\xA9\""}, {"a", R"("a)", "\"\n\""}},
      {R"({"type": "string", "minLength": 2, "maxLength": 3})",
       {R"("ab")", "\"\xC3\xA9\xC3\xA9\xC3\xA9\"", R"("\n\u00e9")"},
       {R"("a")", R"("abcd")"}},
      {R"({"type": "string", "pattern": "^[a-c\"]+$"})",
       {R"("abc")", R"("a\"")"},
       {R"("")", R"("d")", R"("a"b")"}},
      {R"({"type": "string", "pattern": "b\\n"})", {R"("xxb\ny")", R"("b\n")"}, {R"("bn")"}},
      {R"({"type": "string", "pattern": "^b"})", {R"("bx")", R"("b")"}, {R"("xb")"}},
      {R"({"enum": ["red", "green", 3, null, 1.5, true, {"a": [1]}]})",
       {R"("red")", "3", "null", "1.5", "true", R"({"a": [1]})", R"({"a":[1]})"},
       {R"("blue")", "4", R"({"a": [2]})"}},
      {R"({"type": "string", "enum": ["red", 3]})", {R"("red")"}, {"3"}},
      {R"({"const": "a\"b"})", {R"("a\"b")"}, {R"("a")"}},
  });
}

TEST(JsonSchemaTest, Formats) {
  Check({
      {R"({"type": "string", "format": "date"})", {R"("2024-02-29")"}, {R"("2024-13-01")"}},
      {R"({"type": "string", "format": "time"})", {R"("23:59:00Z")"}, {R"("24:00:00Z")"}},
      {R"({"type": "string", "format": "date-time"})",
       {R"("2024-02-29T10:00:00.5+01:00")"},
       {R"("2024-02-29 10:00")"}},
      {R"({"type": "string", "format": "duration"})",
       {R"("P3D")", R"("PT5M")", R"("P1Y2M3DT4H")"},
       {R"("P")", R"("3D")"}},
      {R"({"type": "string", "format": "email"})", {R"("a.b@c.org")"}, {R"("a@b")", R"("@c.org")"}},
      {R"({"type": "string", "format": "hostname"})", {R"("a-b.example")"}, {R"("-a")"}},
      {R"({"type": "string", "format": "ipv4"})",
       {R"("127.0.0.1")", R"("255.249.10.0")"},
       {R"("256.0.0.1")", R"("1.2.3")", R"("01.2.3.4")"}},
      {R"({"type": "string", "format": "ipv6"})", {R"("1:2:3:4:5:6:7:ffff")"}, {R"("1:2")"}},
      {R"({"type": "string", "format": "uuid"})",
       {R"("01234567-89ab-cdef-0123-456789abcdef")"},
       {R"("01234567")"}},
      {R"({"type": "string", "format": "uri"})", {R"("https://example.org/a?b=c")"}, {R"("x")"}},
  });
}

TEST(JsonSchemaTest, Objects) {
  Check({
      {R"({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "boolean"},
           "c": {"type": "null"}}, "required": ["b"]})",
       {R"({"b": true})", R"({"a": 1, "b": false})", R"({"b":true,"c":null})",
        "{\n  \"a\": 1,\n  \"b\": true\n}"},
       {"{}", R"({"a": 1})", R"({"b": true, "a": 1})", R"({"b": true, "d": 1})",
        R"({"b": true, "b": true})", R"({"b": 1})"}},
      {R"({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}})",
       {"{}", "{ }", R"({"a": 1})", R"({"b": 1})", R"({"a": 1, "b": 2})"},
       {R"({"c": 1})"}},
      {R"({"type": "object"})", {"{}", R"({"x": [{}]})"}, {"[]"}},
      {R"({"type": "object", "additionalProperties": false})", {"{}"}, {R"({"a": 1})"}},
      {R"({"type": "object", "additionalProperties": {"type": "integer"}})",
       {"{}", R"({"a": 1, "b": 2})"},
       {R"({"a": true})"}},
      {R"({"type": "object", "properties": {"ab": {"type": "integer"}, "a": {"type": "null"}},
           "required": ["ab"], "additionalProperties": {"type": "boolean"}})",
       {R"({"ab": 1})", R"({"ab": 1, "abc": true})", R"({"ab": 1, "b": true, "": false})",
        R"({"ab": 1, "a": null, "x": true})"},
       {R"({"ab": 1, "ab": true})", R"({"ab": 1, "a": true})", R"({"abc": true})",
        R"({"ab": 1, "x": 1})"}},
      {R"({"type": "object", "additionalProperties": {"type": "null"}, "minProperties": 1,
           "maxProperties": 2})",
       {R"({"a": null})", R"({"a": null, "b": null})"},
       {"{}", R"({"a": null, "b": null, "c": null})"}},
      {R"({"required": ["x"]})", {R"({"x": [1]})"}, {"{}", R"({"y": 1})"}},
      {"{\"properties\": {\"\xC3\xA9\": {\"type\": \"null\"}}, \"additionalProperties\": true}",
       {"{\"\xC3\xA9\": null}", "{\"\xC3\xA8\": 1}", "{\"\xC3\xA9x\": 1}"},
       {"{\"\xC3\xA9\": 1}"}},
      {"true", {"1", "{}"}, {"x"}},
      {"{}", {"1", "{}", "[null]"}, {"x"}},
  });
}

TEST(JsonSchemaTest, Arrays) {
  Check({
      {R"({"type": "array", "items": {"type": "integer"}})",
       {"[]", "[1]", "[1, 2,3]"},
       {"[true]", "[1,]", "[1"}},
      {R"({"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 3})",
       {"[1]", "[1,2,3]"},
       {"[]", "[1,2,3,4]"}},
      {R"({"type": "array", "maxItems": 0})", {"[]"}, {"[1]"}},
      {R"({"type": "array"})", {"[]", R"([1, "a", {}])"}, {"{}"}},
      {R"({"type": "array", "prefixItems": [{"type": "integer"}, {"type": "boolean"}],
           "minItems": 2, "maxItems": 2})",
       {"[1, true]"},
       {"[1]", "[1, true, 2]", "[true, 1]"}},
      {R"({"prefixItems": [{"type": "integer"}], "items": {"type": "null"}})",
       {"[1]", "[1, null, null]"},
       {"[null]", "[1, 1]"}},
      {R"({"prefixItems": [{"type": "integer"}], "items": false})", {"[1]"}, {"[1, 1]"}},
      {R"({"type": "array", "items": {"type": "array", "items": {"type": "null"}, "minItems": 1}})",
       {"[]", "[[null], [null, null]]"},
       {"[[]]"}},
  });
}

TEST(JsonSchemaTest, ChoicesAndReferences) {
  Check({
      {R"({"anyOf": [{"type": "integer"}, {"type": "string", "maxLength": 1}]})",
       {"1", R"("a")"},
       {"true", R"("ab")"}},
      {R"({"oneOf": [{"const": 1}, {"const": 12}]})", {"1", "12"}, {"2"}},
      {R"({"allOf": [{"type": "null"}]})", {"null"}, {"1"}},
      {R"({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "null"}}})", {"null"}, {"1"}},
      {R"({"type": "object", "properties": {"value": {"type": "integer"},
           "next": {"anyOf": [{"type": "null"}, {"$ref": "#"}]}}, "required": ["value", "next"]})",
       {R"({"value": 1, "next": null})", R"({"value": 1, "next": {"value": 2, "next": null}})"},
       {R"({"value": 1})", R"({"value": 1, "next": 2})"}},
      {R"({"$defs": {"tree": {"type": "array", "items": {"$ref": "#/$defs/tree"}}},
           "$ref": "#/$defs/tree"})",
       {"[]", "[[],[[]]]"},
       {"[1]"}},
  });
}

TEST(JsonSchemaTest, WhatIsNotSupportedIsNamedWithItsPlace) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"type": "object", "properties": {"a": {"type": "array", "uniqueItems": true}}})",
       "the keyword 'uniqueItems' is not supported at #/properties/a"},
      {R"({"proprties": {}})", "(is it 'properties'?) at #"},
      {R"({"not": {}})", "'not'"},
      {R"({"if": {}, "then": {}})", "'if'"},
      {R"({"type": "number", "multipleOf": 2})", "'multipleOf'"},
      {R"({"type": "object", "patternProperties": {}})", "'patternProperties'"},
      {R"({"anyOf": [{"type": "null"}], "properties": {}})",
       "'properties' beside 'anyOf' is not supported at #"},
      {R"({"$ref": "#/$defs/x"})", "'$ref' is '#/$defs/x', which is nowhere in the schema at #"},
      {R"({"$ref": "http://example.org/x"})", "nowhere in the schema"},
      {R"({"allOf": [{}, {}]})", "'allOf' with more than one schema"},
      {R"x({"type": "string", "pattern": "a(?=b)"})x", "a look-around"},
      {R"({"type": "string", "pattern": "^a|b"})", "in one of several alternatives"},
      {R"({"type": "string", "pattern": "a", "maxLength": 3})", "more than one of 'pattern'"},
      {R"({"type": "string", "format": "iri"})", "the format \"iri\" is not supported"},
      {R"({"type": "string", "maxLength": 5000})", "'maxLength' at # must be an integer in"},
      {R"({"type": "string", "minLength": 5, "maxLength": 3})", "above"},
      {R"({"type": "array", "minItems": 5, "maxItems": 3})", "above"},
      {R"({"prefixItems": [{}], "items": false, "minItems": 2})", "more than the 1 items"},
      {R"({"type": "integer", "minimum": 1e30})", "no decimal of at most 16 digits"},
      {R"({"type": "integer", "minimum": 5, "maximum": 3})", "no text satisfies"},
      {R"({"type": "integer", "minimum": 1, "exclusiveMinimum": 1})", "beside its other form"},
      {R"({"type": "strin"})", "'type' is not object"},
      {R"({"enum": []})", "'enum' is no array with something in it"},
      {R"({"type": "string", "enum": [1]})", "none of the values has the schema's type"},
      {R"({"properties": 1})", "'properties' at # is no object"},
      {R"({"required": [1]})", "'required' at # has no names only"},
      {"false", "'false'"},
      {"1", "neither an object nor true"},
      {R"({"anyOf": [{"$ref": "#"}, {"type": "null"}]})", "refers to itself"},
      {R"({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]})",
       "no text satisfies"},
  };
  for (const auto& [schema, why] : cases) {
    EXPECT_THAT(WhyNot(JsonSchemaConstraint(schema)), HasSubstr(why)) << schema;
  }
}

// As many optional members as people have, none lost.
TEST(JsonSchemaTest, ManyOptionalMembers) {
  std::string properties;
  for (int i = 0; i < 150; ++i) {
    properties += (i == 0 ? "" : ",") + ("\"p" + std::to_string(i)) + R"(": {"type": "integer"})";
  }
  Matching matching(
      JsonSchemaConstraint(R"({"type": "object", "properties": {)" + properties + "}}"));
  EXPECT_TRUE(matching.Takes("{}"));
  EXPECT_TRUE(matching.Takes(R"({"p149": 1})"));
  EXPECT_TRUE(matching.Takes(R"({"p0": 1, "p77": 2, "p149": 1})"));
  std::string all;
  for (int i = 0; i < 150; ++i) all += (i == 0 ? "{\"p" : ", \"p") + std::to_string(i) + "\": 1";
  EXPECT_TRUE(matching.Takes(all + "}"));
  EXPECT_FALSE(matching.Takes(R"({"p77": 1, "p0": 2})"));
}

}  // namespace
}  // namespace baton::grammar
