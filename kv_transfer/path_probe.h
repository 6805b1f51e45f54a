#pragma once

// Measures how fast blocks come from a peer, once, when it makes its first offer: by reading some
// of its mapped slab, by asking for some data, or both where either could be used; and by its lane,
// where there is one, when that has opened.
//
// - Nothing of it touches a pool: what is read goes into scratch memory and is not looked at, and
//   what is sent comes from scratch memory, too, so that asking reveals nobody's KV.
// - A step takes a fraction of a millisecond, and a peer costs a few MiB in all. Transfers go on
//   meanwhile; they slow each other down a little, which is why only a path under a fifth of what
//   its kind gives is complained about.
// - Asked data is timed from the request to the last byte, after one round that opens the
//   connection. A path that seems slow is measured twice more, later, before it is called so: the
//   machine may have been busy with something else.
//
// Used by the service's thread, but for Measured.

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "common/clock.h"
#include "kv_transfer/block_copy.h"
#include "kv_transfer/handoff.h"
#include "kv_transfer/messages.h"
#include "kv_transfer/peer_table.h"
#include "kv_transfer/transport.h"

namespace baton::kv_transfer {

// What one core of this machine copies, in GB/s, between buffers of 16 MiB; measured at the first
// call, which takes some 10 ms.
double MachineCopyGbS();

class PathProbes {
 public:
  // Of what was sent for a probe; the tags of transfers' data differ.
  static constexpr uint64_t kSendTag = 0;
  static constexpr double kLoudShare = 0.2;

  PathProbes(Transport& transport, TransportKind kind, uint64_t own_incarnation,
             int64_t block_bytes);

  // Target. Starts to measure the ways that there are from the peer, unless it was done.
  void Start(const Peer& peer, TimePoint now);
  // Its lane is open, or is not any more.
  void MeasureLane(PeerId peer, TimePoint now);
  void ForgetLane(PeerId peer);
  // A bounded bit of reading, and deadlines. True when there was something to read.
  bool Step(TimePoint now);
  // Whether this is data that a probe has asked for.
  bool Wants(const DataHeader& header, size_t payload_bytes) const;
  // Takes such data. False when it is not a probe's.
  bool Take(const DataHeader& header, size_t payload_bytes, TimePoint now);
  // The faster way to pull, where that was measured to be clearly faster than reading the peer's
  // mapped slab, or nothing is mapped; empty where it was not.
  std::optional<DataWay> FasterPull(PeerId peer) const;
  void Remove(PeerId peer);  // it is down

  // Source. Sends what a target asks for, unless it has much under way for others.
  void Answer(const Peer& peer, const Attempt& probe, const ProbeMessage& asked);
  void OnSent() { --sends_in_flight_; }

  // As HandoffService::paths. From any thread.
  std::vector<MeasuredPath> Measured() const;

 private:
  struct Pull {
    DataWay way = DataWay::kWire;
    uint64_t serial = 0;  // of its probe; 0: never asked
    bool warm = false;    // the connection is open
    int32_t runs_missing = 0;
    int rounds = 0;  // of data, measured
    TimePoint asked_at;
    std::optional<TimePoint> ask_again_at;
    std::optional<double> gb_s;

    bool running() const { return runs_missing > 0 || ask_again_at.has_value(); }
  };
  struct Path {
    PeerId peer = 0;
    uint64_t incarnation = 0;
    std::string name;
    bool active = false;  // in active_
    bool mapped = false;
    std::shared_ptr<const PeerSlab> slab;  // null: nothing to read, or done
    std::vector<double> slices_gb_s;       // as read
    std::optional<double> mapped_gb_s;
    Pull wire{.way = DataWay::kWire}, lane{.way = DataWay::kLane};

    std::array<Pull*, 2> pulls() { return {&wire, &lane}; }
    bool running() const { return slab != nullptr || wire.running() || lane.running(); }
  };

  void ReadSlice(Path& path);
  void StepPull(Path& path, Pull& pull, TimePoint now);
  void Ask(const Path& path, Pull& pull, int32_t runs, TimePoint now);
  static void TakePulled(Pull& pull, double gb_s, TimePoint now);
  void FinishIfDone(Path& path);
  static void Log(const std::vector<MeasuredPath>& ways);

  Transport& transport_;
  const TransportKind kind_;
  const uint64_t own_incarnation_;
  const int64_t block_bytes_;
  const int32_t runs_;       // of data, for one measurement
  const int64_t run_bytes_;  // of each

  absl::flat_hash_map<PeerId, Path> paths_;
  std::deque<PeerId> active_;
  uint64_t next_serial_ = 1;
  BlockCopier copier_;
  std::vector<std::byte> scratch_;       // what was read; empty while nothing is
  std::vector<std::byte> sent_scratch_;  // what is sent; empty until somebody asks
  int32_t sends_in_flight_ = 0;

  mutable std::mutex mutex_;
  absl::flat_hash_map<PeerId, std::vector<MeasuredPath>> measured_;
};

}  // namespace baton::kv_transfer
