#pragma once

// A worker that speaks the real link, and answers what the test tells it to.

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "worker_link/server.h"

namespace baton::router {

// Commands are queued for the test to take, or answered by `auto_answer`. Thread-safe.
class ScriptedWorker {
 public:
  // Called on the link's threads for every command when set.
  using AutoAnswer = std::function<std::vector<worker_link::Event>(const worker_link::Command&)>;

  ScriptedWorker(worker_link::Role role, const std::string& name,
                 const std::string& address = "127.0.0.1:0", AutoAnswer auto_answer = nullptr,
                 const std::string& fingerprint = "scripted-kv");
  ~ScriptedWorker() { Stop(); }

  // Dies: its streams are closed.
  void Stop();
  const std::string& address() const { return address_; }
  const std::string& name() const { return info_.name; }

  // The next command, of type T (a test failure when it is another, or none comes in 20 s).
  template <typename T>
  T Await() {
    std::optional<worker_link::Command> command = Next();
    if (command && std::holds_alternative<T>(*command)) return std::get<T>(*std::move(command));
    Complain(command.has_value());
    return {};
  }
  // Commands that nobody has taken.
  size_t queued() const;
  // Refuse every command from now on, as with a full queue.
  void RefuseCommands();

  void Send(std::vector<worker_link::Event> events);
  void SendTokens(const Attempt& attempt, int32_t first_position, const std::vector<TokenId>& ids);
  void SendFinished(const Attempt& attempt, int32_t output_tokens);
  void SendFailed(const Attempt& attempt, absl::Status status);
  void SetStatus(const worker_link::WorkerStatus& status) { server_->SetStatus(status); }
  static worker_link::WorkerStatus IdleStatus();

  // Its KV blocks are named as of this model; they are the first `blocks` of the prompt's.
  static constexpr char kChain[] = "scripted chain";
  void HoldBlocks(const std::vector<TokenId>& prompt, int32_t blocks);

 private:
  bool OnInput(worker_link::LinkInput input);
  std::optional<worker_link::Command> Next();
  void Complain(bool other_type) const;

  worker_link::WorkerInfo info_;
  BlockJournal journal_;
  const AutoAnswer auto_answer_;
  std::string address_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<worker_link::Command> commands_;
  worker_link::LinkId link_ = 0;
  bool refuse_ = false;
  std::shared_ptr<worker_link::LinkServer> server_;
};

}  // namespace baton::router
