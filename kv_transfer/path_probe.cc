#include "kv_transfer/path_probe.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "common/logging.h"

namespace baton::kv_transfer {
namespace {

constexpr size_t kPageBytes = 4'096;
constexpr size_t kSliceBytes = 1 << 20;  // read at a time
constexpr size_t kSlices = 8;
constexpr int32_t kMostRunsInFlight = 4 * kMaxProbeRuns;
// Until a path that seems slow is measured again.
constexpr std::array<Duration, 2> kAgainAfter = {std::chrono::milliseconds(100),
                                                 std::chrono::seconds(1)};
constexpr Duration kAnswerTimeout = std::chrono::seconds(2);
// An Ethernet of 10 Gbit/s, less its protocol. The loopback gives more, and RDMA.
constexpr double kWireGbS = 1.1;
// Half of what 16 lanes of PCIe 3.0 carry: blocks are copied to and from pinned memory on the way.
constexpr double kLaneGbS = 6;
constexpr double ExpectedGbS(DataWay way) { return way == DataWay::kLane ? kLaneGbS : kWireGbS; }
// Mapped memory takes no CPU at the source: pulling has to be faster for certain.
constexpr double kClearlyFaster = 1.25;

double GbS(size_t bytes, Duration time) {
  return static_cast<double>(bytes) * 1e-9 / std::max(Seconds(time), 1e-9);
}

double MeasureCopyGbS() {
  constexpr size_t kBytes = 16 << 20;
  const std::vector<std::byte> from(kBytes, std::byte{1});
  std::vector<std::byte> to(kBytes);
  double best = 0;
  for (int round = 0; round < 3; ++round) {
    const TimePoint start = SystemClock().Now();
    std::memcpy(to.data(), from.data(), kBytes);
    best = std::max(best, GbS(kBytes, SystemClock().Now() - start));
  }
  return best;
}

}  // namespace

double MachineCopyGbS() {
  static const double measured = MeasureCopyGbS();
  return measured;
}

PathProbes::PathProbes(Transport& transport, TransportKind kind, uint64_t own_incarnation,
                       int64_t block_bytes)
    : transport_(transport),
      kind_(kind),
      own_incarnation_(own_incarnation),
      block_bytes_(block_bytes),
      runs_(static_cast<int32_t>(
          std::clamp<int64_t>(kMaxProbeBytes / block_bytes, 2, kMaxProbeRuns))),
      run_bytes_(std::min<int64_t>(block_bytes, kMaxProbeBytes / runs_)) {
  if (kind != TransportKind::kUcx && kind != TransportKind::kNccl) MachineCopyGbS();
}

void PathProbes::Start(const Peer& peer, TimePoint now) {
  const auto [entry, fresh] = paths_.try_emplace(peer.id);
  if (!fresh) return;
  Path& path = entry->second;
  path.peer = peer.id;
  path.incarnation = peer.address.incarnation;
  path.name = peer.address.name;
  path.mapped = peer.slab != nullptr;
  if (kind_ == TransportKind::kInproc) {
    // Nothing lies between the two: the machine's own speed is theirs.
    path.mapped_gb_s = MachineCopyGbS();
    FinishIfDone(path);
    return;
  }
  path.slab = peer.slab;
  if (kind_ != TransportKind::kShm && kind_ != TransportKind::kNccl) Ask(path, path.wire, 1, now);
  path.active = true;
  active_.push_back(peer.id);
}

void PathProbes::MeasureLane(PeerId peer, TimePoint now) {
  const auto found = paths_.find(peer);
  if (found == paths_.end()) return;
  Path& path = found->second;
  path.lane = {.way = DataWay::kLane};
  Ask(path, path.lane, 1, now);
  if (!std::exchange(path.active, true)) active_.push_back(peer);
}

void PathProbes::ForgetLane(PeerId peer) {
  const auto found = paths_.find(peer);
  if (found == paths_.end()) return;
  found->second.lane = {.way = DataWay::kLane};
  if (!found->second.active) FinishIfDone(found->second);
}

void PathProbes::Ask(const Path& path, Pull& pull, int32_t runs, TimePoint now) {
  if (pull.serial == 0) pull.serial = next_serial_++;
  pull.runs_missing = runs;
  pull.asked_at = now;
  transport_.Send(path.peer,
                  Encode({.sender = own_incarnation_,
                          .receiver = path.incarnation,
                          .attempt = {.request = {.high = 0, .low = pull.serial}},
                          .body = ProbeMessage{runs, static_cast<int32_t>(run_bytes_), pull.way}}));
}

bool PathProbes::Step(TimePoint now) {
  if (active_.empty()) return false;
  const PeerId peer = active_.front();
  active_.pop_front();
  const auto found = paths_.find(peer);
  if (found == paths_.end()) return true;
  Path& path = found->second;
  const bool read = path.slab != nullptr;
  if (read) ReadSlice(path);
  for (Pull* const pull : path.pulls()) StepPull(path, *pull, now);
  path.active = path.running();
  if (path.active) active_.push_back(peer);
  FinishIfDone(path);
  return read;
}

void PathProbes::StepPull(Path& path, Pull& pull, TimePoint now) {
  if (pull.runs_missing > 0 && now - pull.asked_at > kAnswerTimeout) {
    LogWarning(fmt::format("'{}' did not answer the measurement of {} within {:.0f} s", path.name,
                           transport_.pulled_name(pull.way), Seconds(kAnswerTimeout)));
    pull.runs_missing = 0;
  }
  if (pull.ask_again_at && now >= *pull.ask_again_at) {
    pull.ask_again_at.reset();
    Ask(path, pull, runs_, now);
  }
}

// A slice is of blocks that lie far apart. Its pages are touched first: page faults come once in
// the life of a mapping, and are not what is to be measured.
void PathProbes::ReadSlice(Path& path) {
  const std::span<const std::byte> slab = path.slab->bytes();
  const size_t piece = std::min<size_t>(static_cast<size_t>(block_bytes_), kSliceBytes);
  const size_t pieces = std::min(kSliceBytes / piece, slab.size() / piece);
  if (pieces == 0) {
    path.slab = nullptr;
    return;
  }
  scratch_.resize(kSliceBytes);
  const size_t places = slab.size() / piece;
  const size_t slice = path.slices_gb_s.size();
  const auto piece_at = [&](size_t i) {
    const size_t place = (i * kSlices + slice) * places / (pieces * kSlices);
    return slab.subspan(place * piece, piece);
  };
  for (size_t i = 0; i < pieces; ++i) {
    for (size_t at = 0; at < piece; at += kPageBytes) {
      scratch_[0] = *static_cast<const volatile std::byte*>(&piece_at(i)[at]);
    }
  }
  const TimePoint start = SystemClock().Now();
  for (size_t i = 0; i < pieces; ++i) {
    copier_.Copy(std::span(scratch_).subspan(i * piece, piece), piece_at(i));
  }
  path.slices_gb_s.push_back(GbS(pieces * piece, SystemClock().Now() - start));
  if (path.slices_gb_s.size() < kSlices) return;
  std::ranges::nth_element(path.slices_gb_s, path.slices_gb_s.begin() + kSlices / 2);
  path.mapped_gb_s = path.slices_gb_s[kSlices / 2];
  path.slab = nullptr;
}

bool PathProbes::Wants(const DataHeader& header, size_t payload_bytes) const {
  if (header.attempt.request.high != 0 || header.attempt.epoch != 0) return false;
  const auto waits = [&](const Pull& pull) {
    return pull.serial == header.attempt.request.low && pull.runs_missing > 0;
  };
  return payload_bytes == static_cast<size_t>(run_bytes_) &&
         std::ranges::any_of(paths_, [&](const auto& entry) {
           const Path& path = entry.second;
           return path.incarnation == header.sender && (waits(path.wire) || waits(path.lane));
         });
}

bool PathProbes::Take(const DataHeader& header, size_t payload_bytes, TimePoint now) {
  if (!Wants(header, payload_bytes)) return false;
  for (auto& [peer, path] : paths_) {
    if (path.incarnation != header.sender) continue;
    Pull& pull = path.wire.serial == header.attempt.request.low ? path.wire : path.lane;
    if (--pull.runs_missing > 0) continue;
    if (!std::exchange(pull.warm, true)) {
      Ask(path, pull, runs_, now);
    } else {
      TakePulled(pull, GbS(static_cast<size_t>(runs_ * run_bytes_), now - pull.asked_at), now);
    }
  }
  return true;
}

void PathProbes::TakePulled(Pull& pull, double gb_s, TimePoint now) {
  pull.gb_s = std::max(gb_s, pull.gb_s.value_or(0));
  const size_t round = static_cast<size_t>(pull.rounds++);
  if (*pull.gb_s < kLoudShare * ExpectedGbS(pull.way) && round < kAgainAfter.size()) {
    pull.ask_again_at = now + kAgainAfter[round];
  }
}

void PathProbes::FinishIfDone(Path& path) {
  if (path.running()) return;
  if (active_.empty()) scratch_ = {};
  std::vector<MeasuredPath> ways;
  const auto add = [&](const std::optional<double>& gb_s, const std::string& transport,
                       double expected) {
    if (gb_s) ways.push_back({path.name, transport, *gb_s, expected});
  };
  add(path.mapped_gb_s, transport_.mapped_name(), MachineCopyGbS());
  const std::optional<DataWay> faster = FasterPull(path.peer);
  for (const Pull* const pull : path.pulls()) {
    add(pull->gb_s, transport_.pulled_name(pull->way), ExpectedGbS(pull->way));
    if (faster == pull->way) std::rotate(ways.begin(), ways.end() - 1, ways.end());
  }
  if (!ways.empty()) {
    ways.front().in_use = true;
    Log(ways);
  }
  const std::lock_guard lock(mutex_);
  if (ways.empty()) {
    measured_.erase(path.peer);
  } else {
    measured_[path.peer] = std::move(ways);
  }
}

void PathProbes::Log(const std::vector<MeasuredPath>& ways) {
  const MeasuredPath& path = ways.front();
  std::string others;
  for (const MeasuredPath& way : std::span(ways).subspan(1)) {
    others += fmt::format(", by {} {:.2f}", way.transport, way.gb_per_s);
  }
  LogInfo(fmt::format("KV from '{}' by {}: {:.2f} GB/s measured{}", path.peer_name, path.transport,
                      path.gb_per_s, others));
  if (path.gb_per_s < kLoudShare * path.expected_gb_per_s) {
    LogWarning(fmt::format(
        "THE PATH FROM '{}' IS SLOW: {} gives {:.3f} GB/s, under {:.0f}% of the {:.1f} GB/s that "
        "it should; every handoff on it will be late",
        path.peer_name, path.transport, path.gb_per_s, kLoudShare * 100, path.expected_gb_per_s));
  }
}

std::optional<DataWay> PathProbes::FasterPull(PeerId peer) const {
  const auto found = paths_.find(peer);
  if (found == paths_.end()) return std::nullopt;
  const Path& path = found->second;
  const Pull& best = path.lane.gb_s > path.wire.gb_s ? path.lane : path.wire;
  if (!best.gb_s || (path.mapped && !path.mapped_gb_s)) return std::nullopt;
  if (path.mapped && *best.gb_s <= kClearlyFaster * *path.mapped_gb_s) return std::nullopt;
  return best.way;
}

void PathProbes::Remove(PeerId peer) {
  paths_.erase(peer);
  const std::lock_guard lock(mutex_);
  measured_.erase(peer);
}

void PathProbes::Answer(const Peer& peer, const Attempt& probe, const ProbeMessage& asked) {
  if (sends_in_flight_ + asked.runs > kMostRunsInFlight) return;
  if (sent_scratch_.empty()) sent_scratch_.resize(kMaxProbeBytes);
  for (int32_t i = 0; i < asked.runs; ++i) {
    ++sends_in_flight_;
    transport_.SendData(peer.id, asked.way,
                        EncodeDataHeader({.sender = own_incarnation_,
                                          .receiver = peer.address.incarnation,
                                          .attempt = probe,
                                          .run = {i, 1}}),
                        std::span<const std::byte>(sent_scratch_)
                            .subspan(static_cast<size_t>(i) * static_cast<size_t>(asked.run_bytes),
                                     static_cast<size_t>(asked.run_bytes)),
                        kSendTag);
  }
}

std::vector<MeasuredPath> PathProbes::Measured() const {
  const std::lock_guard lock(mutex_);
  std::vector<MeasuredPath> paths;
  for (const auto& [peer, ways] : measured_) paths.insert(paths.end(), ways.begin(), ways.end());
  return paths;
}

}  // namespace baton::kv_transfer
