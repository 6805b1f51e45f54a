#pragma once

#include <unistd.h>

#include <cstdio>
#include <string>

namespace baton::cli {

// A line on standard error that is written over, where that is a terminal.
class ProgressLine {
 public:
  explicit ProgressLine(bool shown = isatty(STDERR_FILENO) == 1) : shown_(shown) {}
  ~ProgressLine() { Clear(); }

  void Show(const std::string& text) {
    if (shown_) std::fprintf(stderr, "\r\033[K%s", text.c_str());
  }
  void Clear() { Show(""); }

 private:
  const bool shown_;
};

}  // namespace baton::cli
