#pragma once

// Gpu and GpuLane in this process's memory, for machines without a GPU. The bytes really move, on a
// thread of each lane's own, which reads what is sent only then, and the lane has NCCL's habits: a
// send waits for its receive for ever, and neither end notices that the other is gone.

#include <algorithm>
#include <array>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "common/clock.h"
#include "common/ids.h"
#include "common/status_macros.h"
#include "kv_transfer/gpu_lane.h"

namespace baton::kv_transfer {

// What all lanes of a test suffer.
struct MemoryFaults {
  std::atomic<bool> deaf = false;   // ends do not find each other
  std::atomic<bool> stuck = false;  // nothing moves
  std::atomic<bool> broken = false;
  std::atomic<bool> aborts_hang = false;  // until it is false again
  std::atomic<int> ends = 0;              // that live
};

// Both ends of a lane.
class MemoryLink {
 public:
  struct Piece {
    std::vector<std::span<const std::byte>> parts;  // of a send
    size_t bytes = 0;
  };
  struct End {
    bool here = false;
    std::deque<Piece> pieces;  // not moved yet
    uint64_t posted = 0, done = 0;
    std::vector<std::byte> staging;
    std::array<size_t, GpuLane::kSlots> bytes{};
  };

  explicit MemoryLink(const MemoryFaults& faults) : faults_(faults), thread_([this] { Run(); }) {}
  ~MemoryLink() {
    {
      const std::lock_guard lock(mutex);
      over_ = true;
    }
    changed.notify_all();
    thread_.join();
  }

  End& end(bool sends) { return ends_[sends ? 1 : 0]; }
  // Once they have met, neither sees the other go.
  bool Connected() {
    met_ = met_ || (ends_[0].here && ends_[1].here && !faults_.deaf);
    return met_;
  }

  std::mutex mutex;
  std::condition_variable changed;

 private:
  void Run() {
    std::unique_lock lock(mutex);
    while (!over_) {
      if (!MoveOne()) changed.wait_for(lock, std::chrono::milliseconds(1));
    }
  }
  bool MoveOne() {
    auto& [to, from] = ends_;
    if (!Connected() || !to.here || !from.here || faults_.stuck) return false;
    if (to.pieces.empty() || from.pieces.empty()) return false;
    const Piece& piece = from.pieces.front();
    // NCCL would hang, or write past the end.
    BATON_CHECK(piece.bytes == to.pieces.front().bytes, "both ends name the same bytes");
    const uint64_t slot = to.done % GpuLane::kSlots;
    auto at = to.staging.begin() + static_cast<int64_t>(slot * GpuLane::kSlotBytes);
    for (const auto& part : piece.parts) at = std::copy(part.begin(), part.end(), at);
    to.bytes[slot] = piece.bytes;
    for (End* const end : {&to, &from}) {
      end->pieces.pop_front();
      ++end->done;
    }
    return true;
  }

  const MemoryFaults& faults_;
  std::array<End, 2> ends_;  // receives, sends
  bool met_ = false;
  bool over_ = false;
  std::thread thread_;
};

class MemoryLane final : public GpuLane {
 public:
  MemoryLane(std::shared_ptr<MemoryLink> link, bool sends, MemoryFaults& faults)
      : link_(std::move(link)), sends_(sends), faults_(faults) {
    ++faults_.ends;
    const std::lock_guard lock(link_->mutex);
    link_->end(sends_).here = true;
    link_->end(sends_).staging.resize(sends_ ? 0 : kSlots * kSlotBytes);
  }
  ~MemoryLane() override {
    while (faults_.aborts_hang) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    const std::lock_guard lock(link_->mutex);
    link_->end(sends_).here = false;
    --faults_.ends;
  }
  void Send(std::vector<std::span<const std::byte>> parts) override {
    size_t bytes = 0;
    for (const auto& part : parts) bytes += part.size();
    Post({std::move(parts), bytes});
  }
  void Receive(size_t bytes) override { Post({{}, bytes}); }
  std::span<const std::byte> Received(uint64_t piece) const override {
    const std::lock_guard lock(link_->mutex);
    const MemoryLink::End& end = link_->end(sends_);
    return std::span(end.staging).subspan(piece % kSlots * kSlotBytes, end.bytes[piece % kSlots]);
  }
  absl::StatusOr<Progress> Poll() override {
    if (faults_.broken) return absl::UnavailableError("the test broke it");
    const std::lock_guard lock(link_->mutex);
    const MemoryLink::End& end = link_->end(sends_);
    if (!link_->Connected()) return Progress{.connected = false, .posted = 0, .done = end.done};
    return Progress{.connected = true, .posted = end.posted, .done = end.done};
  }

 private:
  void Post(MemoryLink::Piece piece) {
    BATON_CHECK(piece.bytes > 0 && piece.bytes <= kSlotBytes, "a piece has room in its slot");
    {
      const std::lock_guard lock(link_->mutex);
      MemoryLink::End& end = link_->end(sends_);
      end.pieces.push_back(std::move(piece));
      ++end.posted;
      BATON_CHECK(end.posted - end.done <= kSlots, "a piece has a slot of its own");
    }
    link_->changed.notify_all();
  }
  const std::shared_ptr<MemoryLink> link_;
  const bool sends_;
  MemoryFaults& faults_;
};

class MemoryGpu final : public Gpu {
 public:
  // GPUs with the same `number` are one.
  MemoryGpu(int32_t number, MemoryFaults& faults)
      : faults_(faults),
        address_{.machine = "this boot",
                 .bus_id = std::to_string(number),
                 .name = "memory",
                 .index = number,
                 .nccl_version = 22'809} {}
  const GpuAddress& address() const override { return address_; }
  absl::StatusOr<std::string> NewLaneId() override { return std::to_string(RandomU64()); }
  absl::StatusOr<std::unique_ptr<GpuLane>> OpenLane(const std::string& id, bool sends) override {
    static std::mutex mutex;
    static std::map<std::string, std::weak_ptr<MemoryLink>> links;
    const std::lock_guard lock(mutex);
    std::shared_ptr<MemoryLink> link = links[id].lock();
    if (link == nullptr) links[id] = link = std::make_shared<MemoryLink>(faults_);
    return std::make_unique<MemoryLane>(std::move(link), sends, faults_);
  }

 private:
  MemoryFaults& faults_;
  const GpuAddress address_;
};

}  // namespace baton::kv_transfer
