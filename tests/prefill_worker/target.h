#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <utility>
#include <variant>
#include <vector>

#include "common/status_macros.h"
#include "kv_transfer/handoff.h"
#include "tests/worker_common/worker_testing.h"
#include "worker_common/host.h"

namespace baton::prefill_worker {

// A decode worker's end of the handoff: the test says what it answers.
class Target {
 public:
  static constexpr int32_t kBlocks = 32;
  static constexpr int32_t kBlockTokens = 16;

  // Without checksums none of its blocks is what it announces.
  explicit Target(worker_common::TinyModel& model, bool checksums = true) {
    kv_transfer::HandoffOptions options;
    options.transport = kv_transfer::TransportKind::kInproc;
    options.layout = model.engine().executor().pool().layout();
    options.model_fingerprint = *worker_common::ArithmeticFingerprint(
        model.engine().model().config(), kernels::CpuIsa::kAuto);
    options.block_count = kBlocks;
    options.checksums = checksums;
    auto service = kv_transfer::HandoffService::Create(options, "target",
                                                       [this](kv_transfer::HandoffEvent event) {
                                                         const std::lock_guard lock(mutex_);
                                                         events_.push_back(std::move(event));
                                                         changed_.notify_all();
                                                       });
    BATON_CHECK(service.ok(), service.status().ToString());
    service_ = *std::move(service);
  }

  kv_transfer::HandoffService& service() { return *service_; }
  template <typename Event>
  Event Next() {
    std::unique_lock lock(mutex_);
    const bool came =
        changed_.wait_for(lock, worker_common::kGenerous, [this] { return !events_.empty(); });
    BATON_CHECK(came && std::holds_alternative<Event>(events_.front()), "the event comes next");
    Event event = std::get<Event>(std::move(events_.front()));
    events_.erase(events_.begin());
    return event;
  }
  // Grants all blocks of the offer, 0, 1, 2, ...
  void GrantAll(const kv_transfer::OfferInfo& offer, int32_t first = 0) {
    std::vector<int32_t> blocks;
    for (int32_t i = first; i * kBlockTokens < offer.tokens; ++i) blocks.push_back(i);
    service_->Grant(offer.attempt, first, blocks);
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<kv_transfer::HandoffEvent> events_;
  std::unique_ptr<kv_transfer::HandoffService> service_;  // last: its thread uses what is above
};

// Eight greedy tokens, of which the first is computed here, with the KV for `target`.
inline worker_link::PrefillCommand CommandFor(const Attempt& attempt, std::vector<TokenId> prompt,
                                              Target& target) {
  worker_link::PrefillCommand command;
  command.attempt = attempt;
  command.prompt = std::move(prompt);
  command.sampling = engine::GreedyTokens(8);
  command.target_address = target.service().address();
  command.target_name = "target";
  command.timeout = std::chrono::seconds(60);
  return command;
}

}  // namespace baton::prefill_worker
