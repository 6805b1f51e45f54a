#include "tests/router/scripted_worker.h"

#include <gtest/gtest.h>

#include <utility>

#include "common/status_macros.h"
#include "tests/router/demo_tokenizer.h"

namespace baton::router {

using worker_link::Command;
using worker_link::Event;
using worker_link::FailedEvent;
using worker_link::FinishedEvent;
using worker_link::LinkCommand;
using worker_link::LinkInput;
using worker_link::LinkOpened;
using worker_link::LinkServer;
using worker_link::TokensEvent;
using worker_link::WorkerStatus;

ScriptedWorker::ScriptedWorker(worker_link::Role role, const std::string& name,
                               const std::string& address, AutoAnswer auto_answer,
                               const std::string& fingerprint)
    : auto_answer_(std::move(auto_answer)) {
  info_.name = name;
  info_.role = role;
  info_.model = "scripted";
  info_.fingerprint = fingerprint;
  info_.vocab_size = DemoTokenizer().vocab_size();
  info_.context_tokens = 1024;
  info_.block_tokens = 16;
  info_.handoff_address = "handoff:" + name;
  info_.incarnation = RandomU64();
  info_.cache_chain = kChain;
  auto server = LinkServer::Create(
      address, info_, [this](LinkInput input) { return OnInput(std::move(input)); }, {}, &journal_);
  BATON_CHECK(server.ok(), server.status().ToString());
  const std::lock_guard lock(mutex_);
  server_ = *std::move(server);
  address_ = server_->address();
  server_->SetStatus(IdleStatus());
}

WorkerStatus ScriptedWorker::IdleStatus() {
  WorkerStatus status;
  status.blocks_free = status.blocks_total = 64;
  return status;
}

void ScriptedWorker::HoldBlocks(const std::vector<TokenId>& prompt, int32_t blocks) {
  const auto chain = ChainFullBlocks(ChainRoot(kChain, ""), prompt, info_.block_tokens);
  for (int32_t i = 0; i < blocks; ++i) {
    journal_.Enter(CacheTier::kMemory, chain[static_cast<size_t>(i)], i + 1);
  }
  server_->TellBlocks();
}

void ScriptedWorker::Stop() {
  std::shared_ptr<LinkServer> server;
  {
    const std::lock_guard lock(mutex_);
    server = std::exchange(server_, nullptr);
  }
  server.reset();  // without the lock: it waits for calls of OnInput
}

bool ScriptedWorker::OnInput(LinkInput input) {
  if (const auto* opened = std::get_if<LinkOpened>(&input)) {
    const std::lock_guard lock(mutex_);
    link_ = opened->link;
  }
  auto* command = std::get_if<LinkCommand>(&input);
  if (command == nullptr) return true;
  if (auto_answer_ != nullptr) {
    Send(auto_answer_(command->command));
    return true;
  }
  const std::lock_guard lock(mutex_);
  if (refuse_) return false;
  commands_.push_back(std::move(command->command));
  changed_.notify_all();
  return true;
}

std::optional<Command> ScriptedWorker::Next() {
  std::unique_lock lock(mutex_);
  if (!changed_.wait_for(lock, std::chrono::seconds(20), [this] { return !commands_.empty(); })) {
    return std::nullopt;
  }
  Command command = std::move(commands_.front());
  commands_.pop_front();
  return command;
}

void ScriptedWorker::Complain(bool other_type) const {
  ADD_FAILURE() << info_.name << (other_type ? " got another command" : " got no command");
}

size_t ScriptedWorker::queued() const {
  const std::lock_guard lock(mutex_);
  return commands_.size();
}

void ScriptedWorker::RefuseCommands() {
  const std::lock_guard lock(mutex_);
  refuse_ = true;
}

void ScriptedWorker::Send(std::vector<Event> events) {
  if (events.empty()) return;
  const std::lock_guard lock(mutex_);
  if (server_ != nullptr) server_->Send(link_, std::move(events));
}

void ScriptedWorker::SendTokens(const Attempt& attempt, int32_t first_position,
                                const std::vector<TokenId>& ids) {
  TokensEvent event{attempt, {}};
  for (const TokenId id : ids) event.tokens.push_back({id, first_position++, 0, {}});
  Send({std::move(event)});
}

void ScriptedWorker::SendFinished(const Attempt& attempt, int32_t output_tokens) {
  FinishedEvent event;
  event.attempt = attempt;
  event.reason = FinishReason::kLength;
  event.output_tokens = output_tokens;
  Send({std::move(event)});
}

void ScriptedWorker::SendFailed(const Attempt& attempt, absl::Status status) {
  Send({FailedEvent{attempt, std::move(status)}});
}

}  // namespace baton::router
