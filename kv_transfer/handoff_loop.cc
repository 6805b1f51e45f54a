#include "kv_transfer/handoff_loop.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "common/logging.h"
#include "common/status_macros.h"
#include "kv_transfer/failpoints.h"

namespace baton::kv_transfer {
namespace {

// Work between two looks at the transport: long enough to be efficient, short enough that messages
// and heartbeats of other transfers do not wait.
constexpr int64_t kTurnBytes = 4 << 20;
// Hashed in one turn, and then announced: the target copies them while the next ones are hashed, so
// the first should come soon.
constexpr int64_t kHashBytes = 1 << 20;
// One pulled run is one data message: beyond this, larger ones are not faster.
constexpr int64_t kPullRunBytes = 256 << 10;
// Asked for and not yet here, over all transfers of this target. Enough for a round trip of a
// millisecond at 4 GB/s; with more, what has come leaves the core's cache before it is copied on,
// which costs a fifth of the speed.
constexpr int64_t kPulledInFlightBytes = 4 << 20;
constexpr Duration kEndAllWait = std::chrono::milliseconds(250);

int32_t PiecesIn(int64_t bytes, int64_t piece_bytes) {
  return static_cast<int32_t>(std::clamp<int64_t>(bytes / piece_bytes, 1, kMaxPiecesPerTransfer));
}

}  // namespace

HandoffLoop::HandoffLoop(Transport& transport, const Clock& clock, const HandoffOptions& options,
                         const PeerAddress& own, std::string encoded_own,
                         std::function<void(HandoffEvent)> on_event)
    : transport_(transport),
      clock_(clock),
      options_(options),
      own_(own),
      encoded_own_(std::move(encoded_own)),
      on_event_(std::move(on_event)),
      block_bytes_(options.layout.block_bytes()),
      slices_(SlicesOf(options.layout, options.least_slice_bytes)),
      tick_interval_(std::clamp<Duration>(
          std::min({options.lease, options.offer_timeout, options.ready_timeout}) / 20,
          std::chrono::milliseconds(1), std::chrono::milliseconds(100))),
      now_(clock.Now()),
      next_tick_(now_),
      peers_(transport, options.transport),
      probes_(transport, options.transport, own.incarnation, block_bytes_),
      copier_(options.checksums),
      kept_checksums_(options.block_count * slices_) {}

std::span<std::byte> HandoffLoop::Pieces(int32_t first, int32_t count, int64_t piece_bytes) const {
  return transport_.slab().subspan(static_cast<size_t>(first * piece_bytes),
                                   static_cast<size_t>(count * piece_bytes));
}

void HandoffLoop::SendTo(PeerId peer, const Attempt& attempt, MessageBody body) {
  const Peer* const known = peers_.Find(peer);
  if (known == nullptr) return;  // it is down, and so are its transfers
  if (FailsBeforeSending(body)) return;
  const Message message{.sender = own_.incarnation,
                        .receiver = known->address.incarnation,
                        .attempt = attempt,
                        .body = std::move(body)};
  transport_.Send(peer, Encode(message));
  ReachAfterSending(message.body);
}

// ---- commands ----

void HandoffLoop::Offer(const OfferInfo& offer, const PeerAddress& target,
                        std::vector<int32_t> blocks) {
  const absl::StatusOr<Peer*> peer = peers_.Get(target);
  if (!peer.ok()) {
    on_event_(SourceDone{offer.attempt, peer.status(), {}});
    return;
  }
  // A target that converts takes whole blocks.
  const int32_t slices = target.layout == own_.layout ? slices_ : 1;
  SourceMachine::Config config{
      .offer = {.tokens = offer.tokens,
                .block_count = static_cast<int32_t>(blocks.size()),
                .slices = slices,
                .lease_ms = static_cast<uint32_t>(
                    std::chrono::duration_cast<std::chrono::milliseconds>(options_.lease).count()),
                .block_hashes = offer.block_hashes,
                .source_name = offer.source_name,
                .source_address = encoded_own_},
      .blocks = std::move(blocks),
      .lease = options_.lease,
      .offer_timeout = options_.offer_timeout};
  auto transfer = std::make_unique<SourceTransfer>(std::move(config), now_);
  transfer->serial = next_serial_++;
  transfer->peer = (*peer)->id;
  transfer->peer_incarnation = target.incarnation;
  transfer->peer_name = target.name;
  transfer->piece_bytes = block_bytes_ / slices;
  SourceTransfer& started = *transfer;
  sources_[offer.attempt] = std::move(transfer);
  Settle(offer.attempt, started);
}

void HandoffLoop::SlicesReady(const Attempt& attempt, int32_t count, int32_t slices) {
  const auto found = sources_.find(attempt);
  if (found == sources_.end()) return;
  SourceMachine& machine = found->second->machine;
  if (slices == slices_) {
    machine.BlocksReady(count);
  } else if (machine.slices() == slices_) {
    machine.SlicesReady(count, slices);
  }
  Settle(attempt, *found->second);
}

void HandoffLoop::Commit(const Attempt& attempt, std::string payload) {
  const auto found = sources_.find(attempt);
  if (found == sources_.end()) return;
  found->second->committed_at = now_;
  found->second->machine.Commit(std::move(payload), now_);
  Settle(attempt, *found->second);
}

void HandoffLoop::CancelSource(const Attempt& attempt, const absl::Status& why) {
  const auto found = sources_.find(attempt);
  if (found == sources_.end()) return;
  found->second->machine.Cancel(why, now_);
  Settle(attempt, *found->second);
}

void HandoffLoop::Grant(const Attempt& attempt, int32_t first_block_wanted,
                        std::vector<int32_t> blocks) {
  const auto found = targets_.find(attempt);
  if (found == targets_.end()) {
    const absl::Status why = fence_.EndOf(attempt);
    on_event_(
        TargetDone{attempt, why.ok() ? absl::NotFoundError("no such offer is open") : why, "", {}});
    return;
  }
  TargetTransfer& transfer = *found->second;
  if (transfer.machine.state() != TargetMachine::State::kOffered) {
    LogError(fmt::format("attempt {} was granted twice; the second is ignored", ToString(attempt)));
    return;
  }
  const auto outside = [this](int32_t block) { return block < 0 || block >= options_.block_count; };
  // Blocks that this slab has not cannot be written: the machine refuses an empty list.
  bool sound = std::none_of(blocks.begin(), blocks.end(), outside);
  if (sound && transfer.conversion.has_value()) {
    const auto first = transfer.conversion->SetTarget(first_block_wanted, std::move(blocks));
    sound = first.ok();
    first_block_wanted = first.value_or(-1);
    blocks.assign(static_cast<size_t>(sound ? transfer.machine.block_count() - *first : 0), 0);
    std::iota(blocks.begin(), blocks.end(), 0);
  }
  if (!sound) {
    blocks.clear();
    first_block_wanted = -1;
  }
  transfer.machine.Grant(first_block_wanted, std::move(blocks), now_);
  Settle(attempt, transfer);
}

void HandoffLoop::Refuse(const Attempt& attempt, const absl::Status& why) {
  const auto found = targets_.find(attempt);
  if (found == targets_.end()) return;
  found->second->machine.Refuse(why);
  Settle(attempt, *found->second);
}

void HandoffLoop::CancelTarget(const Attempt& attempt) {
  const auto found = targets_.find(attempt);
  if (found == targets_.end()) return;
  found->second->machine.Cancel(absl::CancelledError("the target gave the transfer up"));
  Settle(attempt, *found->second);
}

// ---- one round ----

bool HandoffLoop::Step() {
  TakeTime();
  bool busy = transport_.Progress(*this);
  busy |= HashSome();
  busy |= MoveSome();
  busy |= probes_.Step(now_);
  if (now_ >= next_tick_) {
    next_tick_ = now_ + tick_interval_;
    TickTransfers();
  }
  return busy;
}

Duration HandoffLoop::IdleTime() const {
  return active() ? tick_interval_ : std::chrono::seconds(1);
}

void HandoffLoop::TickTransfers() {
  std::vector<Attempt> attempts;
  for (const auto& [attempt, transfer] : sources_) attempts.push_back(attempt);
  for (const Attempt& attempt : attempts) {
    const auto found = sources_.find(attempt);  // dropping a peer ends others, too
    if (found == sources_.end()) continue;
    found->second->machine.OnTick(now_);
    Settle(attempt, *found->second);
  }
  attempts.clear();
  for (const auto& [attempt, transfer] : targets_) attempts.push_back(attempt);
  for (const Attempt& attempt : attempts) {
    const auto found = targets_.find(attempt);
    if (found == targets_.end()) continue;
    found->second->machine.OnTick(now_);
    Settle(attempt, *found->second);
  }
}

void HandoffLoop::QueueToHash(const Attempt& attempt, SourceTransfer& transfer) {
  if (transfer.queued || transfer.machine.ToHash().empty()) return;
  transfer.queued = true;
  to_hash_.push_back(attempt);
}

bool HandoffLoop::HashSome() {
  if (to_hash_.empty()) return false;
  const Attempt attempt = to_hash_.front();
  to_hash_.pop_front();
  const auto found = sources_.find(attempt);
  if (found == sources_.end()) return true;
  SourceTransfer& transfer = *found->second;
  transfer.queued = false;
  const int32_t most = transfer.pieces_hashed + PiecesIn(kHashBytes, transfer.piece_bytes);
  checksums_.clear();
  for (const int32_t index : transfer.machine.ToHash()) {
    if (transfer.pieces_hashed == most || checksums_.size() == kMaxReadyPieces) break;
    checksums_.push_back(ChecksumOf(transfer, index));
  }
  if (!checksums_.empty()) {
    transfer.machine.Hashed(checksums_, now_);
    Settle(attempt, transfer);
  }
  return true;
}

uint64_t HandoffLoop::ChecksumOf(SourceTransfer& transfer, int32_t index) {
  const SourceMachine& machine = transfer.machine;
  const int32_t piece = machine.source_piece(index);
  // Of whole blocks, where blocks go in slices elsewhere, nothing is kept.
  const BlockHash* const content = machine.slices() == slices_ ? machine.content(index) : nullptr;
  if (content != nullptr) {
    const auto kept = kept_checksums_.Find(piece, *content);
    if (kept.has_value()) return *kept;
  }
  const uint64_t checksum = copier_.Checksum(Pieces(piece, 1, transfer.piece_bytes));
  ++transfer.pieces_hashed;
  if (content != nullptr) kept_checksums_.Keep(piece, *content, checksum);
  return checksum;
}

void HandoffLoop::QueueToMove(const Attempt& attempt, TargetTransfer& transfer) {
  if (transfer.queued || !transfer.machine.HasRun()) return;
  transfer.queued = true;
  to_move_.push_back(attempt);
}

bool HandoffLoop::MoveSome() {
  int64_t bytes = 0;
  // Each transfer has at most one turn; those that want more queue up again behind the others.
  for (size_t turns = to_move_.size(); turns > 0 && bytes < kTurnBytes; --turns) {
    const Attempt attempt = to_move_.front();
    to_move_.pop_front();
    const auto found = targets_.find(attempt);
    if (found == targets_.end()) continue;
    TargetTransfer& transfer = *found->second;
    transfer.queued = false;
    bytes += transfer.slab != nullptr ? CopyTurn(attempt, transfer) : PullTurn(attempt, transfer);
  }
  return bytes > 0;
}

int64_t HandoffLoop::CopyTurn(const Attempt& attempt, TargetTransfer& transfer) {
  const int64_t piece_bytes = transfer.piece_bytes;
  int64_t bytes = 0;
  while (bytes < kTurnBytes / 4) {
    const auto landing = transfer.machine.NextRun(PiecesIn(kTurnBytes / 4, piece_bytes));
    if (!landing.has_value()) break;
    const std::span<const std::byte> read =
        transfer.slab->Read(static_cast<size_t>(landing->source_piece * piece_bytes),
                            static_cast<size_t>(landing->run.count * piece_bytes));
    Land(transfer, *landing, read.data());
    bytes += landing->run.count * piece_bytes;
  }
  Settle(attempt, transfer);
  return bytes;
}

int64_t HandoffLoop::PullTurn(const Attempt& attempt, TargetTransfer& transfer) {
  int64_t bytes = 0;
  PullMessage pull{.runs = {}, .way = transfer.way};
  if (transfer.way == DataWay::kLane && !peers_.LaneIsOpen(transfer.peer)) return 0;
  while (pulled_in_flight_bytes_ < kPulledInFlightBytes && bytes < kTurnBytes / 4) {
    const auto landing = transfer.machine.NextRun(PiecesIn(kPullRunBytes, transfer.piece_bytes));
    if (!landing.has_value()) break;
    pull.runs.push_back(landing->run);
    const int64_t run_bytes = landing->run.count * transfer.piece_bytes;
    transfer.pulled_in_flight_bytes += run_bytes;
    pulled_in_flight_bytes_ += run_bytes;
    bytes += run_bytes;
    if (pull.runs.size() == kMaxPullRuns) break;
  }
  if (!pull.runs.empty()) SendTo(transfer.peer, attempt, std::move(pull));
  Settle(attempt, transfer);
  return bytes;
}

void HandoffLoop::Land(TargetTransfer& transfer, const Landing& landing, const std::byte* bytes) {
  ReachBeforeVerify();
  checksums_.clear();
  const int64_t piece_bytes = transfer.piece_bytes;
  for (int32_t i = 0; i < landing.run.count; ++i) {
    checksums_.push_back(
        Take(transfer, landing, i, {bytes + i * piece_bytes, static_cast<size_t>(piece_bytes)}));
  }
  transfer.machine.OnLanded(landing.run, checksums_, clock_.Now());
  ReachAfterVerify();
}

// Piece i of the run, into our blocks; the checksum of the bytes that were taken.
uint64_t HandoffLoop::Take(TargetTransfer& transfer, const Landing& landing, int32_t i,
                           std::span<const std::byte> piece) {
  if (!transfer.conversion.has_value()) {
    return copier_.Copy(Pieces(landing.target_piece + i, 1, transfer.piece_bytes), piece);
  }
  // A whole block. The source may still change a mapped one: what is checked is what is converted.
  unverified_.assign(piece.begin(), piece.end());
  const uint64_t checksum = copier_.Checksum(unverified_);
  const int32_t index = landing.run.first + i;
  if (transfer.machine.Announced(index, checksum)) {
    transfer.conversion->Convert(index, unverified_, Pieces(0, options_.block_count, block_bytes_));
  }
  return checksum;
}

void HandoffLoop::EndAll() {
  ending_ = true;
  const auto why = absl::CancelledError("the handoff service is shutting down");
  while (!targets_.empty()) {
    const auto& [attempt, transfer] = *targets_.begin();
    const Attempt ended = attempt;
    transfer->machine.Cancel(why);
    Settle(ended, *transfer);
  }
  std::vector<Attempt> attempts;
  for (const auto& [attempt, transfer] : sources_) attempts.push_back(attempt);
  for (const Attempt& attempt : attempts) {
    CancelSource(attempt, why);
  }
  const TimePoint give_up = clock_.Now() + kEndAllWait;
  while (!sources_.empty() && clock_.Now() < give_up) {
    if (!Step()) transport_.Wait(std::chrono::milliseconds(1));
  }
  for (int i = 0; i < 2; ++i) {  // the deadline of the cancel, then that of the drain
    now_ += options_.lease + std::chrono::seconds(1);
    TickTransfers();
  }
  BATON_CHECK(sources_.empty() && targets_.empty(), "every transfer ends at its deadline");
}

}  // namespace baton::kv_transfer
