#pragma once

#include <cstdio>
#include <string>

namespace baton::cli {

// To stdout at once, so that whoever reads a pipe sees each row when it is measured.
inline void PrintLine(const std::string& line) {
  std::puts(line.c_str());
  std::fflush(stdout);
}

}  // namespace baton::cli
