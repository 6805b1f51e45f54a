#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "discovery/registered_worker.h"

namespace baton::discovery {

inline bool Eventually(const std::function<bool()>& done) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (!done()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return true;
}

inline RegisteredWorker WorkerAt(int port, const std::string& name) {
  RegisteredWorker worker;
  worker.address = "127.0.0.1:" + std::to_string(port);
  worker.name = name;
  worker.role = "decode";
  worker.model = "demo";
  worker.incarnation = "1f";
  return worker;
}

// "d0 decode draining".
inline std::string Describe(const RegisteredWorker& worker) {
  return worker.name + " " + worker.role + (worker.draining ? " draining" : "");
}

inline std::vector<std::string> Names(std::vector<std::string> names) { return names; }

}  // namespace baton::discovery
