#pragma once

// A dispatcher over scripted workers, for tests.

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "common/status_macros.h"
#include "router/dispatcher.h"
#include "tests/router/demo_tokenizer.h"
#include "tests/router/scripted_worker.h"

namespace baton::router {

inline bool Eventually(const std::function<bool()>& done) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!done()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

inline std::unique_ptr<Dispatcher> MakeDispatcher(DispatcherOptions options) {
  options.model_path = kDemoModel;
  options.model_name = "demo";
  auto dispatcher = Dispatcher::Create(options);
  BATON_CHECK(dispatcher.ok(), dispatcher.status().ToString());
  return *std::move(dispatcher);
}

// Waits until every worker of `options` is ready.
inline std::unique_ptr<Dispatcher> MakeReadyDispatcher(DispatcherOptions options) {
  auto dispatcher = MakeDispatcher(std::move(options));
  const bool ready = Eventually([&] {
    for (const WorkerView& worker : dispatcher->Fleet()) {
      if (worker.state != "ready") return false;
    }
    return true;
  });
  BATON_CHECK(ready, "the scripted workers must connect");
  return dispatcher;
}

inline DispatcherOptions Over(const std::vector<const ScriptedWorker*>& workers) {
  DispatcherOptions options;
  options.stall_timeout = std::chrono::hours(1);  // scripted workers only speak when told
  for (const ScriptedWorker* worker : workers) options.workers.push_back(worker->address());
  return options;
}

inline GenerateInput Text(const std::string& text) {
  GenerateInput input;
  input.prompt = text;
  return input;
}

}  // namespace baton::router
