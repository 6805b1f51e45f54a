#pragma once

// What `baton drain` and `baton role` share: they tell a router's admin API, and watch.

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "cli/admin_client.h"

namespace CLI {
class App;
}

namespace baton::cli {

struct ChangeFlags {
  std::string worker;
  AdminClientFlags admin;
  double grace_s = 30;
  double timeout_s = 600;
  bool force = false;
  bool no_wait = false;
  bool json = false;
};

void AddChangeFlags(CLI::App* app, ChangeFlags* flags);

struct WorkerNow {
  std::string role, state;
  int64_t running = 0, waiting = 0, transfers = 0;
};

// POSTs `body` to the worker's `verb`, then asks for the worker until `done` says so, and prints
// what changes to stderr and the result to stdout. DeadlineExceeded with how far it has come.
absl::Status ChangeWorker(const ChangeFlags& flags, const std::string& verb,
                          const std::string& body,
                          const std::function<bool(const WorkerNow&)>& done,
                          const std::string& result);

}  // namespace baton::cli
