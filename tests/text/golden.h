#pragma once

// Reads tests/golden/text: lines of fields between tabs, bytes as \xNN where they do not print.

#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "common/status_macros.h"

namespace baton::text::test {

inline std::string Unescape(std::string_view field) {
  const auto digit = [](char c) { return c <= '9' ? c - '0' : c - 'a' + 10; };
  std::string out;
  for (size_t i = 0; i < field.size(); ++i) {
    if (field[i] != '\\') {
      out += field[i];
    } else {
      out += static_cast<char>(digit(field.at(i + 2)) * 16 + digit(field.at(i + 3)));
      i += 3;
    }
  }
  return out;
}

// All lines of tests/golden/text/`name`, each as its unescaped fields.
inline std::vector<std::vector<std::string>> ReadGolden(const std::string& name) {
  const std::string path = "tests/golden/text/" + name;
  std::ifstream in(path);
  BATON_CHECK(in.good(), "the golden data is in tests/golden/text");
  std::vector<std::vector<std::string>> lines;
  for (std::string line; std::getline(in, line);) {
    auto& fields = lines.emplace_back();
    for (size_t begin = 0; begin <= line.size();) {
      const size_t end = std::min(line.find('\t', begin), line.size());
      fields.push_back(Unescape(std::string_view(line).substr(begin, end - begin)));
      begin = end + 1;
    }
  }
  return lines;
}

}  // namespace baton::text::test
