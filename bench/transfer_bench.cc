#include "bench/transfer_bench.h"

#include <fmt/format.h>

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <numeric>
#include <optional>
#include <random>
#include <sstream>
#include <utility>

#include "bench/raw_ucx.h"
#include "common/clock.h"
#include "common/status_macros.h"
#include "kv_transfer/peer_address.h"
#include "kv_transfer/shared_slab.h"

namespace baton::bench {
namespace {

using kv_transfer::HandoffEvent;
using kv_transfer::HandoffService;
using kv_transfer::TransportKind;

constexpr int64_t kLayerBytes = 4'096;  // of the layout below
constexpr int32_t kBlockTokens = 16;
constexpr int64_t kMostSlabBytes = int64_t{64} << 30;
constexpr uint64_t kBlockSeed = 0xBA70;
constexpr Duration kPatience = std::chrono::seconds(30);

// One layer of one kv head takes 4 KiB, so that blocks of every multiple can be had.
kv_transfer::HandoffOptions HandoffFor(const TransferBenchOptions& options, bool checksums) {
  kv_transfer::HandoffOptions handoff;
  handoff.transport = options.transport;
  handoff.ucx_tls = options.ucx_tls;
  handoff.gpu = options.gpu;
  handoff.layout = {.layers = static_cast<int32_t>(options.block_bytes / kLayerBytes),
                    .kv_heads = 1,
                    .head_dim = 64,
                    .block_tokens = kBlockTokens,
                    .dtype = kernels::KvDType::kF16};
  handoff.model_fingerprint = "baton bench transfer";
  handoff.block_count = options.slab_blocks();
  handoff.checksums = checksums;
  return handoff;
}

bool Pulls(const TransferBenchOptions& options) { return options.transport == TransportKind::kUcx; }

std::string TlsOf(const TransferBenchOptions& options) {
  return options.ucx_tls.empty() ? "tcp" : options.ucx_tls;
}

// All blocks of the slab, no two neighbours of the list being neighbours in the slab: first those
// of even numbers, then those of odd ones.
std::vector<int32_t> Shuffled(int32_t blocks) {
  std::mt19937_64 random(kBlockSeed);
  std::vector<int32_t> order;
  for (const int32_t first : {0, 1}) {
    const auto begin = static_cast<int64_t>(order.size());
    for (int32_t block = first; block < blocks; block += 2) order.push_back(block);
    std::shuffle(order.begin() + begin, order.end(), random);
  }
  const auto odd = order.begin() + (blocks + 1) / 2;
  if (*odd == *(odd - 1) + 1) std::iter_swap(odd, odd + 1);
  return order;
}

// The source's slab is written once: a block's number tells its content.
BlockHash ContentOf(int32_t block) {
  BlockHash hash{};
  std::memcpy(hash.data(), &block, sizeof block);
  return hash;
}

// ---- the target ----

class Peer final : public TransferPeer {
 public:
  explicit Peer(TransferBenchOptions options) : options_(std::move(options)), plan_(options_) {}

  absl::Status Start() {
    BATON_RETURN_IF_ERROR(Start(/*checksums=*/true, &checked_));
    if (options_.compare_checksums) BATON_RETURN_IF_ERROR(Start(/*checksums=*/false, &unchecked_));
    if (!Pulls(options_)) return absl::OkStatus();
    BATON_ASSIGN_OR_RETURN(raw_, RawUcxReceiver::Start(TlsOf(options_), checked_->slab()));
    return absl::OkStatus();
  }
  TransferPeerAddress address() const override {
    return {.handoff = checked_->address(),
            .unchecked = unchecked_ != nullptr ? unchecked_->address() : "",
            .raw_ucx = raw_ != nullptr ? raw_->address() : ""};
  }
  std::span<const std::byte> slab() const override { return checked_->slab(); }

 private:
  absl::Status Start(bool checksums, std::unique_ptr<HandoffService>* service) {
    BATON_ASSIGN_OR_RETURN(
        *service, HandoffService::Create(
                      HandoffFor(options_, checksums), "target",
                      [this, service](const HandoffEvent& event) { Answer(**service, event); }));
    return absl::OkStatus();
  }
  void Answer(HandoffService& service, const HandoffEvent& event) const {
    const auto* arrived = std::get_if<kv_transfer::OfferArrived>(&event);
    if (arrived == nullptr) return;
    const Attempt& attempt = arrived->offer.attempt;
    service.Grant(attempt, 0, plan_.BlocksOf(attempt.request.low));
  }

  const TransferBenchOptions options_;
  const BlockPlan plan_;
  std::unique_ptr<HandoffService> checked_, unchecked_;
  std::unique_ptr<RawUcxReceiver> raw_;
};

// ---- the source ----

// One service that offers, one transfer at a time.
class Source {
 public:
  Source(const TransferBenchOptions& options, std::string target)
      : options_(options), plan_(options_), target_(std::move(target)) {}

  absl::Status Start(bool checksums) {
    BATON_ASSIGN_OR_RETURN(
        service_, HandoffService::Create(HandoffFor(options_, checksums), "source",
                                         [this](const HandoffEvent& event) { Note(event); }));
    // Pages of one constant would be easier to read than KV is.
    std::mt19937_64 random(kBlockSeed);
    const std::span<std::byte> slab = service_->slab();
    for (size_t at = 0; at + sizeof(uint64_t) <= slab.size(); at += sizeof(uint64_t)) {
      const uint64_t value = random();
      std::memcpy(slab.data() + at, &value, sizeof value);
    }
    return absl::OkStatus();
  }

  // Whose checksums the source may keep, or has kept.
  enum class Blocks { kNamed, kNameless };
  // Seconds from the Offer to the SourceDone.
  absl::StatusOr<double> Transfer(uint64_t number, Blocks kind) {
    const std::vector<int32_t> blocks = plan_.BlocksOf(number);
    std::vector<BlockHash> hashes;
    if (kind == Blocks::kNamed) {
      std::ranges::transform(blocks, std::back_inserter(hashes), ContentOf);
    }
    const Attempt attempt{.request = {.high = kBlockSeed, .low = number}, .epoch = 1};
    const TimePoint start = SystemClock().Now();
    BATON_RETURN_IF_ERROR(
        service_->Offer({.attempt = attempt,
                         .tokens = static_cast<int32_t>(blocks.size()) * kBlockTokens,
                         .block_hashes = std::move(hashes),
                         .source_name = "source"},
                        target_, blocks));
    service_->Commit(attempt, "");
    std::unique_lock lock(mutex_);
    if (!done_changed_.wait_for(lock, kPatience, [this] { return done_.has_value(); })) {
      return absl::DeadlineExceededError(
          fmt::format("a transfer of {} blocks of {} bytes did not end in {:.0f} s", blocks.size(),
                      options_.block_bytes, Seconds(kPatience)));
    }
    const kv_transfer::SourceDone done = *std::exchange(done_, std::nullopt);
    BATON_RETURN_IF_ERROR(done.status);
    moved_by_ = done.stats.transport;
    bytes_hashed_ = done.stats.bytes_hashed;
    return Seconds(done_at_ - start);
  }

  HandoffService& service() { return *service_; }
  const std::string& moved_by() const { return moved_by_; }
  // In the last transfer.
  int64_t bytes_hashed() const { return bytes_hashed_; }

 private:
  void Note(const HandoffEvent& event) {
    const auto* done = std::get_if<kv_transfer::SourceDone>(&event);
    if (done == nullptr) return;
    {
      const std::lock_guard lock(mutex_);
      done_at_ = SystemClock().Now();
      done_ = *done;
    }
    done_changed_.notify_one();
  }

  const TransferBenchOptions options_;
  const BlockPlan plan_;
  const std::string target_;
  std::string moved_by_;
  int64_t bytes_hashed_ = 0;
  std::mutex mutex_;
  std::condition_variable done_changed_;
  std::optional<kv_transfer::SourceDone> done_;
  TimePoint done_at_;
  std::unique_ptr<HandoffService> service_;  // last: its events end before the rest does
};

class Bench final : public TransferBench {
 public:
  explicit Bench(TransferBenchOptions options) : options_(std::move(options)), plan_(options_) {}

  absl::Status Connect(const TransferPeerAddress& peer, std::span<const std::byte> inproc_slab) {
    checked_ = std::make_unique<Source>(options_, peer.handoff);
    BATON_RETURN_IF_ERROR(checked_->Start(/*checksums=*/true));
    if (options_.compare_checksums) {
      unchecked_ = std::make_unique<Source>(options_, peer.unchecked);
      BATON_RETURN_IF_ERROR(unchecked_->Start(/*checksums=*/false));
    }
    if (Pulls(options_)) {
      BATON_ASSIGN_OR_RETURN(raw_, RawUcxSender::Connect(TlsOf(options_), peer.raw_ucx));
    } else if (!inproc_slab.empty()) {
      peer_slab_ = inproc_slab;
    } else {
      BATON_ASSIGN_OR_RETURN(const auto address, kv_transfer::DecodeAddress(peer.handoff));
      BATON_ASSIGN_OR_RETURN(mapped_, kv_transfer::MapPeerSlab(address));
      peer_slab_ = mapped_->bytes();
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::vector<TransferRow>> Measure() override {
    std::vector<double> known, at_once, unchecked, baseline;
    const int32_t warm_up = options_.slab_blocks() / options_.transfer_blocks();
    for (int32_t round = -warm_up; round < options_.repeat; ++round) {
      BATON_RETURN_IF_ERROR(CheckStop(options_.stop));
      if (round == 0) {
        for (std::vector<double>* const seconds : {&known, &at_once, &unchecked, &baseline}) {
          seconds->clear();
        }
      }
      BATON_RETURN_IF_ERROR(Transfer(*checked_, Source::Blocks::kNameless, &at_once));
      if (options_.compare_checksums) {
        BATON_RETURN_IF_ERROR(Transfer(*checked_, Source::Blocks::kNamed, &known));
        if (round >= 0 && checked_->bytes_hashed() > 0) {
          return absl::InternalError(
              fmt::format("checksums of {} of {} bytes were not known", checked_->bytes_hashed(),
                          options_.transfer_blocks() * options_.block_bytes));
        }
        BATON_RETURN_IF_ERROR(Transfer(*unchecked_, Source::Blocks::kNameless, &unchecked));
      }
      BATON_ASSIGN_OR_RETURN(const double seconds, Baseline(plan_.BlocksOf(next_++)));
      baseline.push_back(seconds);
    }
    std::vector<TransferRow> rows = {Row(kAtOnce, at_once, baseline)};
    if (options_.compare_checksums) {
      rows.push_back(Row("known", known, baseline));
      rows.push_back(Row("none", unchecked, baseline));
    }
    return rows;
  }

 private:
  absl::Status Transfer(Source& source, Source::Blocks kind, std::vector<double>* seconds) {
    BATON_ASSIGN_OR_RETURN(const double taken, source.Transfer(next_++, kind));
    seconds->push_back(taken);
    return absl::OkStatus();
  }

  absl::StatusOr<double> Baseline(const std::vector<int32_t>& blocks) {
    const auto bytes = static_cast<size_t>(options_.block_bytes);
    const std::span<std::byte> slab = checked_->service().slab();
    std::vector<RawPiece> pieces;
    for (const int32_t block : blocks)
      pieces.push_back({static_cast<size_t>(block) * bytes, bytes});
    const TimePoint start = SystemClock().Now();
    if (raw_ != nullptr) {
      BATON_RETURN_IF_ERROR(raw_->Send(slab, pieces));
    } else {
      // This way round, for only the peer may write its slab.
      for (const RawPiece& piece : pieces) {
        std::memcpy(slab.data() + piece.offset, peer_slab_.data() + piece.offset, piece.bytes);
      }
    }
    return Seconds(SystemClock().Now() - start);
  }

  TransferRow Row(const std::string& checksums, const std::vector<double>& seconds,
                  const std::vector<double>& baseline) const {
    const int64_t bytes = options_.transfer_blocks() * options_.block_bytes;
    const auto gb = static_cast<double>(bytes) * 1e-9;
    return {.transport = checked_->moved_by(),
            .checksums = checksums,
            .block_bytes = options_.block_bytes,
            .blocks = options_.transfer_blocks(),
            .bytes = bytes,
            .gb_per_s = gb / Median(seconds),
            .p50_us = Percentile(seconds, 0.50) * 1e6,
            .p99_us = Percentile(seconds, 0.99) * 1e6,
            .baseline_gb_per_s = gb / Median(baseline)};
  }

  const TransferBenchOptions options_;
  const BlockPlan plan_;
  std::unique_ptr<Source> checked_, unchecked_;
  std::unique_ptr<RawUcxSender> raw_;
  std::shared_ptr<const kv_transfer::PeerSlab> mapped_;
  std::span<const std::byte> peer_slab_;
  uint64_t next_ = 0;
};

std::string Hex(const std::string& bytes) {
  std::string hex;
  for (const char c : bytes) hex += fmt::format("{:02x}", static_cast<unsigned char>(c));
  return hex.empty() ? "-" : hex;
}

absl::StatusOr<std::string> FromHex(const std::string& hex) {
  std::string bytes;
  if (hex == "-") return bytes;
  if (hex.empty() || hex.size() % 2 != 0 ||
      hex.find_first_not_of("0123456789abcdef") != std::string::npos) {
    return absl::InvalidArgumentError(
        fmt::format("'{}' is not the address of a transfer peer", hex.substr(0, 40)));
  }
  for (size_t i = 0; i < hex.size(); i += 2) {
    bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  }
  return bytes;
}

}  // namespace

absl::StatusOr<BlockOrder> BlockOrderFromName(std::string_view name) {
  if (name == "shuffled") return BlockOrder::kShuffled;
  if (name == "runs") return BlockOrder::kRuns;
  return absl::InvalidArgumentError(
      fmt::format("no block order '{}'; there are shuffled and runs", name));
}

int32_t TransferBenchOptions::transfer_blocks() const {
  return static_cast<int32_t>(std::max<int64_t>(transfer_bytes / block_bytes, 1));
}

int32_t TransferBenchOptions::slab_blocks() const {
  const int64_t one = transfer_blocks() * block_bytes;
  return static_cast<int32_t>(std::max<int64_t>(slab_bytes / one, 4)) * transfer_blocks();
}

absl::Status CheckTransferOptions(const TransferBenchOptions& options) {
  if (options.block_bytes < kLayerBytes || options.block_bytes % kLayerBytes != 0 ||
      options.block_bytes > kMostSlabBytes / 4) {
    return absl::InvalidArgumentError(fmt::format(
        "blocks of {} bytes; they must be a multiple of {}", options.block_bytes, kLayerBytes));
  }
  if (options.transfer_bytes < 1 || options.slab_bytes < 1 || options.repeat < 1 ||
      options.transfer_bytes > kMostSlabBytes / 4 || options.slab_bytes > kMostSlabBytes) {
    return absl::InvalidArgumentError(fmt::format(
        "transfers of {} bytes over a slab of {}, {} times; at least 1 each, at most {} bytes",
        options.transfer_bytes, options.slab_bytes, options.repeat, kMostSlabBytes));
  }
  if (options.transport == TransportKind::kAuto) {
    return absl::InvalidArgumentError("auto is shm, ucx or nccl: measure these");
  }
  return absl::OkStatus();
}

BlockPlan::BlockPlan(const TransferBenchOptions& options)
    : transfer_blocks_(options.transfer_blocks()) {
  if (options.order == BlockOrder::kShuffled) {
    order_ = Shuffled(options.slab_blocks());
  } else {
    order_.resize(static_cast<size_t>(options.slab_blocks()));
    std::iota(order_.begin(), order_.end(), 0);
  }
}

std::vector<int32_t> BlockPlan::BlocksOf(uint64_t number) const {
  const auto count = static_cast<size_t>(transfer_blocks_);
  const auto first =
      order_.begin() + static_cast<int64_t>(number % (order_.size() / count)) * transfer_blocks_;
  return {first, first + transfer_blocks_};
}

std::string TransferPeerAddress::Encode() const {
  return fmt::format("{} {} {}", Hex(handoff), Hex(unchecked), Hex(raw_ucx));
}

absl::StatusOr<TransferPeerAddress> TransferPeerAddress::Decode(const std::string& line) {
  std::istringstream in(line);
  std::string handoff, unchecked, raw_ucx;
  in >> handoff >> unchecked >> raw_ucx;
  TransferPeerAddress address;
  BATON_ASSIGN_OR_RETURN(address.handoff, FromHex(handoff));
  BATON_ASSIGN_OR_RETURN(address.unchecked, FromHex(unchecked));
  BATON_ASSIGN_OR_RETURN(address.raw_ucx, FromHex(raw_ucx));
  return address;
}

absl::StatusOr<std::unique_ptr<TransferPeer>> TransferPeer::Start(
    const TransferBenchOptions& options) {
  BATON_RETURN_IF_ERROR(CheckTransferOptions(options));
  auto peer = std::make_unique<Peer>(options);
  BATON_RETURN_IF_ERROR(peer->Start());
  return peer;
}

absl::StatusOr<std::unique_ptr<TransferBench>> TransferBench::Connect(
    const TransferBenchOptions& options, const TransferPeerAddress& peer,
    std::span<const std::byte> inproc_slab) {
  BATON_RETURN_IF_ERROR(CheckTransferOptions(options));
  auto bench = std::make_unique<Bench>(options);
  BATON_RETURN_IF_ERROR(bench->Connect(peer, inproc_slab));
  return bench;
}

}  // namespace baton::bench
