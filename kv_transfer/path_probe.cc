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
constexpr double kPulledGbS = 1.1;
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
  if (kind != TransportKind::kUcx) MachineCopyGbS();
}

void PathProbes::Start(const Peer& peer, TimePoint now) {
  const auto [entry, fresh] = paths_.try_emplace(peer.id);
  if (!fresh) return;
  Path& path = entry->second;
  path.peer = peer.id;
  path.incarnation = peer.address.incarnation;
  path.name = peer.address.name;
  path.serial = next_serial_++;
  if (kind_ == TransportKind::kInproc) {
    // Nothing lies between the two: the machine's own speed is theirs.
    path.mapped_gb_s = MachineCopyGbS();
    FinishIfDone(path);
    return;
  }
  path.slab = peer.slab;
  path.asked_at = now;
  if (kind_ != TransportKind::kShm) Ask(path, 1, now);
  active_.push_back(peer.id);
}

void PathProbes::Ask(Path& path, int32_t runs, TimePoint now) {
  path.runs_missing = runs;
  path.asked_at = now;
  transport_.Send(path.peer,
                  Encode({.sender = own_incarnation_,
                          .receiver = path.incarnation,
                          .attempt = {.request = {.high = 0, .low = path.serial}},
                          .body = ProbeMessage{runs, static_cast<int32_t>(run_bytes_)}}));
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
  if (path.runs_missing > 0 && now - path.asked_at > kAnswerTimeout) {
    LogWarning(fmt::format("'{}' did not answer the measurement of {} within {:.0f} s", path.name,
                           transport_.pulled_name(), Seconds(kAnswerTimeout)));
    path.runs_missing = 0;
  }
  if (path.ask_again_at && now >= *path.ask_again_at) {
    path.ask_again_at.reset();
    Ask(path, runs_, now);
  }
  if (path.slab != nullptr || path.runs_missing > 0 || path.ask_again_at) active_.push_back(peer);
  FinishIfDone(path);
  return read;
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
  return std::ranges::any_of(paths_, [&](const auto& entry) {
    const Path& path = entry.second;
    return path.incarnation == header.sender && path.serial == header.attempt.request.low &&
           path.runs_missing > 0 && payload_bytes == static_cast<size_t>(run_bytes_);
  });
}

bool PathProbes::Take(const DataHeader& header, size_t payload_bytes, TimePoint now) {
  if (!Wants(header, payload_bytes)) return false;
  for (auto& [peer, path] : paths_) {
    if (path.incarnation != header.sender || --path.runs_missing > 0) continue;
    if (!std::exchange(path.warm, true)) {
      Ask(path, runs_, now);
    } else {
      TakePulled(path, now);
    }
  }
  return true;
}

void PathProbes::TakePulled(Path& path, TimePoint now) {
  const double gb_s = GbS(static_cast<size_t>(runs_ * run_bytes_), now - path.asked_at);
  path.pulled_gb_s = std::max(gb_s, path.pulled_gb_s.value_or(0));
  const size_t round = static_cast<size_t>(path.rounds++);
  if (*path.pulled_gb_s < kLoudShare * kPulledGbS && round < kAgainAfter.size()) {
    path.ask_again_at = now + kAgainAfter[round];
  }
}

void PathProbes::FinishIfDone(Path& path) {
  if (path.slab != nullptr || path.runs_missing > 0 || path.ask_again_at) return;
  if (active_.empty()) scratch_ = {};
  std::vector<MeasuredPath> ways;
  const auto add = [&](const std::optional<double>& gb_s, const std::string& transport,
                       double expected) {
    if (gb_s) ways.push_back({path.name, transport, *gb_s, expected});
  };
  add(path.mapped_gb_s, transport_.mapped_name(), MachineCopyGbS());
  add(path.pulled_gb_s, transport_.pulled_name(), kPulledGbS);
  if (ways.empty()) return;
  if (PullIsFaster(path.peer)) std::swap(ways.front(), ways.back());
  ways.front().in_use = true;
  Log(ways);
  const std::lock_guard lock(mutex_);
  measured_[path.peer] = std::move(ways);
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

bool PathProbes::PullIsFaster(PeerId peer) const {
  const auto found = paths_.find(peer);
  if (found == paths_.end()) return false;
  const Path& path = found->second;
  return path.mapped_gb_s && path.pulled_gb_s &&
         *path.pulled_gb_s > kClearlyFaster * *path.mapped_gb_s;
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
    transport_.SendData(peer.id,
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
