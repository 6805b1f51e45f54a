#pragma once

// Child processes of a command.

#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/clock.h"

namespace baton::cli {

// A child that gets SIGTERM when this process dies, however it dies. Its standard error is ours.
// Movable; the destructor kills and reaps a child that still runs. Not thread-safe.
class Subprocess {
 public:
  // Starts `arguments` (the first is the program, looked up in PATH). With `capture_stdout` its
  // standard output comes through ReadLine, else it is ours. A ready child lives in its own process
  // group, so that Ctrl-C reaches only the parent, which decides how to end it.
  static absl::StatusOr<Subprocess> Start(const std::vector<std::string>& arguments,
                                          bool capture_stdout);
  Subprocess(Subprocess&& other) noexcept;
  Subprocess& operator=(Subprocess&& other) noexcept;
  ~Subprocess();

  pid_t pid() const { return pid_; }

  // The next line of its output, without the newline. DeadlineExceeded, or Unavailable when the
  // child closed its output (it ended or crashed).
  absl::StatusOr<std::string> ReadLine(Duration timeout);

  void Signal(int signal);
  // True when it has ended: `exit_code()` is then its code, or 128 + the signal that killed it.
  bool Poll();
  bool WaitFor(Duration timeout);
  int exit_code() const { return exit_code_; }

 private:
  Subprocess(pid_t pid, int stdout_fd) : pid_(pid), stdout_fd_(stdout_fd) {}
  void Close();

  pid_t pid_ = -1;  // -1: none, or reaped
  int stdout_fd_ = -1;
  int exit_code_ = 0;
  std::string buffered_;
};

}  // namespace baton::cli
