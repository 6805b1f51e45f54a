#include "kv_transfer/handoff.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <set>
#include <thread>

#include "tests/kv_transfer/handoff_harness.h"

namespace baton::kv_transfer {
namespace {

using ::testing::HasSubstr;

class HandoffServiceTest : public testing::TestWithParam<TestedTransport> {
 protected:
  void SetUp() override {
    options_ = SmallOptions(GetParam().kind);
    options_.ucx_tls = GetParam().ucx_tls;
    source_ = Start(options_, "prefill-0");
    target_ = Start(options_, "decode-0");
  }
  static std::unique_ptr<Worker> Start(const HandoffOptions& options, const std::string& name) {
    return StartTested(GetParam(), options, name);
  }
  // Waits until neither side knows of a transfer.
  void ExpectIdle() {
    const TimePoint give_up = SystemClock().Now() + kPatience;
    while (source_->service->active_transfers() + target_->service->active_transfers() > 0 &&
           SystemClock().Now() < give_up) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    EXPECT_EQ(source_->service->active_transfers(), 0u);
    EXPECT_EQ(target_->service->active_transfers(), 0u);
    EXPECT_EQ(source_->events.size(), 0u);
    EXPECT_EQ(target_->events.size(), 0u);
  }

  absl::Status Offer(const Attempt& attempt, const std::vector<int32_t>& blocks) {
    return source_->service->Offer(
        MakeOffer(options_, attempt, static_cast<int32_t>(blocks.size())),
        target_->service->address(), blocks);
  }

  // Hands `from` over to blocks [0, 10) of the target, all at once, and checks that both sides end
  // alike.
  SourceDone HandOver(const OfferInfo& offer, const std::vector<int32_t>& from) {
    EXPECT_TRUE(source_->service->Offer(offer, target_->service->address(), from).ok());
    source_->service->Commit(offer.attempt, "");
    EXPECT_TRUE(target_->events.Take<OfferArrived>(offer.attempt).has_value());
    std::vector<int32_t> to(from.size());
    std::iota(to.begin(), to.end(), 0);
    target_->service->Grant(offer.attempt, 0, to);
    const auto target_done = target_->events.Take<TargetDone>(offer.attempt);
    const auto source_done = source_->events.Take<SourceDone>(offer.attempt);
    EXPECT_EQ(target_done.value().status.code(), source_done.value().status.code());
    return *source_done;
  }

  HandoffOptions options_;
  std::unique_ptr<Worker> source_, target_;
};

INSTANTIATE_TEST_SUITE_P(Transports, HandoffServiceTest, testing::ValuesIn(TestedTransports()),
                         [](const auto& tested) { return tested.param.name; });

TEST_P(HandoffServiceTest, MovesShuffledBlocksWhileTheyAreBeingComputed) {
  std::mt19937_64 random(7);
  const auto from = RandomBlocks(options_.block_count, 40, random);
  const auto to = RandomBlocks(options_.block_count, 40, random);
  const Attempt attempt = MakeAttempt(1);
  ASSERT_TRUE(Offer(attempt, from).ok());
  const auto arrived = target_->events.Take<OfferArrived>(attempt);
  ASSERT_TRUE(arrived.has_value());
  EXPECT_EQ(arrived->offer.tokens, 40 * 16 - 3);
  EXPECT_EQ(arrived->offer.block_hashes.size(), 39u);
  EXPECT_EQ(arrived->offer.source_name, "prefill-0");
  target_->service->Grant(attempt, 0, to);
  for (int32_t i = 0; i < 40; ++i) {
    source_->Fill(from[static_cast<size_t>(i)], 1, i);
    source_->service->BlocksReady(attempt, i + 1);
  }
  source_->service->Commit(attempt, "first token 42");
  const auto target_done = target_->events.Take<TargetDone>(attempt);
  ASSERT_TRUE(target_done.has_value());
  ASSERT_TRUE(target_done->status.ok()) << target_done->status;
  EXPECT_EQ(target_done->commit_payload, "first token 42");
  EXPECT_EQ(target_done->stats.blocks_moved, 40);
  EXPECT_EQ(target_done->stats.bytes_moved, 40 * options_.layout.block_bytes());
  EXPECT_EQ(target_done->stats.peer_name, "prefill-0");
  for (int32_t i = 0; i < 40; ++i)
    EXPECT_TRUE(target_->Holds(to[static_cast<size_t>(i)], 1, i)) << i;
  const auto source_done = source_->events.Take<SourceDone>(attempt);
  ASSERT_TRUE(source_done.has_value());
  EXPECT_TRUE(source_done->status.ok()) << source_done->status;
  EXPECT_EQ(source_done->stats.blocks_moved, 40);
  EXPECT_EQ(source_done->stats.peer_name, "decode-0");
  EXPECT_EQ(source_done->stats.transport, target_done->stats.transport);
  ExpectIdle();
}

TEST_P(HandoffServiceTest, NamesTheWayTheBytesWent) {
  const Attempt attempt = MakeAttempt(2);
  ASSERT_TRUE(Offer(attempt, {1, 2}).ok());
  ASSERT_TRUE(target_->events.Take<OfferArrived>(attempt).has_value());
  target_->service->Grant(attempt, 0, {5, 4});
  source_->service->Commit(attempt, "");
  const auto done = target_->events.Take<TargetDone>(attempt);
  ASSERT_TRUE(done.has_value());
  EXPECT_EQ(done->stats.transport, GetParam().moved_by);
}

TEST_P(HandoffServiceTest, MeasuresThePathFromAPeerOnce) {
  EXPECT_TRUE(target_->service->paths().empty());
  for (uint64_t number = 1; number <= 3; ++number) {
    const Attempt attempt = MakeAttempt(number);
    ASSERT_TRUE(Offer(attempt, {1, 2}).ok());
    ASSERT_TRUE(target_->events.Take<OfferArrived>(attempt).has_value());
    target_->service->Grant(attempt, 0, {5, 4});
    source_->service->Commit(attempt, "");
    ASSERT_TRUE(target_->events.Take<TargetDone>(attempt).has_value());
    ASSERT_TRUE(source_->events.Take<SourceDone>(attempt).has_value());
    const TimePoint give_up = SystemClock().Now() + kPatience;
    // Where there is a choice, both ways are measured, and one is taken.
    const bool choice = options_.transport == TransportKind::kAuto && !GetParam().inproc_pull;
    const size_t ways = choice ? 2 : 1;
    while (target_->service->paths().size() < ways && SystemClock().Now() < give_up) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    const std::vector<MeasuredPath> paths = target_->service->paths();
    ASSERT_EQ(paths.size(), ways);
    for (const MeasuredPath& path : paths) {
      EXPECT_EQ(path.peer_name, "prefill-0");
      EXPECT_EQ(path.in_use, path.transport == GetParam().moved_by) << path.transport;
      EXPECT_GT(path.gb_per_s, 0);
      EXPECT_GT(path.expected_gb_per_s, 0);
    }
  }
  EXPECT_TRUE(source_->service->paths().empty()) << "it has read from nobody";
}

TEST_P(HandoffServiceTest, FullBlocksThatAreHandedOverAgainAreNotReadAgainForTheirChecksums) {
  const int64_t block_bytes = options_.layout.block_bytes();
  std::mt19937_64 random(9);
  const auto from = RandomBlocks(options_.block_count, 10, random);
  source_->FillAll(from, 5);
  OfferInfo offer = MakeOffer(options_, MakeAttempt(1), 10);
  EXPECT_EQ(HandOver(offer, from).stats.bytes_hashed, 10 * block_bytes);
  offer.attempt = MakeAttempt(2);
  const SourceDone again = HandOver(offer, from);
  EXPECT_TRUE(again.status.ok()) << again.status;
  EXPECT_EQ(again.stats.bytes_hashed, block_bytes) << "only the last, which is not full";
  EXPECT_EQ(again.stats.blocks_moved, 10);
  for (int32_t i = 0; i < 10; ++i) EXPECT_TRUE(target_->Holds(i, 5, i)) << i;

  source_->FillAll(from, 6);  // another prompt, whose blocks have other hashes
  const SourceDone other = HandOver(MakeOffer(options_, MakeAttempt(3), 10), from);
  EXPECT_TRUE(other.status.ok()) << other.status;
  EXPECT_EQ(other.stats.bytes_hashed, 10 * block_bytes);
  for (int32_t i = 0; i < 10; ++i) EXPECT_TRUE(target_->Holds(i, 6, i)) << i;
}

// Nothing but a bug or broken memory changes a block under its name. It is found, and cannot make a
// prefix fail for ever.
TEST_P(HandoffServiceTest, AStaleChecksumFailsOneAttemptAndIsForgotten) {
  const std::vector<int32_t> from = {3, 1, 4};
  source_->FillAll(from, 5);
  OfferInfo offer = MakeOffer(options_, MakeAttempt(1), 3);
  EXPECT_TRUE(HandOver(offer, from).status.ok());
  source_->FillAll(from, 6);
  offer.attempt = MakeAttempt(2);
  EXPECT_EQ(HandOver(offer, from).status.code(), absl::StatusCode::kDataLoss);
  offer.attempt = MakeAttempt(3);
  const SourceDone done = HandOver(offer, from);
  EXPECT_TRUE(done.status.ok()) << done.status;
  EXPECT_EQ(done.stats.bytes_hashed, 3 * options_.layout.block_bytes());
}

// Layer by layer, in chunks of ten blocks; the upper layers are written only after the target has
// the lower ones.
TEST_P(HandoffServiceTest, MovesTheLowerLayersWhileTheUpperAreBeingComputed) {
  ASSERT_EQ(SlicesOf(options_.layout, options_.least_slice_bytes), 2);
  std::mt19937_64 random(11);
  const auto from = RandomBlocks(options_.block_count, 30, random);
  const auto to = RandomBlocks(options_.block_count, 25, random);
  const Attempt attempt = MakeAttempt(1);
  ASSERT_TRUE(Offer(attempt, from).ok());
  ASSERT_TRUE(target_->events.Take<OfferArrived>(attempt).has_value());
  target_->service->Grant(attempt, 5, to);
  const auto half = static_cast<int64_t>(options_.layout.layer_bytes());
  for (int32_t chunk = 0; chunk < 3; ++chunk) {
    std::vector<std::vector<std::byte>> upper;
    for (int32_t i = 10 * chunk; i < 10 * (chunk + 1); ++i) {
      const int32_t block = from[static_cast<size_t>(i)];
      source_->Fill(block, 4, i);
      const auto bytes = source_->Block(block);
      upper.emplace_back(bytes.begin() + half, bytes.end());
      std::fill(bytes.begin() + half, bytes.end(), std::byte{0});
    }
    source_->service->LayersReady(attempt, 10 * (chunk + 1), 1);
    const int32_t last = 10 * chunk + 9;
    const auto landed =
        target_->Block(to[static_cast<size_t>(last - 5)]).first(static_cast<size_t>(half));
    const auto lower =
        source_->Block(from[static_cast<size_t>(last)]).first(static_cast<size_t>(half));
    const TimePoint give_up = SystemClock().Now() + kPatience;
    while (!std::ranges::equal(landed, lower) && SystemClock().Now() < give_up) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    EXPECT_TRUE(std::ranges::equal(landed, lower)) << "the lower layers did not go ahead";
    for (int32_t i = 0; i < 10; ++i) {
      const auto place = static_cast<size_t>(10 * chunk + i);
      std::ranges::copy(upper[static_cast<size_t>(i)], source_->Block(from[place]).begin() + half);
    }
    source_->service->BlocksReady(attempt, 10 * (chunk + 1));
  }
  source_->service->Commit(attempt, "");
  const auto done = target_->events.Take<TargetDone>(attempt);
  ASSERT_TRUE(done.has_value());
  ASSERT_TRUE(done->status.ok()) << done->status;
  EXPECT_EQ(done->stats.blocks_moved, 25);
  EXPECT_EQ(done->stats.bytes_moved, 25 * options_.layout.block_bytes());
  for (int32_t i = 5; i < 30; ++i) {
    EXPECT_TRUE(target_->Holds(to[static_cast<size_t>(i - 5)], 4, i)) << i;
  }
  EXPECT_TRUE(source_->events.Take<SourceDone>(attempt)->status.ok());
  ExpectIdle();
}

TEST(SlicesTest, OfASlabHaveNumbers) {
  HandoffOptions options = SmallOptions(TransportKind::kInproc);
  options.block_count = INT32_MAX / kMaxSlices + 1;
  EXPECT_EQ(
      HandoffService::Create(options, "too-large", [](const HandoffEvent&) {}).status().code(),
      absl::StatusCode::kInvalidArgument);
}

TEST(SlicesTest, FollowTheBytesOfABlockAndDivideItsLayers) {
  kernels::KvLayout layout{.layers = 30,
                           .kv_heads = 3,
                           .head_dim = 64,
                           .block_tokens = 16,
                           .dtype = kernels::KvDType::kF16};
  EXPECT_EQ(SlicesOf(layout, 64 << 10), 5);  // of 72 KiB
  EXPECT_EQ(SlicesOf(layout, 100 << 10), 3);
  EXPECT_EQ(SlicesOf(layout, 1 << 20), 1);
  EXPECT_EQ(SlicesOf(layout, 1), 6) << "7 and 8 do not divide 30";
  layout.layers = 32;
  layout.kv_heads = 8;
  EXPECT_EQ(SlicesOf(layout, 1), kMaxSlices);
  layout.layers = 23;
  EXPECT_EQ(SlicesOf(layout, 1), 1);
}

TEST_P(HandoffServiceTest, SendsOnlyTheBlocksThatAreWanted) {
  std::mt19937_64 random(8);
  const auto from = RandomBlocks(options_.block_count, 10, random);
  source_->FillAll(from, 3);
  for (const int32_t first_wanted : {7, 10}) {
    const Attempt attempt = MakeAttempt(static_cast<uint64_t>(first_wanted));
    ASSERT_TRUE(Offer(attempt, from).ok());
    ASSERT_TRUE(target_->events.Take<OfferArrived>(attempt).has_value());
    const auto to = RandomBlocks(options_.block_count, 10 - first_wanted, random);
    target_->service->Grant(attempt, first_wanted, to);
    source_->service->Commit(attempt, "payload");
    const auto done = target_->events.Take<TargetDone>(attempt);
    ASSERT_TRUE(done.has_value());
    EXPECT_TRUE(done->status.ok()) << done->status;
    EXPECT_EQ(done->commit_payload, "payload");
    EXPECT_EQ(done->stats.blocks_moved, 10 - first_wanted);
    for (size_t i = 0; i < to.size(); ++i) {
      EXPECT_TRUE(target_->Holds(to[i], 3, first_wanted + static_cast<int32_t>(i)));
    }
    const auto source_done = source_->events.Take<SourceDone>(attempt);
    ASSERT_TRUE(source_done.has_value());
    EXPECT_TRUE(source_done->status.ok()) << source_done->status;
    EXPECT_EQ(source_done->stats.blocks_moved, 10 - first_wanted);
  }
  ExpectIdle();
}

TEST_P(HandoffServiceTest, TellsTheSourceWhyItWasRefused) {
  const Attempt attempt = MakeAttempt(4);
  ASSERT_TRUE(Offer(attempt, {1}).ok());
  ASSERT_TRUE(target_->events.Take<OfferArrived>(attempt).has_value());
  target_->service->Refuse(attempt, absl::ResourceExhaustedError("no blocks for 13 tokens"));
  const auto done = source_->events.Take<SourceDone>(attempt);
  ASSERT_TRUE(done.has_value());
  EXPECT_EQ(done->status, absl::ResourceExhaustedError("no blocks for 13 tokens"));
  ExpectIdle();
}

// Each way to give up, at each step of a transfer, ends it once on each side that waits for an end.
TEST_P(HandoffServiceTest, CancelledAtAnyStepEndsOnceOnEachSide) {
  enum Step { kOffered, kArrived, kGranted, kHalfReady };
  uint64_t number = 100;
  for (const bool by_source : {true, false}) {
    for (const Step step : {kOffered, kArrived, kGranted, kHalfReady}) {
      SCOPED_TRACE(testing::Message() << "by_source " << by_source << " at step " << step);
      if (!by_source && step == kOffered) continue;  // the target knows of nothing yet
      const Attempt attempt = MakeAttempt(++number);
      ASSERT_TRUE(Offer(attempt, {1, 2, 3, 4}).ok());
      if (step >= kArrived) {
        ASSERT_TRUE(target_->events.Take<OfferArrived>(attempt).has_value());
      }
      if (step >= kGranted) target_->service->Grant(attempt, 0, {9, 8, 7, 6});
      if (step >= kHalfReady) source_->service->BlocksReady(attempt, 2);
      if (by_source) {
        source_->service->CancelSource(attempt, absl::AbortedError("the client went away"));
      } else {
        target_->service->CancelTarget(attempt);
      }
      const auto source_done = source_->events.Take<SourceDone>(attempt);
      ASSERT_TRUE(source_done.has_value());
      EXPECT_EQ(source_done->status.code(),
                by_source ? absl::StatusCode::kAborted : absl::StatusCode::kCancelled)
          << source_done->status;
      if (step == kOffered) {
        // Its offer may or may not have been given to the worker before the cancel came.
        target_->events.Take<OfferArrived>(attempt, std::chrono::milliseconds(1));
      }
      if (step < kGranted) {
        // A grant that comes too late is answered, too.
        target_->service->Grant(attempt, 0, {9, 8, 7, 6});
      }
      const auto target_done = target_->events.Take<TargetDone>(attempt);
      ASSERT_TRUE(target_done.has_value());
      EXPECT_FALSE(target_done->status.ok());
      EXPECT_EQ(target_done->commit_payload, "");
      ExpectIdle();
    }
  }
}

TEST_P(HandoffServiceTest, AnOlderEpochIsNotTakenAndANewerOneEndsTheOlder) {
  const Attempt first = MakeAttempt(5, 1), second = MakeAttempt(5, 2);
  ASSERT_TRUE(Offer(first, {1}).ok());
  ASSERT_TRUE(target_->events.Take<OfferArrived>(first).has_value());
  target_->service->Grant(first, 0, {3});
  ASSERT_TRUE(Offer(second, {2}).ok());
  ASSERT_TRUE(target_->events.Take<OfferArrived>(second).has_value());
  const auto superseded = target_->events.Take<TargetDone>(first);
  ASSERT_TRUE(superseded.has_value());
  EXPECT_THAT(superseded->status.ToString(), HasSubstr("epoch 2 of this request has begun"));
  EXPECT_EQ(source_->events.Take<SourceDone>(first)->status.code(), absl::StatusCode::kAborted);
  // The first once more: fenced off, and its source told.
  ASSERT_TRUE(Offer(first, {1}).ok());
  EXPECT_EQ(source_->events.Take<SourceDone>(first)->status.code(), absl::StatusCode::kAborted);
  target_->service->Grant(second, 0, {4});
  source_->service->Commit(second, "");
  EXPECT_TRUE(target_->events.Take<TargetDone>(second)->status.ok());
  EXPECT_TRUE(source_->events.Take<SourceDone>(second)->status.ok());
  ExpectIdle();
}

TEST_P(HandoffServiceTest, TwoHundredTransfersAtOnce) {
  constexpr uint64_t kTransfers = 200;
  std::mt19937_64 random(9);
  std::vector<std::vector<int32_t>> from(kTransfers), to(kTransfers);
  for (int32_t block = 0; block < options_.block_count; ++block) source_->Fill(block, 1, block);
  // Sources share blocks, as a cached prefix would; targets have one block each.
  const auto target_blocks = RandomBlocks(options_.block_count, kTransfers, random);
  for (uint64_t i = 0; i < kTransfers; ++i) {
    from[i] = RandomBlocks(options_.block_count, 3, random);
    ASSERT_TRUE(Offer(MakeAttempt(1000 + i), from[i]).ok());
  }
  for (uint64_t i = 0; i < kTransfers; ++i) {
    const Attempt attempt = MakeAttempt(1000 + i);
    ASSERT_TRUE(target_->events.Take<OfferArrived>(attempt).has_value());
    target_->service->Grant(attempt, 2, {target_blocks[i]});
    source_->service->BlocksReady(attempt, 2);
    source_->service->Commit(attempt, std::to_string(i));
  }
  for (uint64_t i = 0; i < kTransfers; ++i) {
    const auto done = target_->events.Take<TargetDone>(MakeAttempt(1000 + i));
    ASSERT_TRUE(done.has_value());
    EXPECT_TRUE(done->status.ok()) << done->status;
    EXPECT_EQ(done->commit_payload, std::to_string(i));
    EXPECT_TRUE(target_->Holds(target_blocks[i], 1, from[i][2]));
    EXPECT_TRUE(source_->events.Take<SourceDone>(MakeAttempt(1000 + i))->status.ok());
  }
  ExpectIdle();
}

TEST_P(HandoffServiceTest, ALongTransferOfEveryBlock) {
  std::mt19937_64 random(10);
  const auto from = RandomBlocks(options_.block_count, options_.block_count, random);
  const auto to = RandomBlocks(options_.block_count, options_.block_count, random);
  source_->FillAll(from, 6);
  const Attempt attempt = MakeAttempt(6);
  ASSERT_TRUE(Offer(attempt, from).ok());
  source_->service->Commit(attempt, std::string(64 << 10, 'x'));  // long before the Grant
  ASSERT_TRUE(target_->events.Take<OfferArrived>(attempt).has_value());
  target_->service->Grant(attempt, 0, to);
  const auto done = target_->events.Take<TargetDone>(attempt);
  ASSERT_TRUE(done.has_value());
  ASSERT_TRUE(done->status.ok()) << done->status;
  EXPECT_EQ(done->commit_payload.size(), 64u << 10);
  for (size_t i = 0; i < to.size(); ++i)
    EXPECT_TRUE(target_->Holds(to[i], 6, static_cast<int32_t>(i)));
  EXPECT_TRUE(source_->events.Take<SourceDone>(attempt)->status.ok());
  ExpectIdle();
}

TEST_P(HandoffServiceTest, RefusesWhatDoesNotFit) {
  const std::string address = target_->service->address();
  EXPECT_LE(address.size(), 8u << 10);
  HandoffService& source = *source_->service;
  const OfferInfo offer = MakeOffer(options_, MakeAttempt(20), 2);
  EXPECT_THAT(source.Offer(offer, address, {1}).ToString(), HasSubstr("2 blocks are needed"));
  EXPECT_THAT(source.Offer(offer, address, {1, 256}).ToString(),
              HasSubstr("block 256 of a slab of 256"));
  EXPECT_THAT(source.Offer(offer, address, {1, -1}).ToString(), HasSubstr("block -1"));
  EXPECT_THAT(source.Offer(offer, "nonsense", {1, 2}).ToString(),
              HasSubstr("not a handoff address"));
  EXPECT_THAT(source.Offer(offer, source.address(), {1, 2}).ToString(), HasSubstr("itself"));
  std::string damaged = address;
  damaged[damaged.size() / 2] ^= 1;
  EXPECT_FALSE(source.Offer(offer, damaged, {1, 2}).ok());

  ASSERT_TRUE(source.Offer(offer, address, {1, 2}).ok());
  EXPECT_EQ(source.Offer(offer, address, {1, 2}).code(), absl::StatusCode::kAlreadyExists);
  ASSERT_TRUE(target_->events.Take<OfferArrived>(offer.attempt).has_value());
  target_->service->Grant(offer.attempt, 0, {1, 999});  // not a block of this slab
  EXPECT_EQ(target_->events.Take<TargetDone>(offer.attempt)->status.code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(source_->events.Take<SourceDone>(offer.attempt)->status.ok());
  ExpectIdle();
}

TEST_P(HandoffServiceTest, NamesBothSidesWhenTheirBlocksDiffer) {
  HandoffOptions other = options_;
  other.model_fingerprint = "another model";
  auto stranger = Start(other, "decode-7");
  const OfferInfo offer = MakeOffer(options_, MakeAttempt(21), 1);
  EXPECT_THAT(source_->service->Offer(offer, stranger->service->address(), {1}).ToString(),
              testing::AllOf(HasSubstr("a test's model"), HasSubstr("another model"),
                             HasSubstr("decode-7")));
  const auto refusal = [&](const kernels::KvLayout& layout) {
    other = options_;
    other.layout = layout;
    stranger = Start(other, "decode-8");
    return source_->service->Offer(offer, stranger->service->address(), {1}).ToString();
  };
  EXPECT_THAT(refusal({3, 2, 64, 16, kernels::KvDType::kF16}),
              HasSubstr("KV layout 'layers=2 kv_heads=2 head_dim=64 block_tokens=16 dtype=F16 "
                        "order=2' here, 'layers=3 kv_heads=2 head_dim=64 block_tokens=16 dtype=F16 "
                        "order=2' there"));
  EXPECT_THAT(refusal({2, 1, 64, 16, kernels::KvDType::kF16}), HasSubstr("kv_heads=1"));
  EXPECT_THAT(refusal({2, 2, 32, 16, kernels::KvDType::kF16}), HasSubstr("head_dim=32"));
  EXPECT_THAT(refusal({2, 2, 64, 4, kernels::KvDType::kF16}), HasSubstr("block_tokens=4"));
}

TEST_P(HandoffServiceTest, MovesBlocksOfEveryKvFormatBitForBit) {
  uint64_t number = 50;
  for (const kernels::KvDType dtype : kernels::kKvDTypes) {
    for (const int32_t block_tokens : {8, 16, 32}) {
      SCOPED_TRACE(testing::Message() << kernels::Traits(dtype).name << " " << block_tokens);
      HandoffOptions options = options_;
      options.layout.dtype = dtype;
      options.layout.block_tokens = block_tokens;
      options.block_count = 8;
      const auto source = Start(options, "prefill-f");
      const auto target = Start(options, "decode-f");
      const Attempt attempt = MakeAttempt(++number);
      const std::vector<int32_t> from = {6, 1, 3};
      const std::vector<int32_t> to = {0, 7, 2};
      source->FillAll(from, number);
      ASSERT_TRUE(
          source->service->Offer(MakeOffer(options, attempt, 3), target->service->address(), from)
              .ok());
      ASSERT_TRUE(target->events.Take<OfferArrived>(attempt).has_value());
      target->service->Grant(attempt, 0, to);
      source->service->BlocksReady(attempt, 3);
      source->service->Commit(attempt, "");
      const auto done = target->events.Take<TargetDone>(attempt);
      ASSERT_TRUE(done.has_value());
      ASSERT_TRUE(done->status.ok()) << done->status;
      EXPECT_EQ(done->stats.bytes_moved, 3 * options.layout.block_bytes());
      for (int32_t i = 0; i < 3; ++i) EXPECT_TRUE(target->Holds(to[i], number, i)) << i;
    }
  }
}

TEST_P(HandoffServiceTest, BoundsTheNumberOfTransfers) {
  HandoffOptions few = options_;
  few.max_transfers = 2;
  auto narrow_source = Start(few, "prefill-1");
  const auto offer_from = [&](Worker& worker, uint64_t number) {
    return worker.service->Offer(MakeOffer(options_, MakeAttempt(number), 1),
                                 target_->service->address(), {0});
  };
  ASSERT_TRUE(offer_from(*narrow_source, 30).ok());
  ASSERT_TRUE(offer_from(*narrow_source, 31).ok());
  EXPECT_EQ(offer_from(*narrow_source, 32).code(), absl::StatusCode::kResourceExhausted);

  auto narrow_target = Start(few, "decode-1");
  for (uint64_t number = 40; number < 43; ++number) {
    ASSERT_TRUE(source_->service
                    ->Offer(MakeOffer(options_, MakeAttempt(number), 1),
                            narrow_target->service->address(), {0})
                    .ok());
  }
  const auto refused = source_->events.Take<SourceDone>(MakeAttempt(42));
  ASSERT_TRUE(refused.has_value());
  EXPECT_EQ(refused->status.code(), absl::StatusCode::kResourceExhausted) << refused->status;
}

TEST_P(HandoffServiceTest, AServiceThatEndsTellsItsPeersAndItsWorker) {
  const Attempt attempt = MakeAttempt(50), waiting = MakeAttempt(51);
  ASSERT_TRUE(Offer(attempt, {1, 2}).ok());
  ASSERT_TRUE(Offer(waiting, {1, 2}).ok());
  ASSERT_TRUE(target_->events.Take<OfferArrived>(attempt).has_value());
  ASSERT_TRUE(target_->events.Take<OfferArrived>(waiting).has_value());
  target_->service->Grant(attempt, 0, {3, 4});
  source_->service->BlocksReady(attempt, 1);
  target_->service.reset();
  const auto target_done = target_->events.Take<TargetDone>(attempt, Duration{});
  ASSERT_TRUE(target_done.has_value());
  EXPECT_EQ(target_done->status.code(), absl::StatusCode::kCancelled);
  EXPECT_FALSE(source_->events.Take<SourceDone>(attempt)->status.ok());
  EXPECT_FALSE(source_->events.Take<SourceDone>(waiting)->status.ok());
  EXPECT_EQ(source_->service->active_transfers(), 0u);

  // A new incarnation under the same name can be reached by the same source.
  target_ = Start(options_, "decode-0");
  const Attempt again = MakeAttempt(50, 2);
  ASSERT_TRUE(Offer(again, {1, 2}).ok());
  ASSERT_TRUE(target_->events.Take<OfferArrived>(again).has_value());
  target_->service->Grant(again, 0, {3, 4});
  source_->service->BlocksReady(again, 1);
  source_->service.reset();
  const auto source_done = source_->events.Take<SourceDone>(again, Duration{});
  ASSERT_TRUE(source_done.has_value());
  EXPECT_EQ(source_done->status.code(), absl::StatusCode::kCancelled);
  EXPECT_FALSE(target_->events.Take<TargetDone>(again)->status.ok());
}

TEST_P(HandoffServiceTest, AnOfferThatNobodyAnswersEndsAtItsDeadline) {
  HandoffOptions hasty = options_;
  hasty.offer_timeout = std::chrono::milliseconds(50);
  auto source = Start(hasty, "prefill-2");
  const Attempt attempt = MakeAttempt(60);
  ASSERT_TRUE(
      source->service->Offer(MakeOffer(hasty, attempt, 1), target_->service->address(), {0}).ok());
  const auto done = source->events.Take<SourceDone>(attempt);
  ASSERT_TRUE(done.has_value());
  EXPECT_EQ(done->status.code(), absl::StatusCode::kDeadlineExceeded);
  ASSERT_TRUE(target_->events.Take<OfferArrived>(attempt).has_value());
  const TimePoint give_up = SystemClock().Now() + kPatience;
  while (target_->service->active_transfers() > 0 && SystemClock().Now() < give_up) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  target_->service->Grant(attempt, 0, {0});
  const auto late = target_->events.Take<TargetDone>(attempt);
  ASSERT_TRUE(late.has_value());
  EXPECT_THAT(late->status.ToString(), HasSubstr("no Grant within"));
}

}  // namespace
}  // namespace baton::kv_transfer
