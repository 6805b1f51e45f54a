#pragma once

// One handoff between the two state machines, over a simulated network and with simulated workers,
// clocks and memory: a schedule, which its seed determines entirely.

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "kv_transfer/source_machine.h"
#include "kv_transfer/target_machine.h"

namespace baton::kv_transfer {

// How bad it gets. Chances are in percent.
struct Adversity {
  int loss = 0, duplication = 0, damage = 0;              // of messages and data
  Duration longest_delay = std::chrono::milliseconds(5);  // each message its own: they overtake
  int source_cancels = 0, target_cancels = 0;
  int refuses = 0, never_answers = 0;
  int peer_lost = 0;  // each side notices at its own time
};

class HandoffSimulation {
 public:
  HandoffSimulation(uint64_t seed, const Adversity& adversity);

  // Runs to the end. Empty when every law was kept; else what went wrong.
  std::string Run();

  // What the schedule came to, after Run.
  bool target_ok() const { return target_finish_.has_value() && target_finish_->ok(); }
  bool source_ok() const { return source_finish_.has_value() && source_finish_->ok(); }

 private:
  static constexpr int32_t kSlabBlocks = 32;

  int Dice() { return static_cast<int>(random_() % 100); }
  Duration Delay(Duration longest) {
    return Duration(static_cast<int64_t>(random_() % static_cast<uint64_t>(longest.count() + 1)));
  }
  void At(TimePoint when, std::function<void()> what) { agenda_.emplace(when, std::move(what)); }
  void Violated(const std::string& law) {
    if (violation_.empty()) violation_ = law;
  }
  std::vector<int32_t> SomeBlocks(int32_t count);
  uint64_t Content(int32_t index) const { return seed_ * 1'000 + static_cast<uint64_t>(index) + 1; }

  void PlanWorkers();
  void PumpSource();
  void PumpTarget();
  void Carry(bool to_target, MessageBody body);
  void ToTarget(const MessageBody& body);
  void ToSource(const MessageBody& body);
  void SendData(const SendRun& send);
  void CopyTurn();
  void Land(const Landing& landing, const std::vector<uint64_t>& values);
  void Tick();
  void CheckEnd();

  const uint64_t seed_;
  const Adversity adversity_;
  std::mt19937_64 random_;
  std::multimap<TimePoint, std::function<void()>> agenda_;
  TimePoint now_;
  std::string violation_;

  // The offer.
  int32_t block_count_ = 0, first_wanted_ = 0;
  bool pulled_ = false;
  std::vector<int32_t> source_blocks_, target_blocks_;
  std::vector<uint64_t> source_slab_, target_slab_;  // one value stands for a block's bytes

  std::optional<SourceMachine> source_;
  std::optional<TargetMachine> target_;
  bool offer_fenced_ = false;  // a cancel came before the offer
  bool granted_ = false;
  int sends_outstanding_ = 0;  // reading the source's blocks
  std::optional<absl::Status> source_finish_, target_finish_;
};

}  // namespace baton::kv_transfer
