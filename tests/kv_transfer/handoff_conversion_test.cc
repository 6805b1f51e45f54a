// Handoffs between services whose KV layouts differ, over every transport of this program.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/reference/kv_vector.h"
#include "tests/kv_transfer/handoff_harness.h"

namespace baton::kv_transfer {
namespace {

using kernels::KvDType;
using kernels::KvLayout;
using kernels::KvSide;
using ::testing::HasSubstr;

// A prompt's blocks in one worker's slab.
struct Prompt {
  const KvLayout& layout() const { return worker.options.layout; }
  // One head's keys or values in the token's block of `slab`.
  std::byte* Head(std::span<std::byte> slab, KvSide side, int32_t layer, int32_t head,
                  int32_t token) const {
    const int64_t block = blocks[static_cast<size_t>(token / layout().block_tokens)];
    return slab.data() + block * layout().block_bytes() +
           (side == KvSide::kKey ? layout().key_offset(layer, head)
                                 : layout().value_offset(layer, head));
  }
  // Calls `visit` with the place of every vector of tokens [first, tokens).
  template <typename Visit>
  void ForEachVector(int32_t first, int32_t tokens, Visit visit) const {
    for (int32_t t = first; t < tokens; ++t) {
      for (int32_t layer = 0; layer < layout().layers; ++layer) {
        for (int32_t head = 0; head < layout().kv_heads; ++head) {
          for (const KvSide side : {KvSide::kKey, KvSide::kValue}) visit(side, layer, head, t);
        }
      }
    }
  }
  const Worker& worker;
  std::vector<int32_t> blocks;
};

void Fill(const Prompt& prompt, int32_t tokens, std::mt19937_64& random) {
  std::normal_distribution<float> normal;
  std::vector<float> vector(static_cast<size_t>(prompt.layout().head_dim));
  prompt.ForEachVector(0, tokens, [&](KvSide side, int32_t layer, int32_t head, int32_t t) {
    for (float& x : vector) x = normal(random);
    StoreKvVector(prompt.layout(), side, t % prompt.layout().block_tokens, vector.data(),
                  prompt.Head(prompt.worker.service->slab(), side, layer, head, t));
  });
}

// `slab`, of the target, with tokens [first, tokens) of the source in it: one vector at a time,
// through floats.
std::vector<std::byte> Converted(const Prompt& source, const Prompt& target, int32_t first,
                                 int32_t tokens, std::vector<std::byte> slab) {
  std::vector<float> vector(static_cast<size_t>(source.layout().head_dim));
  source.ForEachVector(first, tokens, [&](KvSide side, int32_t layer, int32_t head, int32_t t) {
    LoadKvVector(source.layout(), side, t % source.layout().block_tokens,
                 source.Head(source.worker.service->slab(), side, layer, head, t), vector.data());
    StoreKvVector(target.layout(), side, t % target.layout().block_tokens, vector.data(),
                  target.Head(slab, side, layer, head, t));
  });
  return slab;
}

HandoffOptions OptionsOf(HandoffOptions options, int32_t block_tokens, KvDType dtype) {
  options.layout.block_tokens = block_tokens;
  options.layout.dtype = dtype;
  options.block_count = 16;
  return options;
}

std::vector<std::byte> SlabOf(const Worker& worker) {
  return {worker.service->slab().begin(), worker.service->slab().end()};
}

absl::Status Offer(const Prompt& source, const Worker& target, const Attempt& attempt,
                   int32_t tokens) {
  return source.worker.service->Offer(
      {.attempt = attempt, .tokens = tokens, .block_hashes = {}, .source_name = "prefill-0"},
      target.service->address(), source.blocks);
}

class HandoffConversionTest : public testing::TestWithParam<TestedTransport> {
 protected:
  // One prompt of a random length, of which the target has a random number of blocks, over.
  void MovesAPrompt(const HandoffOptions& from, const HandoffOptions& to) {
    SCOPED_TRACE(from.layout.ToString() + " to " + to.layout.ToString());
    const auto source_worker = StartTested(GetParam(), from, "prefill-0");
    const auto target_worker = StartTested(GetParam(), to, "decode-0");
    const auto tokens = static_cast<int32_t>(1 + random_() % 100);
    const int32_t target_blocks = to.layout.BlocksFor(tokens);
    const auto cached = static_cast<int32_t>(random_() % static_cast<uint64_t>(target_blocks + 1));
    SCOPED_TRACE(testing::Message() << tokens << " tokens, cached blocks: " << cached);
    const Prompt source{*source_worker, RandomBlocks(16, from.layout.BlocksFor(tokens), random_)};
    const Prompt target{*target_worker, RandomBlocks(16, target_blocks, random_)};
    Fill(source, tokens, random_);
    const auto expected =
        Converted(source, target, cached * to.layout.block_tokens, tokens, SlabOf(*target_worker));

    const Attempt attempt = MakeAttempt(1);
    ASSERT_TRUE(Offer(source, *target_worker, attempt, tokens).ok());
    const auto arrived = target_worker->events.Take<OfferArrived>(attempt);
    ASSERT_TRUE(arrived.has_value());
    EXPECT_EQ(arrived->offer.layout, from.layout);
    EXPECT_EQ(arrived->offer.tokens, tokens);
    target_worker->service->Grant(attempt, cached,
                                  {target.blocks.begin() + cached, target.blocks.end()});
    source_worker->service->BlocksReady(attempt, 1);
    source_worker->service->Commit(attempt, "first token 42");
    const auto done = target_worker->events.Take<TargetDone>(attempt);
    ASSERT_TRUE(done.has_value());
    ASSERT_TRUE(done->status.ok()) << done->status;
    EXPECT_EQ(done->commit_payload, "first token 42");
    EXPECT_EQ(done->stats.transport, GetParam().moved_by);
    EXPECT_EQ(done->stats.bytes_moved, done->stats.blocks_moved * from.layout.block_bytes());
    const int32_t begin = cached * to.layout.block_tokens / from.layout.block_tokens;
    EXPECT_EQ(done->stats.blocks_moved,
              cached == target_blocks ? 0 : from.layout.BlocksFor(tokens) - begin);
    ASSERT_TRUE(SlabOf(*target_worker) == expected);
    const auto source_done = source_worker->events.Take<SourceDone>(attempt);
    ASSERT_TRUE(source_done.has_value());
    EXPECT_TRUE(source_done->status.ok()) << source_done->status;
    EXPECT_EQ(source_done->stats.blocks_moved, done->stats.blocks_moved);
  }
  std::mt19937_64 random_{20241};
};

INSTANTIATE_TEST_SUITE_P(Transports, HandoffConversionTest, testing::ValuesIn(TestedTransports()),
                         [](const auto& tested) { return tested.param.name; });

TEST_P(HandoffConversionTest, MovesBetweenBlockSizesAndFormats) {
  constexpr std::pair<KvDType, KvDType> kFormats[] = {{KvDType::kF32, KvDType::kInt8},
                                                      {KvDType::kBF16, KvDType::kF16},
                                                      {KvDType::kInt8, KvDType::kF32},
                                                      {KvDType::kFp8, KvDType::kBF16},
                                                      {KvDType::kF16, KvDType::kFp8}};
  HandoffOptions options = SmallOptions(GetParam().kind);
  options.ucx_tls = GetParam().ucx_tls;
  size_t number = 0;
  for (const int32_t from : {8, 16, 32}) {
    for (const int32_t to : {8, 16, 32}) {
      const auto& [from_dtype, to_dtype] = kFormats[number++ % std::size(kFormats)];
      MovesAPrompt(OptionsOf(options, from, from_dtype), OptionsOf(options, to, to_dtype));
      if (from != to) {
        MovesAPrompt(OptionsOf(options, from, KvDType::kF16),
                     OptionsOf(options, to, KvDType::kF16));
      }
    }
  }
}

TEST(HandoffConversionLogTest, APairIsToldOnceWithBothLayouts) {
  const HandoffOptions base = SmallOptions(TransportKind::kInproc);
  testing::internal::CaptureStderr();
  const HandoffOptions from = OptionsOf(base, 8, KvDType::kF16);
  const HandoffOptions to = OptionsOf(base, 16, KvDType::kInt8);
  {
    const auto source_worker = StartWorker(from, "prefill-0");
    const auto target_worker = StartWorker(to, "decode-0");
    for (const uint64_t number : {1, 2}) {
      const Attempt attempt = MakeAttempt(number);
      ASSERT_TRUE(Offer({*source_worker, {1}}, *target_worker, attempt, 8).ok());
      ASSERT_TRUE(target_worker->events.Take<OfferArrived>(attempt).has_value());
    }
  }
  const std::string log = testing::internal::GetCapturedStderr();
  const std::string line = "decode-0: KV from 'prefill-0' is converted: its layout is '" +
                           from.layout.ToString() + "', ours is '" + to.layout.ToString() + "'";
  const size_t told = log.find(line);
  EXPECT_NE(told, std::string::npos) << log;
  EXPECT_EQ(log.find(line, told + 1), std::string::npos) << log;
}

// Two source blocks make one target block. What is not the source's is not converted.
TEST(HandoffConversionFaultTest, DamagedBytesEndTheTransferUnconverted) {
  for (const bool pulled : {true, false}) {
    SCOPED_TRACE(pulled ? "pulled" : "mapped");
    const HandoffOptions base =
        SmallOptions(pulled ? TransportKind::kAuto : TransportKind::kInproc);
    const auto source_worker =
        StartFaultyWorker(OptionsOf(base, 8, KvDType::kF16), "prefill-0", {});
    Faults faults;
    faults.refuse_mapping = pulled;
    faults.on_data = [](std::string& data) { data[data.size() / 3] ^= 4; };
    faults.on_read = [](std::span<std::byte> bytes) { bytes[bytes.size() / 3] ^= std::byte{4}; };
    const auto target_worker =
        StartFaultyWorker(OptionsOf(base, 16, KvDType::kF32), "decode-0", std::move(faults));
    const Prompt source{*source_worker, {3, 5}};
    std::mt19937_64 random(7);
    Fill(source, 16, random);
    std::ranges::fill(target_worker->service->slab(), std::byte{0x5a});
    const std::vector<std::byte> before = SlabOf(*target_worker);
    const Attempt attempt = MakeAttempt(1);
    ASSERT_TRUE(Offer(source, *target_worker, attempt, 16).ok());
    ASSERT_TRUE(target_worker->events.Take<OfferArrived>(attempt).has_value());
    target_worker->service->Grant(attempt, 0, {9});
    source_worker->service->Commit(attempt, "");
    const auto done = target_worker->events.Take<TargetDone>(attempt);
    ASSERT_TRUE(done.has_value());
    EXPECT_EQ(done->status.code(), absl::StatusCode::kDataLoss) << done->status;
    EXPECT_THAT(done->status.ToString(), HasSubstr("of 2 came with checksum"));
    EXPECT_TRUE(SlabOf(*target_worker) == before);
  }
}

TEST(HandoffConversionFaultTest, AGrantOfTheWrongNumberOfBlocksIsRefused) {
  const HandoffOptions base = SmallOptions(TransportKind::kInproc);
  const auto source_worker = StartWorker(OptionsOf(base, 32, KvDType::kF16), "prefill-0");
  const auto target_worker = StartWorker(OptionsOf(base, 8, KvDType::kF16), "decode-0");
  uint64_t number = 0;
  // 33 tokens are 2 blocks of 32 and 5 of 8.
  const std::vector<int32_t> wrong[] = {{1, 2}, {1, 2, 3, 4}, {1, 2, 3, 4, 5, 6}, {1, 2, 3, 4, 16}};
  for (const std::vector<int32_t>& blocks : wrong) {
    const Attempt attempt = MakeAttempt(++number);
    ASSERT_TRUE(Offer({*source_worker, {1, 2}}, *target_worker, attempt, 33).ok());
    ASSERT_TRUE(target_worker->events.Take<OfferArrived>(attempt).has_value());
    target_worker->service->Grant(attempt, 0, blocks);
    const auto done = target_worker->events.Take<TargetDone>(attempt);
    ASSERT_TRUE(done.has_value());
    EXPECT_EQ(done->status.code(), absl::StatusCode::kInvalidArgument) << done->status;
    EXPECT_FALSE(source_worker->events.Take<SourceDone>(attempt)->status.ok());
  }
}

}  // namespace
}  // namespace baton::kv_transfer
