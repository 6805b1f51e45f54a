// `baton bench transfer`: how fast KV blocks go from one worker to another, and how near that is to
// what the way between them could do.
//
// The target is a process of its own: this program again, with --peer, which prints where it is
// reached and lives until SIGTERM. Inproc, it is in this process.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>
#include <optional>

#include "bench/transfer_bench.h"
#include "cli/command_line.h"
#include "cli/print_line.h"
#include "cli/signals.h"
#include "cli/subprocess.h"
#include "common/logging.h"
#include "common/status_macros.h"

namespace baton::cli {
namespace {

constexpr Duration kPeerTimeout = std::chrono::seconds(60);
constexpr std::string_view kPeerLine = "peer ";

struct TransferBenchFlags {
  std::vector<std::string> transports = {"shm", "ucx", "inproc"};
  std::vector<int64_t> block_bytes = {16'384, 65'536, 368'640, 1'048'576};
  std::string order = "shuffled";
  bench::TransferBenchOptions bench;
  bool json = false;
  bool peer = false;
};

absl::StatusOr<bench::TransferBenchOptions> OptionsOf(const TransferBenchFlags& flags,
                                                      const std::string& transport,
                                                      int64_t block_bytes) {
  bench::TransferBenchOptions options = flags.bench;
  options.block_bytes = block_bytes;
  BATON_ASSIGN_OR_RETURN(options.transport, kv_transfer::TransportKindFromName(transport));
  BATON_ASSIGN_OR_RETURN(options.order, bench::BlockOrderFromName(flags.order));
  BATON_RETURN_IF_ERROR(bench::CheckTransferOptions(options));
  return options;
}

absl::Status ServeAsPeer(const TransferBenchFlags& flags) {
  BlockSignals();
  if (flags.transports.size() != 1 || flags.block_bytes.size() != 1) {
    return absl::InvalidArgumentError("a peer has one transport and one size of blocks");
  }
  BATON_ASSIGN_OR_RETURN(const auto options,
                         OptionsOf(flags, flags.transports[0], flags.block_bytes[0]));
  BATON_ASSIGN_OR_RETURN(const auto peer, bench::TransferPeer::Start(options));
  PrintLine(std::string(kPeerLine) + peer->address().Encode());
  WaitForSignal();
  return absl::OkStatus();
}

// A peer in a process of its own, and where it is reached.
struct PeerProcess {
  Subprocess process;
  bench::TransferPeerAddress address;
};

absl::StatusOr<PeerProcess> StartPeer(const TransferBenchFlags& flags, const std::string& transport,
                                      int64_t block_bytes) {
  std::error_code error;
  const std::string self = std::filesystem::read_symlink("/proc/self/exe", error).string();
  if (error) return absl::InternalError("cannot tell the path of this program");
  std::vector<std::string> command = {
      self,
      "bench",
      "transfer",
      "--peer",
      "--transport=" + transport,
      fmt::format("--gpu={}", flags.bench.gpu + 1),
      fmt::format("--block-bytes={}", block_bytes),
      "--order=" + flags.order,
      fmt::format("--transfer-bytes={}", flags.bench.transfer_bytes),
      fmt::format("--slab-bytes={}", flags.bench.slab_bytes)};
  if (flags.bench.compare_checksums) command.push_back("--compare-checksums");
  if (!flags.bench.ucx_tls.empty()) command.push_back("--ucx-tls=" + flags.bench.ucx_tls);
  BATON_ASSIGN_OR_RETURN(Subprocess process, Subprocess::Start(command, /*capture_stdout=*/true));
  while (true) {  // UCX may print lines of its own
    const absl::StatusOr<std::string> line = process.ReadLine(kPeerTimeout);
    if (!line.ok()) {
      return absl::UnavailableError(
          fmt::format("the other process did not start: {}", std::string(line.status().message())));
    }
    if (!line->starts_with(kPeerLine)) continue;
    BATON_ASSIGN_OR_RETURN(auto address,
                           bench::TransferPeerAddress::Decode(line->substr(kPeerLine.size())));
    return PeerProcess{std::move(process), std::move(address)};
  }
}

absl::StatusOr<std::vector<bench::TransferRow>> Measure(const TransferBenchFlags& flags,
                                                        const std::string& transport,
                                                        int64_t block_bytes) {
  BATON_ASSIGN_OR_RETURN(auto options, OptionsOf(flags, transport, block_bytes));
  options.stop = StopAsked;
  if (options.transport == kv_transfer::TransportKind::kInproc) {
    BATON_ASSIGN_OR_RETURN(const auto peer, bench::TransferPeer::Start(options));
    BATON_ASSIGN_OR_RETURN(const auto bench,
                           bench::TransferBench::Connect(options, peer->address(), peer->slab()));
    return bench->Measure();
  }
  BATON_ASSIGN_OR_RETURN(const PeerProcess peer, StartPeer(flags, transport, block_bytes));
  BATON_ASSIGN_OR_RETURN(const auto bench,
                         bench::TransferBench::Connect(options, peer.address, {}));
  return bench->Measure();
}

absl::Status BenchTransfer(const TransferBenchFlags& flags) {
  // What a service says of each new pair is not wanted between rows.
  InitLogging(flags.peer ? "bench peer" : "bench", LogLevel::kWarning);
  if (flags.peer) return ServeAsPeer(flags);
  for (const std::string& transport : flags.transports) {  // before anything takes time
    for (const int64_t block_bytes : flags.block_bytes) {
      BATON_RETURN_IF_ERROR(OptionsOf(flags, transport, block_bytes).status());
    }
  }
  CatchStopSignals();
  bool head = !flags.json;
  for (const std::string& transport : flags.transports) {
    for (const int64_t block_bytes : flags.block_bytes) {
      BATON_ASSIGN_OR_RETURN(const auto rows, Measure(flags, transport, block_bytes));
      if (std::exchange(head, false)) PrintLine(bench::TransferTableHead());
      for (const bench::TransferRow& row : rows) {
        PrintLine(flags.json ? bench::TransferRowJson(row) : bench::TransferTableLine(row));
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace

Action AddBenchTransfer(CLI::App* app) {
  auto flags = std::make_shared<TransferBenchFlags>();
  bench::TransferBenchOptions& options = flags->bench;
  app->add_option(
         "--transport", flags->transports,
         "ways to measure: shm (mapped memory), ucx (active messages) and nccl (from GPU to "
         "GPU) between two processes, inproc in one")
      ->delimiter(',')
      ->default_str("shm,ucx,inproc");
  app->add_option("--ucx-tls", options.ucx_tls, "UCX transports to use, as UCX_TLS; tcp if empty");
  app->add_option("--gpu", options.gpu,
                  "for nccl: this process's GPU, as CUDA counts; the other has the next one")
      ->check(CLI::Range(0, 1'023))
      ->capture_default_str();
  app->add_option("--block-bytes", flags->block_bytes,
                  "sizes of KV blocks, multiples of 4096: one row for each")
      ->delimiter(',')
      ->default_str("16384,65536,368640,1048576");
  app->add_option("--order", flags->order,
                  "shuffled: no two blocks of a transfer lie together; runs: all do, and may be "
                  "moved as one")
      ->capture_default_str();
  app->add_option("--transfer-bytes", options.transfer_bytes, "size of a transfer")
      ->capture_default_str();
  app->add_option("--slab-bytes", options.slab_bytes,
                  "memory on each side, which transfers go through in turn; larger than caches")
      ->capture_default_str();
  app->add_option("--repeat", options.repeat, "transfers measured, one at a time")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  app->add_flag("--compare-checksums", options.compare_checksums,
                "two more rows for each, to tell what checksums cost: all \"known\" to the source "
                "before, as of a cached prefix or when they are computed during the prefill, and "
                "\"none\"");
  app->add_flag(
      "--json", flags->json,
      "print a JSON object a row: {\"transport\",\"block_bytes\",\"blocks\",\"bytes\","
      "\"gb_per_s\",\"p50_us\",\"p99_us\",\"baseline_gb_per_s\",\"share\"}, and \"checksums\" "
      "in the rows that --compare-checksums adds; times are from Offer to Release; the baseline is "
      "memcpy between the slabs, or UCX's active "
      "messages with the same error handling and nothing else");
  app->add_flag("--peer", flags->peer)->group("");  // the other process
  return [flags] { return BenchTransfer(*flags); };
}

}  // namespace baton::cli
