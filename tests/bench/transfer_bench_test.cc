#include "bench/transfer_bench.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "common/status_macros.h"

namespace baton::bench {
namespace {

using kv_transfer::TransportKind;
using testing::HasSubstr;

TransferBenchOptions SmallOptions(TransportKind transport) {
  TransferBenchOptions options;
  options.transport = transport;
  options.block_bytes = 16 << 10;
  options.transfer_bytes = 256 << 10;
  options.slab_bytes = 1 << 20;
  options.repeat = 3;
  return options;
}

TEST(TransferBenchTest, OneTransferAfterAnotherGoesThroughTheWholeSlab) {
  for (const BlockOrder order : {BlockOrder::kShuffled, BlockOrder::kRuns}) {
    TransferBenchOptions options = SmallOptions(TransportKind::kInproc);
    options.order = order;
    ASSERT_EQ(options.transfer_blocks(), 16);
    ASSERT_EQ(options.slab_blocks(), 64);
    const BlockPlan plan(options);
    std::set<int32_t> seen;
    int neighbours = 0;
    for (uint64_t number = 0; number < 4; ++number) {
      const std::vector<int32_t> blocks = plan.BlocksOf(number);
      ASSERT_EQ(blocks.size(), 16);
      seen.insert(blocks.begin(), blocks.end());
      for (size_t i = 1; i < blocks.size(); ++i) neighbours += blocks[i] == blocks[i - 1] + 1;
    }
    EXPECT_EQ(seen.size(), 64);
    EXPECT_EQ(*seen.rbegin(), 63);
    EXPECT_EQ(neighbours, order == BlockOrder::kRuns ? 4 * 15 : 0);
    EXPECT_EQ(plan.BlocksOf(1), plan.BlocksOf(5));
  }
}

TEST(TransferBenchTest, ASlabHoldsFourTransfersAtLeastAndATransferOneBlock) {
  TransferBenchOptions options = SmallOptions(TransportKind::kInproc);
  options.block_bytes = 1 << 20;
  EXPECT_EQ(options.transfer_blocks(), 1);
  EXPECT_EQ(options.slab_blocks(), 4);
}

TEST(TransferBenchTest, OptionsWithoutSenseAreRefusedWithTheirNumbers) {
  const auto refused = [](auto&& change) {
    TransferBenchOptions options = SmallOptions(TransportKind::kInproc);
    change(options);
    return TransferPeer::Start(options).status().ToString();
  };
  EXPECT_THAT(refused([](auto& options) { options.block_bytes = 5'000; }), HasSubstr("5000"));
  EXPECT_THAT(refused([](auto& options) { options.block_bytes = 0; }), HasSubstr("blocks of 0"));
  EXPECT_THAT(refused([](auto& options) { options.transfer_bytes = -7; }), HasSubstr("-7"));
  EXPECT_THAT(refused([](auto& options) { options.repeat = 0; }), HasSubstr("0 times"));
  EXPECT_THAT(refused([](auto& options) { options.transport = TransportKind::kAuto; }),
              HasSubstr("shm, ucx or nccl"));
  EXPECT_THAT(BlockOrderFromName("sorted").status().ToString(), HasSubstr("'sorted'"));
}

TEST(TransferBenchTest, AddressesSurviveTheLine) {
  const TransferPeerAddress address{
      .handoff = std::string("\x00\xff here", 7), .unchecked = "", .raw_ucx = "there"};
  const auto decoded = TransferPeerAddress::Decode(address.Encode());
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(decoded->handoff, address.handoff);
  EXPECT_EQ(decoded->unchecked, address.unchecked);
  EXPECT_EQ(decoded->raw_ucx, address.raw_ucx);
  EXPECT_FALSE(TransferPeerAddress::Decode("00ff 0").ok());
  EXPECT_FALSE(TransferPeerAddress::Decode("xy - -").ok());
}

class TransferBenchOverTest : public testing::TestWithParam<TransportKind> {
 protected:
  static absl::StatusOr<std::vector<TransferRow>> Measure(const TransferBenchOptions& options) {
    BATON_ASSIGN_OR_RETURN(const auto peer, TransferPeer::Start(options));
    const bool inproc = options.transport == TransportKind::kInproc;
    BATON_ASSIGN_OR_RETURN(
        const auto bench,
        TransferBench::Connect(options, peer->address(),
                               inproc ? peer->slab() : std::span<const std::byte>{}));
    return bench->Measure();
  }
};

#ifdef BATON_HAVE_UCX
const auto kTransports =
    testing::Values(TransportKind::kInproc, TransportKind::kShm, TransportKind::kUcx);
#else
const auto kTransports = testing::Values(TransportKind::kInproc);
#endif
INSTANTIATE_TEST_SUITE_P(Transports, TransferBenchOverTest, kTransports, [](const auto& tested) {
  return tested.param == TransportKind::kInproc ? "Inproc"
         : tested.param == TransportKind::kShm  ? "Shm"
                                                : "Ucx";
});

TEST_P(TransferBenchOverTest, MeasuresTransferAndBaseline) {
  TransferBenchOptions options = SmallOptions(GetParam());
  options.compare_checksums = true;
  for (const BlockOrder order : {BlockOrder::kShuffled, BlockOrder::kRuns}) {
    options.order = order;
    const auto rows = Measure(options);
    ASSERT_TRUE(rows.ok()) << rows.status();
    ASSERT_EQ(rows->size(), 3);
    const char* const name = GetParam() == TransportKind::kInproc ? "inproc"
                             : GetParam() == TransportKind::kShm  ? "shm"
                                                                  : "ucx tcp";
    EXPECT_EQ((*rows)[0].checksums, "at once");
    EXPECT_EQ((*rows)[1].checksums, "known");
    EXPECT_EQ((*rows)[2].checksums, "none");
    for (const TransferRow& row : *rows) {
      EXPECT_EQ(row.transport, name);
      EXPECT_EQ(row.block_bytes, 16 << 10);
      EXPECT_EQ(row.blocks, 16);
      EXPECT_EQ(row.bytes, 256 << 10);
      EXPECT_GT(row.p50_us, 0);
      EXPECT_GE(row.p99_us, row.p50_us);
      EXPECT_GT(row.baseline_gb_per_s, 0);
      EXPECT_DOUBLE_EQ(row.share(), row.gb_per_s / row.baseline_gb_per_s);
    }
  }
}

TEST_P(TransferBenchOverTest, AStopEndsIt) {
  TransferBenchOptions options = SmallOptions(GetParam());
  int asked = 0;
  options.stop = [&asked] { return ++asked > 2; };
  EXPECT_EQ(Measure(options).status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(asked, 3);
}

TEST(TransferBenchTest, APeerThatIsGoneIsAnError) {
  const TransferBenchOptions options = SmallOptions(TransportKind::kInproc);
  auto peer = *TransferPeer::Start(options);
  const auto bench = TransferBench::Connect(options, peer->address(), peer->slab());
  ASSERT_TRUE(bench.ok()) << bench.status();
  peer.reset();
  EXPECT_EQ((*bench)->Measure().status().code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace baton::bench
