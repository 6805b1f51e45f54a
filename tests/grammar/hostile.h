#pragma once

// Constraints that somebody may send who means harm: as large, as ambiguous and as deeply nested as
// the bounds let them be. Each is refused or costs a bounded amount of work.

#include <fmt/format.h>

#include <string>
#include <utility>
#include <vector>

#include "grammar/constraint.h"

namespace baton::grammar {

struct HostileConstraint {
  std::string name;
  std::string description;
};

inline std::string Repeated(std::string_view text, int times) {
  std::string all;
  for (int i = 0; i < times; ++i) all += text;
  return all;
}

inline std::vector<HostileConstraint> HostileConstraints() {
  std::vector<HostileConstraint> all;
  const auto regex = [&](std::string name, std::string_view pattern) {
    all.push_back({std::move(name), RegexConstraint(pattern)});
  };
  const auto schema = [&](std::string name, std::string_view text) {
    all.push_back({std::move(name), JsonSchemaConstraint(text)});
  };
  regex("counts inside counts", "((a{0,40}b?){0,30}c?){0,10}");
  regex("counts of nothing", "((((()*){0,5000}){0,5000})*){0,5000}x");
  regex("stars inside stars", Repeated("(", 60) + "a" + Repeated("*)", 60) + "*b");
  regex("stars beside stars", Repeated("a*", 16'000) + "b");
  regex("optional letters", Repeated("a?", 16'000) + "a{5000}");
  regex("letters from the end", "(a|b)*a(a|b){5000}");
  regex("any text from the end", ".*a.{5000}");
  regex("all alternatives alike", "(" + Repeated("[a-z ]*x|", 5'000) + "y)*z");
  regex("many classes", "(" + Repeated("[aceg-ikmoqsuwyACEGIKMOQSUWY02468 ]", 1'700) + ")*");
  regex("a class of many ranges, often",
        "([ace-gikmoqsuwyACEGIKMOQSUWY02468,.;:<>?/-]{5000}){11}x");
  std::string wide = "[";
  for (uint32_t c = 0x1000; c < 0x1000 + 2 * 21'000; c += 2) {
    wide += {static_cast<char>(0xE0 | c >> 12), static_cast<char>(0x80 | (c >> 6 & 0x3F)),
             static_cast<char>(0x80 | (c & 0x3F))};
  }
  regex("a class of 21,000 letters", wide + "]*");
  regex("classes of Unicode, often", R"(([^\u0080-\uFFFD]|[\u0100-\u5000]|[^a-z]){5000}x)");
  regex("everything but a letter, often", "(" + Repeated("[^a][^b][^c]", 500) + ")*x");
  std::string choices;
  for (int i = 0; i < 6'000; ++i) choices += fmt::format("{}\"{}\"", i > 0 ? "," : "", i * 7919);
  all.push_back({"a choice of 6,000", R"({"choice": [)" + choices + "]}"});
  std::string prefixes;
  for (int i = 1; i < 350; ++i) {
    prefixes += fmt::format("{}\"{}\"", i > 1 ? "," : "", std::string(static_cast<size_t>(i), 'a'));
  }
  all.push_back({"each choice begins the next", R"({"choice": [)" + prefixes + "]}"});
  schema("an enum of 6,000", R"({"enum": [)" + choices + "]}");
  std::string members;
  for (int i = 0; i < 1'500; ++i) members += fmt::format("{}\"p{}\": {{}}", i > 0 ? "," : "", i);
  schema("1,500 members, and others",
         R"({"properties": {)" + members + R"(}, "additionalProperties": true})");
  schema("long texts in long lists",
         R"({"type":"array","maxItems":4000,"items":{"type":"string","maxLength":4000}})");
  schema("many long texts", R"({"prefixItems": [)" +
                                Repeated(R"({"type":"string","maxLength":90},)", 60) +
                                R"({"type":"string"}]})");
  std::string chain;
  for (int i = 0; i < 1'200; ++i) {
    chain += fmt::format(R"("d{}": {{"$ref": "#/$defs/d{}"}},)", i, i + 1);
  }
  schema("a chain of references",
         R"({"$ref": "#/$defs/d0", "$defs": {)" + chain + R"("d1200": {"type": "null"}}})");
  std::string fan;
  for (int i = 0; i < 700; ++i) {
    fan += fmt::format(
        R"("d{0}": {{"anyOf": [{{"$ref": "#/$defs/d{1}"}}, {{"$ref": "#/$defs/d{1}"}}]}},)", i,
        i + 1);
  }
  schema("references that double",
         R"({"$ref": "#/$defs/d0", "$defs": {)" + fan + R"("d700": {"type": "string"}}})");
  schema("a schema of itself, many times", R"({"type": "array", "items": {"anyOf": [)" +
                                               Repeated(R"({"$ref": "#"},)", 3'000) +
                                               R"({"type": "null"}]}})");
  schema("objects of themselves",
         R"({"additionalProperties": {"anyOf": [{"$ref": "#"}, {"$ref": "#/additionalProperties"},
             {"type": "array", "items": {"$ref": "#"}}, {"type": "string"}]}})");
  schema("alternatives that begin alike",
         R"({"anyOf": [)" + Repeated(R"({"type":"array","items":{"type":"string"}},)", 1'200) +
             R"({"type":"null"}]})");
  schema("numbers between bounds",
         R"({"prefixItems": [)" +
             Repeated(R"({"type":"number","minimum":-123456.789,"maximum":987654.321},)", 600) +
             R"({"type":"null"}]})");
  return all;
}

}  // namespace baton::grammar
