#pragma once

// What the tests of both kinds of worker share: a tiny model on disk, a router's end of the link
// that keeps book of every attempt, and a worker that runs on a thread.

#include <gtest/gtest.h>

#include <condition_variable>
#include <cstdio>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "common/status_macros.h"
#include "engine/model_config.h"
#include "tests/common/temp_dir.h"
#include "tests/engine/engine_testing.h"
#include "tests/engine/tiny_model.h"
#include "worker_common/options.h"
#include "worker_link/client.h"

namespace baton::worker_common {

inline constexpr Duration kGenerous = std::chrono::seconds(30);

// A model small enough for a test, with an engine of its own that knows every right answer.
class TinyModel {
 public:
  TinyModel() {
    std::FILE* file = std::fopen(path().c_str(), "wb");
    BATON_CHECK(file != nullptr, "the test directory is writable");
    const std::string bytes =
        engine::tiny::Writer(
            {.layers = 2, .embedding = 128, .heads = 2, .kv_heads = 1, .feed_forward = 256})
            .Bytes();
    BATON_CHECK(std::fwrite(bytes.data(), 1, bytes.size(), file) == bytes.size(), "disk has room");
    std::fclose(file);
    auto opened = GgufFile::Open(path());
    BATON_CHECK(opened.ok(), "the writer writes sound files");
    file_ = *opened;
    engine_ = engine::LoadEngine(*file_, {.threads = 1, .prefix_cache = false});
  }

  std::string path() const { return directory_.File("tiny.gguf"); }
  const GgufFile& file() const { return *file_; }
  engine::LocalEngine& engine() { return *engine_; }
  int32_t vocab() { return engine_->model().config().vocab; }
  std::vector<OutputToken> Answer(const std::vector<TokenId>& prompt,
                                  const SamplingParams& sampling) {
    return engine::Answer(*engine_, prompt, sampling, 256);
  }
  // Options of a worker with room for `blocks` KV blocks of 16 tokens.
  WorkerOptions Options(std::string name, int32_t blocks) {
    WorkerOptions options;
    options.name = std::move(name);
    options.model_path = path();
    options.threads = 1;
    options.kv_bytes = blocks * engine_->executor().pool().layout().block_bytes();
    options.chunk_tokens = 32;
    options.transport = kv_transfer::TransportKind::kInproc;
    return options;
  }

 private:
  test::TempDir directory_;
  std::shared_ptr<const GgufFile> file_;
  std::unique_ptr<engine::LocalEngine> engine_;
};

// A prefill or decode worker, running on a thread until the test ends or drains it.
template <typename Worker>
class RunningWorker {
 public:
  explicit RunningWorker(const WorkerOptions& options) {
    auto made = Worker::Create(options);
    BATON_CHECK(made.ok(), made.status().ToString());
    worker_ = *std::move(made);
    thread_ = std::thread([this] { worker_->Run(); });
  }
  ~RunningWorker() {
    worker_->Drain();
    Join();
  }
  void Join() {
    if (thread_.joinable()) thread_.join();
  }
  Worker* operator->() const { return worker_.get(); }

 private:
  std::unique_ptr<Worker> worker_;
  std::thread thread_;
};

struct Outcome {
  std::vector<OutputToken> tokens;
  std::optional<worker_link::FinishedEvent> finished;
  std::optional<worker_link::PrefillTimes> prefill;  // with the first token
  std::optional<worker_link::PrefilledEvent> prefilled;
  std::optional<absl::Status> failed;
  int endings = 0;
};

// A router with one worker. Every event is checked against the order that commands.h promises.
class TestRouter {
 public:
  explicit TestRouter(const std::string& address) {
    client_ = worker_link::LinkClient::Create(
        address, "test", [this](worker_link::ClientInput input) { Take(std::move(input)); });
    std::unique_lock lock(mutex_);
    const bool connected = changed_.wait_for(lock, kGenerous, [this] { return info_.has_value(); });
    BATON_CHECK(connected, "the worker answers");
  }

  // The attempt's first token has this position: those before it are in its prompt.
  void ExpectFrom(const Attempt& attempt, int32_t position) {
    const std::lock_guard lock(mutex_);
    first_positions_[attempt] = position;
  }
  void Send(worker_link::Command command) { EXPECT_TRUE(client_->Send(std::move(command))); }
  // Waits for the attempt's ending.
  Outcome Wait(const Attempt& attempt) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, kGenerous, [&] { return outcomes_[attempt].endings > 0; }))
        << ToString(attempt) << " does not end";
    return outcomes_[attempt];
  }
  // Waits until `count` tokens of the attempt are here.
  void WaitForTokens(const Attempt& attempt, size_t count) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, kGenerous,
                                  [&] { return outcomes_[attempt].tokens.size() >= count; }));
  }
  // Waits for a status of which `predicate` holds.
  template <typename Predicate>
  void WaitForStatus(const char* what, Predicate predicate) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, kGenerous, [&] { return predicate(status_); }))
        << what << ": running " << status_.running << ", waiting " << status_.waiting << ", held "
        << status_.blocks_held << ", transfers " << status_.transfers;
  }
  // Nothing runs, nothing is held, and no block is lost.
  void ExpectIdle() {
    WaitForStatus("idle", [](const worker_link::WorkerStatus& s) {
      return s.blocks_total > 0 && s.running == 0 && s.waiting == 0 && s.blocks_held == 0 &&
             s.transfers == 0 && s.blocks_free + s.blocks_cached == s.blocks_total;
    });
  }
  const worker_link::WorkerInfo& info() const { return *info_; }

 private:
  void Take(worker_link::ClientInput input) {
    const std::lock_guard lock(mutex_);
    if (auto* connected = std::get_if<worker_link::WorkerConnected>(&input)) {
      if (!info_) info_ = std::move(connected->info);
    } else if (auto* status = std::get_if<worker_link::WorkerStatus>(&input)) {
      EXPECT_EQ(status->blocks_free + status->blocks_held + status->blocks_cached,
                status->blocks_total);
      status_ = *status;
    } else if (auto* events = std::get_if<std::vector<worker_link::Event>>(&input)) {
      for (worker_link::Event& event : *events) TakeEvent(std::move(event));
    }
    changed_.notify_all();
  }
  void TakeEvent(worker_link::Event event) {
    const Attempt attempt = std::visit([](const auto& one) { return one.attempt; }, event);
    Outcome& outcome = outcomes_[attempt];
    EXPECT_EQ(outcome.endings, 0) << ToString(attempt) << ": something comes after its ending";
    if (auto* tokens = std::get_if<worker_link::TokensEvent>(&event)) {
      EXPECT_TRUE(!tokens->prefill || outcome.tokens.empty()) << ToString(attempt);
      if (tokens->prefill) outcome.prefill = tokens->prefill;
      for (OutputToken& token : tokens->tokens) {
        EXPECT_EQ(token.position,
                  first_positions_[attempt] + static_cast<int32_t>(outcome.tokens.size()));
        outcome.tokens.push_back(std::move(token));
      }
      return;
    }
    ++outcome.endings;
    if (auto* finished = std::get_if<worker_link::FinishedEvent>(&event)) {
      outcome.finished = *finished;
    } else if (auto* prefilled = std::get_if<worker_link::PrefilledEvent>(&event)) {
      outcome.prefilled = *prefilled;
    } else {
      outcome.failed = std::get<worker_link::FailedEvent>(event).status;
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<worker_link::WorkerInfo> info_;
  worker_link::WorkerStatus status_;
  std::map<Attempt, Outcome> outcomes_;
  std::map<Attempt, int32_t> first_positions_;
  std::unique_ptr<worker_link::LinkClient> client_;  // last: it calls Take until it is gone
};

inline Attempt AttemptOf(uint64_t number, uint32_t epoch = 0) {
  return {.request = {.high = 77, .low = number}, .epoch = epoch};
}

}  // namespace baton::worker_common
