#pragma once

// A worker process of a simulation: a real HandoffLoop over a simulated transport, a slab whose
// blocks many requests share, and a worker that computes, grants, cancels and reuses blocks at
// once. It keeps the law: what it sees the loop do wrong goes to `Violated`.

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "kv_transfer/handoff_loop.h"
#include "tests/kv_transfer/agenda.h"
#include "tests/kv_transfer/simulated_network.h"

namespace baton::kv_transfer {

inline constexpr Duration kSimulatedLease = std::chrono::milliseconds(100);

// One attempt, with what both workers know of it.
struct Handoff {
  Attempt attempt;
  uint64_t source = 0, target = 0;  // incarnations
  std::vector<int32_t> source_blocks;
  std::vector<uint64_t> stamps;  // what each block holds once it is computed
  int32_t blocks_ready = 0;
  int32_t blocks_begun = 0;  // of these, the lower layer is complete
  bool committed = false;
  bool cancelled = false;  // by either worker
  int32_t first_wanted = 0;
  std::vector<int32_t> target_blocks;
  bool arrived = false, refused = false, granted = false;
  std::optional<absl::Status> source_end, target_end;
  bool source_lost = false, target_lost = false;  // with its process

  int32_t block_count() const { return static_cast<int32_t>(source_blocks.size()); }
  bool SourceOver() const { return source_end.has_value() || source_lost; }
  bool TargetOver() const { return !granted || target_end.has_value() || target_lost; }
  bool Over() const { return SourceOver() && TargetOver(); }
};

// What one schedule's parts share.
struct Stage {
  Stage(uint64_t seed, const Adversity& adverse, bool pull, bool traced)
      : agenda(seed, traced), adversity(adverse), pulled(pull), network(agenda, adversity) {}
  void Violated(std::string law) {
    if (violation.empty()) violation = std::move(law);
  }

  Agenda agenda;
  Adversity adversity;
  const bool pulled;  // blocks go as messages; else the source's slab is mapped
  SimulatedNetwork network;
  std::deque<Handoff> handoffs;
  std::function<void(Handoff&)> on_source_end;  // the router hears of it
  std::string violation;
};

class SimulatedWorker {
 public:
  static constexpr int32_t kSlabBlocks = 12;
  static constexpr int32_t kLayers = 2;  // each a slice

  SimulatedWorker(Stage& stage, int host) : stage_(stage), host_(host) { Start(); }

  // A new process, with nothing in its memory, where none runs.
  void Start();
  void Crash();
  // As the service ends: every transfer has its outcome before the process is gone.
  void Shutdown();
  bool running() const { return loop_ != nullptr && !ending_; }
  uint64_t incarnation() const { return own_.incarnation; }
  const PeerAddress& address() const { return own_; }

  // The source's side. The handoff stays where it is. False when there are too few free blocks.
  bool Offer(Handoff& handoff, int32_t block_count, const PeerAddress& target);
  void CancelSource(Handoff& handoff);
  void CancelTarget(Handoff& handoff);

  // After the last transfer: every block is back and holds what was last written into it.
  void CheckIdle();

 private:
  // Who may write into a block.
  enum class Owner : uint8_t { kNobody, kWorker, kLoop };
  struct Block {
    Owner owner = Owner::kNobody;
    std::array<uint64_t, kLayers> stamps{};  // what it holds, unless the loop writes
  };

  // Complete blocks of an earlier prompt, kept as a prefix for another.
  struct CachedPrefix {
    std::vector<int32_t> blocks;
    std::vector<uint64_t> stamps;
  };

  Duration Work(Duration longest) { return stage_.agenda.Delay(longest); }
  void Later(Duration delay, Handoff& handoff, void (SimulatedWorker::*what)(Handoff&));
  void Step();
  void StepLater(Duration delay);
  void Gone();
  void TakeEvent(HandoffEvent event);  // inside the loop, which may not be called then
  void HandleEvents();
  void OnOffer(const OfferInfo& offer);
  void OnTargetDone(const TargetDone& done);
  void OnSourceDone(const SourceDone& done);
  // Blocks with a cached prefix, if there is one and luck has it. False when there are too few.
  bool TakeSourceBlocks(Handoff& handoff, int32_t block_count);
  void KeepOrFreeSourceBlocks(const Handoff& handoff);
  void DropCachedPrefix();
  void Compute(Handoff& handoff);
  void ComputeLowerLayer(Handoff& handoff, int32_t upto);
  void Answer(Handoff& handoff);
  void EndDecode(Handoff& handoff);

  Handoff* Find(const Attempt& attempt);
  Block& At(int32_t block) { return blocks_[static_cast<size_t>(block)]; }
  std::span<std::byte> Bytes(int32_t block) const;
  bool LayerHolds(int32_t block, int32_t layer, uint64_t stamp) const;
  bool Holds(int32_t block, uint64_t stamp) const;
  void WriteLayer(int32_t block, int32_t layer, uint64_t stamp);
  void Write(int32_t block, uint64_t stamp);
  // Empty when there are too few.
  std::vector<int32_t> Allocate(int32_t count, Owner owner);
  void Free(const std::vector<int32_t>& blocks);
  void CheckMemory();
  void CheckLanded(const Handoff& handoff, const char* when);

  Stage& stage_;
  const int host_;
  PeerAddress own_;
  std::unique_ptr<SimulatedTransport> transport_;
  std::unique_ptr<HandoffLoop> loop_;
  std::vector<HandoffEvent> events_;
  std::array<Block, kSlabBlocks> blocks_;
  CachedPrefix cached_;
  bool ending_ = false;
  bool step_planned_ = false;
};

}  // namespace baton::kv_transfer
