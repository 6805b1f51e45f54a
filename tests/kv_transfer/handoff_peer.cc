// The other process of the tests over real process borders: a handoff service that is told what to
// do, line by line, on standard input, and answers on standard output.
//
//   kv_transfer_peer TRANSPORT[:UCX_TLS] NAME TIMEOUT_MS LAYERS
//                                        a block takes 8 KiB for each layer
//   address                              address <hex>
//   offer N ADDRESS_HEX BLOCKS SEED      offers, fills and commits    -> offered | error <why>
//   half N ADDRESS_HEX BLOCKS SEED       the same, without the second half and the commit
//   grant N BLOCKS                       grants with the next offer   -> granted
//   wait_source N                        done <status>
//   wait_target N SEED                   done <status>, after all blocks were compared
//   active                               active <count>
//   paths                                paths <count of peers that were measured and live>

#include <fmt/format.h>

#include <iostream>
#include <sstream>

#include "tests/kv_transfer/handoff_harness.h"

namespace baton::kv_transfer {
namespace {

std::string ToHex(const std::string& bytes) {
  std::string hex;
  for (const char c : bytes) hex += fmt::format("{:02x}", static_cast<unsigned char>(c));
  return hex;
}

std::string FromHex(const std::string& hex) {
  std::string bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) {
    bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  }
  return bytes;
}

class Peer {
 public:
  explicit Peer(std::unique_ptr<Worker> worker) : worker_(std::move(worker)) {}

  std::string Answer(const std::string& line) {
    std::istringstream in(line);
    std::string verb;
    uint64_t number = 0;
    in >> verb;
    if (verb == "address") return "address " + ToHex(worker_->service->address());
    if (verb == "active") return fmt::format("active {}", worker_->service->active_transfers());
    if (verb == "paths") return fmt::format("paths {}", worker_->service->paths().size());
    in >> number;
    const Attempt attempt = MakeAttempt(number);
    if (verb == "offer" || verb == "half") return Offer(attempt, verb == "half", in);
    if (verb == "grant") return Grant(attempt, in);
    if (verb == "wait_source") {
      const auto done = worker_->events.Take<SourceDone>(attempt);
      return done.has_value() ? "done " + done->status.ToString() : "nothing";
    }
    if (verb == "wait_target") return WaitTarget(attempt, in);
    return "error: no such command";
  }

 private:
  std::string Offer(const Attempt& attempt, bool half, std::istringstream& in) {
    std::string address;
    int32_t count = 0;
    uint64_t seed = 0;
    in >> address >> count >> seed;
    std::mt19937_64 random(seed);
    const auto blocks = RandomBlocks(Half(), count, random);
    const absl::Status status = worker_->service->Offer(MakeOffer(worker_->options, attempt, count),
                                                        FromHex(address), blocks);
    if (!status.ok()) return "error " + status.ToString();
    for (int32_t i = 0; i < (half ? count / 2 : count); ++i) {
      worker_->Fill(blocks[static_cast<size_t>(i)], seed, i);
      worker_->service->BlocksReady(attempt, i + 1);
    }
    if (!half) worker_->service->Commit(attempt, fmt::format("payload {}", seed));
    return "offered";
  }

  std::string Grant(const Attempt& attempt, std::istringstream& in) {
    int32_t count = 0;
    in >> count;
    if (!worker_->events.Take<OfferArrived>(attempt).has_value()) return "nothing";
    std::mt19937_64 random(attempt.request.low);
    granted_ = RandomBlocks(Half(), count, random);
    for (int32_t& block : granted_) block += Half();
    worker_->service->Grant(attempt, 0, granted_);
    return "granted";
  }

  std::string WaitTarget(const Attempt& attempt, std::istringstream& in) {
    uint64_t seed = 0;
    in >> seed;
    const auto done = worker_->events.Take<TargetDone>(attempt);
    if (!done.has_value()) return "nothing";
    if (!done->status.ok()) return "done " + done->status.ToString();
    for (size_t i = 0; i < granted_.size(); ++i) {
      if (!worker_->Holds(granted_[i], seed, static_cast<int32_t>(i))) {
        return fmt::format("block {} holds something else", i);
      }
    }
    if (done->commit_payload != fmt::format("payload {}", seed)) return "another payload";
    return fmt::format("done OK by {}", done->stats.transport);
  }

  // The first half of the blocks is for giving, the second for receiving.
  int32_t Half() const { return worker_->options.block_count / 2; }

  std::unique_ptr<Worker> worker_;
  std::vector<int32_t> granted_;
};

int Main(int argc, char** argv) {
  if (argc != 5) return 2;
  const std::string transport = argv[1];
  const size_t colon = std::min(transport.find(':'), transport.size());
  HandoffOptions options = SmallOptions(*TransportKindFromName(transport.substr(0, colon)));
  if (colon < transport.size()) options.ucx_tls = transport.substr(colon + 1);
  options.layout.layers = std::stoi(argv[4]);
  options.block_count = options.layout.layers > 2 ? 64 : 512;
  options.lease = options.ready_timeout = options.offer_timeout =
      std::chrono::milliseconds(std::stoi(argv[3]));
  Peer peer(StartWorker(options, argv[2]));
  for (std::string line; std::getline(std::cin, line);) std::cout << peer.Answer(line) << std::endl;
  return 0;
}

}  // namespace
}  // namespace baton::kv_transfer

int main(int argc, char** argv) { return baton::kv_transfer::Main(argc, argv); }
