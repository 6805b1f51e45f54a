#include "kv_transfer/nccl_transport.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <thread>

#include "kv_transfer/byte_codec.h"
#include "kv_transfer/lane_messages.h"
#include "tests/kv_transfer/handoff_harness.h"

// Over GPUs in memory (memory_gpu.h): that blocks move is proven by the tests of every transport,
// with this as one of them (transports_inproc_test.cc); here is what lanes do when things go wrong.
// NcclTest runs CUDA and NCCL themselves where there are two GPUs.
namespace baton::kv_transfer {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr LaneTimes kHastyToOpen = {.open_timeout = std::chrono::milliseconds(150)};
// But not for a lane that moves, under a sanitizer on a busy machine.
constexpr LaneTimes kHastyWithData = {.data_timeout = std::chrono::milliseconds(1500)};

// Whether it becomes true.
bool Eventually(const std::function<bool()>& holds) {
  const TimePoint give_up = SystemClock().Now() + kPatience;
  while (!holds()) {
    if (SystemClock().Now() > give_up) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

// ---- two services ----

class LaneServiceTest : public testing::Test {
 protected:
  void Start(TransportKind kind, const LaneTimes& times, int32_t target_gpu = 1) {
    options_ = SmallOptions(kind);
    source_ = StartLaneWorker(options_, "prefill-0", 0, faults_, times, /*refuse_mapping=*/true);
    target_ = StartLaneWorker(options_, "decode-0", target_gpu, faults_, times,
                              /*refuse_mapping=*/true);
  }
  void TearDown() override {
    faults_.stuck = faults_.aborts_hang = false;
    source_.reset();
    target_.reset();
    EXPECT_EQ(faults_.ends, 0) << "ends of lanes were not destroyed";
  }
  std::vector<int32_t> Blocks() const {
    std::vector<int32_t> blocks(20);
    std::iota(blocks.begin(), blocks.end(), 0);
    return blocks;
  }
  // All of the source's side of a handover of blocks 0 to 19, and that the target is asked.
  void Offer(uint64_t number) {
    const Attempt attempt = MakeAttempt(number);
    source_->FillAll(Blocks(), number);
    ASSERT_TRUE(source_->service
                    ->Offer(MakeOffer(options_, attempt, 20), target_->service->address(), Blocks())
                    .ok());
    source_->service->Commit(attempt, "");
  }
  void Grant(uint64_t number) {
    ASSERT_TRUE(target_->events.Take<OfferArrived>(MakeAttempt(number)).has_value());
    target_->service->Grant(MakeAttempt(number), 0, Blocks());
  }
  // Hands over, well, by the way of this name.
  void ExpectSuccess(uint64_t number, const std::string& way) {
    Offer(number);
    Grant(number);
    const auto done = target_->events.Take<TargetDone>(MakeAttempt(number));
    ASSERT_TRUE(done.has_value());
    EXPECT_TRUE(done->status.ok()) << done->status;
    EXPECT_EQ(done->stats.transport, way);
    for (int32_t i = 0; i < 20; ++i) EXPECT_TRUE(target_->Holds(i, number, i)) << i;
    const auto source_done = source_->events.Take<SourceDone>(MakeAttempt(number));
    EXPECT_TRUE(source_done->status.ok()) << source_done->status;
    EXPECT_EQ(source_done->stats.transport, way);
  }
  // How it ended on both sides, badly.
  std::string EndOf(uint64_t number) {
    const auto target_done = target_->events.Take<TargetDone>(MakeAttempt(number));
    const auto source_done = source_->events.Take<SourceDone>(MakeAttempt(number));
    EXPECT_TRUE(target_done.has_value() && source_done.has_value());
    EXPECT_FALSE(source_done->status.ok());
    return target_done->status.ToString();
  }

  MemoryFaults faults_;
  HandoffOptions options_;
  std::unique_ptr<Worker> source_, target_;
};

TEST_F(LaneServiceTest, TwoWorkersOnOneGpuAreRefusedWithTheReason) {
  Start(TransportKind::kNccl, {}, /*target_gpu=*/0);
  Offer(1);
  const auto done = source_->events.Take<SourceDone>(MakeAttempt(1));
  EXPECT_THAT(done->status.ToString(), HasSubstr("both workers use GPU 0 (memory, 0)"));
  EXPECT_THAT(done->status.ToString(), HasSubstr("NCCL 2.28.9 refuses"));
  EXPECT_EQ(faults_.ends, 0);
}

TEST_F(LaneServiceTest, AutoGoesOnWithoutALane) {
  Start(TransportKind::kAuto, {}, /*target_gpu=*/0);
  testing::internal::CaptureStderr();
  ExpectSuccess(1, "inproc pull");
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("both workers use GPU 0"));
  EXPECT_EQ(faults_.ends, 0);
}

TEST_F(LaneServiceTest, AutoMeasuresTheLaneAndTakesTheFasterWay) {
  Start(TransportKind::kAuto, {});
  ExpectSuccess(1, "inproc pull");  // the lane is not open yet
  ASSERT_TRUE(Eventually([&] { return target_->service->paths().size() == 2; }));
  const std::vector<MeasuredPath> paths = target_->service->paths();
  EXPECT_TRUE(paths[0].transport == "nccl" || paths[1].transport == "nccl");
  EXPECT_TRUE(paths[0].in_use);
  EXPECT_GT(paths[0].gb_per_s, paths[1].gb_per_s);
  ExpectSuccess(2, paths[0].transport);
}

TEST_F(LaneServiceTest, ALaneThatDoesNotOpenEndsWhatWaitsForIt) {
  faults_.deaf = true;
  Start(TransportKind::kNccl, kHastyToOpen);
  Offer(1);
  Grant(1);
  EXPECT_THAT(EndOf(1), HasSubstr("did not open within 0.1 s"));
  Offer(2);
  const auto done = source_->events.Take<SourceDone>(MakeAttempt(2));
  EXPECT_THAT(done->status.ToString(), HasSubstr("did not open")) << "it is not tried at once";
  EXPECT_TRUE(Eventually([&] { return faults_.ends == 0; }));
}

TEST_F(LaneServiceTest, ALaneThatStopsMovingEndsItsTransfersAndReadsTheirBlocksNoMore) {
  Start(TransportKind::kNccl, kHastyWithData);
  ExpectSuccess(1, "nccl");
  faults_.stuck = true;
  Offer(2);
  Grant(2);
  EXPECT_THAT(EndOf(2), HasSubstr("nothing moved for 1.5 s"));
  EXPECT_TRUE(Eventually([&] { return faults_.ends == 0; }));
  EXPECT_TRUE(target_->service->paths().empty()) << "a way that is not there any more";
}

TEST_F(LaneServiceTest, ABrokenLaneEndsItsTransfers) {
  Start(TransportKind::kNccl, {});
  ExpectSuccess(1, "nccl");
  faults_.stuck = true;
  Offer(2);
  Grant(2);
  ASSERT_TRUE(Eventually([&] { return target_->service->active_transfers() == 1; }));
  faults_.broken = true;
  EXPECT_THAT(EndOf(2), HasSubstr("the test broke it"));
}

TEST_F(LaneServiceTest, ADeadPeerIsNoticedAndItsLaneAborted) {
  for (const bool source_dies : {true, false}) {
    Start(TransportKind::kNccl, {});
    ExpectSuccess(1, "nccl");
    faults_.stuck = true;
    Offer(2);
    Grant(2);
    std::unique_ptr<Worker>& dying = source_dies ? source_ : target_;
    // NCCL keeps the last end for as long as it likes; nobody waits for that.
    dying.reset();
    if (source_dies) {
      const auto done = target_->events.Take<TargetDone>(MakeAttempt(2), std::chrono::seconds(2));
      ASSERT_TRUE(done.has_value());
      EXPECT_FALSE(done->status.ok());
    } else {
      const auto done = source_->events.Take<SourceDone>(MakeAttempt(2), std::chrono::seconds(2));
      ASSERT_TRUE(done.has_value());
      EXPECT_FALSE(done->status.ok());
    }
    EXPECT_TRUE(Eventually([&] { return faults_.ends == 0; }));
    faults_.stuck = false;
    source_.reset();
    target_.reset();
  }
}

// The source's send is under way when the target gives up; its blocks go to somebody else, and only
// then do the bytes come.
TEST_F(LaneServiceTest, ALateSenderFindsNobodysBlocks) {
  Start(TransportKind::kNccl, {});
  ExpectSuccess(1, "nccl");
  faults_.stuck = true;
  Offer(2);
  Grant(2);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));  // pulls are on their way
  target_->service->CancelTarget(MakeAttempt(2));
  ASSERT_FALSE(target_->events.Take<TargetDone>(MakeAttempt(2))->status.ok());
  target_->FillAll(Blocks(), 77);
  faults_.stuck = false;
  ASSERT_FALSE(source_->events.Take<SourceDone>(MakeAttempt(2))->status.ok());
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  for (int32_t i = 0; i < 20; ++i) EXPECT_TRUE(target_->Holds(i, 77, i)) << i;
  ExpectSuccess(3, "nccl");
}

// ---- two transports ----

// One of two, each stepped by the test.
class LaneSide final : private TransportEvents {
 public:
  LaneSide(int32_t gpu, MemoryFaults& faults, const LaneTimes& times)
      : incarnation_(RandomU64()),
        transport_(WithLanes(*CreateInprocTransport({.kind = TransportKind::kInproc,
                                                     .incarnation = incarnation_,
                                                     .slab_bytes = 4 << 20,
                                                     .ucx_tls = ""}),
                             std::make_unique<MemoryGpu>(gpu, faults), incarnation_, times)) {}
  void Meet(const LaneSide& other) {
    PeerAddress address{.incarnation = other.incarnation_, .name = "other"};
    other.transport_->Describe(address);
    peer_ = *transport_->Connect(address);
  }
  void Step() { transport_->Progress(*this); }
  void SendData(std::span<const std::byte> payload, uint64_t tag) {
    transport_->SendData(peer_, DataWay::kLane, "header " + std::to_string(tag), payload, tag);
  }
  void SendRaw(const LaneMessage& message) { transport_->Send(peer_, Encode(message)); }
  absl::Status OpenLane() { return transport_->OpenLane(peer_); }
  void End() { transport_.reset(); }
  uint64_t incarnation() const { return incarnation_; }

  std::vector<std::string> data;  // header and payload
  std::vector<uint64_t> sent;
  std::vector<absl::Status> lane;
  bool wants = true, peer_down = false;

 private:
  void OnMessage(std::span<const std::byte>) override {}
  bool WantsData(std::span<const std::byte>, size_t) override { return wants; }
  void OnData(std::span<const std::byte> header, std::span<const std::byte> payload) override {
    data.push_back(std::string(AsText(header)) + ": " + std::string(AsText(payload)));
  }
  void OnSent(uint64_t tag) override { sent.push_back(tag); }
  void OnPeerDown(PeerId, const absl::Status&) override { peer_down = true; }
  void OnLane(PeerId, const absl::Status& status) override { lane.push_back(status); }

  const uint64_t incarnation_;
  std::unique_ptr<Transport> transport_;
  PeerId peer_ = 0;
};

class LaneTest : public testing::Test {
 protected:
  LaneTest() {
    target_.Meet(source_);
    source_.Meet(target_);
  }
  void Open() {
    ASSERT_TRUE(target_.OpenLane().ok());
    ASSERT_TRUE(Run([this] { return !target_.lane.empty(); }));
    ASSERT_TRUE(target_.lane[0].ok()) << target_.lane[0];
    target_.lane.clear();
  }
  bool Run(const std::function<bool()>& until) {
    return Eventually([&] {
      source_.Step();
      target_.Step();
      return until();
    });
  }

  MemoryFaults faults_;
  LaneTimes times_ = {.data_timeout = std::chrono::milliseconds(300),
                      .close_wait = std::chrono::milliseconds(100)};
  LaneSide source_{0, faults_, times_}, target_{1, faults_, times_};
  uint64_t next_lane_ = 1;  // as the target counts
};

TEST_F(LaneTest, CarriesPayloadsOfAnySizeInOrder) {
  Open();
  std::mt19937_64 random(5);
  std::vector<std::string> payloads;
  for (const size_t bytes : {size_t{1}, size_t{300'000}, GpuLane::kSlotBytes, size_t{77},
                             3 * GpuLane::kSlotBytes + 3, GpuLane::kSlotBytes + 1}) {
    std::string& payload = payloads.emplace_back(bytes, '\0');
    for (char& c : payload) c = static_cast<char>(random());
  }
  for (size_t i = 0; i < payloads.size(); ++i) source_.SendData(AsBytes(payloads[i]), i);
  ASSERT_TRUE(Run([&] { return target_.data.size() == payloads.size(); }));
  for (size_t i = 0; i < payloads.size(); ++i) {
    EXPECT_EQ(target_.data[i], "header " + std::to_string(i) + ": " + payloads[i]) << i;
  }
  ASSERT_TRUE(Run([&] { return source_.sent.size() == payloads.size(); }));
  EXPECT_THAT(source_.sent, ElementsAre(0, 1, 2, 3, 4, 5));
  EXPECT_TRUE(target_.OpenLane().ok()) << "there is one";
  EXPECT_EQ(faults_.ends, 2);
}

TEST_F(LaneTest, ALaneThatLayIdleIsNotTakenForOneThatStandsStill) {
  Open();
  std::this_thread::sleep_for(times_.data_timeout + std::chrono::milliseconds(50));
  source_.SendData(AsBytes("late"), 1);
  ASSERT_TRUE(Run([&] { return !target_.data.empty() || !target_.lane.empty(); }));
  EXPECT_THAT(target_.data, ElementsAre("header 1: late"));
  EXPECT_THAT(target_.lane, IsEmpty());
}

TEST_F(LaneTest, UnwantedDataIsDroppedAndTheLaneGoesOn) {
  Open();
  const std::string large(3 * GpuLane::kSlotBytes, 'x');
  target_.wants = false;
  source_.SendData(AsBytes(large), 1);
  ASSERT_TRUE(Run([&] { return source_.sent.size() == 1; }));
  for (int i = 0; i < 20; ++i) Run([] { return true; });
  EXPECT_THAT(target_.data, IsEmpty());
  target_.wants = true;
  source_.SendData(AsBytes("small"), 2);
  ASSERT_TRUE(Run([&] { return target_.data.size() == 1; }));
  EXPECT_EQ(target_.data[0], "header 2: small");
}

// What an abort is stuck under is being read: it is told as sent only when the abort is through.
// What was not begun is told at once.
TEST_F(LaneTest, BytesAreReadUntilTheAbortIsThrough) {
  Open();
  faults_.stuck = faults_.aborts_hang = true;
  const std::string payload(4 * GpuLane::kSlotBytes, 'x');
  for (const uint64_t tag : {1, 2, 3, 4}) source_.SendData(AsBytes(payload), tag);
  for (int i = 0; i < 5; ++i) source_.Step();
  std::thread ending([&] { target_.End(); });  // its own abort hangs, too
  ASSERT_TRUE(Eventually([&] {
    source_.Step();
    return source_.peer_down;
  }));
  source_.Step();
  EXPECT_THAT(source_.sent, ElementsAre(3, 4));
  faults_.aborts_hang = false;
  ASSERT_TRUE(Eventually([&] {
    source_.Step();
    return source_.sent.size() == 4;
  }));
  ending.join();
  ASSERT_TRUE(Eventually([&] { return faults_.ends == 0; }));
  source_.SendData(AsBytes(payload), 5);
  source_.Step();
  EXPECT_EQ(source_.sent.back(), 5) << "lost, as the lane is";
}

TEST_F(LaneTest, ASecondLaneOpensAfterOneThatFailed) {
  Open();
  faults_.stuck = true;
  source_.SendData(AsBytes("lost"), 1);
  ASSERT_TRUE(Run([&] { return !target_.lane.empty() && source_.sent.size() == 1; }));
  EXPECT_FALSE(target_.lane[0].ok());
  faults_.stuck = false;
  target_.lane.clear();
  Open();
  source_.SendData(AsBytes("not lost"), 2);
  ASSERT_TRUE(Run([&] { return target_.data.size() == 1; }));
  EXPECT_EQ(target_.data[0], "header 2: not lost");
}

TEST_F(LaneTest, APieceOutOfTurnEndsTheLane) {
  const LanePart sound{.bytes = 8, .offset = 0, .payload_bytes = 8, .header = "h"};
  const LanePart rest{.bytes = 7, .offset = 1, .payload_bytes = 8, .header = ""};
  const LanePart start{.bytes = 7, .offset = 0, .payload_bytes = 8, .header = "h"};
  const std::vector<LanePiece> wrong = {{.number = 0, .parts = {sound}},
                                        {.number = 2, .parts = {sound}},
                                        {.number = 1, .parts = {rest}},
                                        {.number = 1, .parts = {start, sound}}};
  for (const LanePiece& piece : wrong) {
    Open();
    const uint64_t lane = next_lane_++;
    source_.SendRaw({source_.incarnation(), target_.incarnation(), lane, piece});
    ASSERT_TRUE(Run([&] { return !target_.lane.empty(); }));
    EXPECT_THAT(target_.lane[0].ToString(), HasSubstr("was announced when 1 were"));
    target_.lane.clear();
    ASSERT_TRUE(Run([&] { return faults_.ends == 0; }));
  }
  // Of another lane, and from another process: nobody's.
  Open();
  for (const LaneMessage& stray :
       {LaneMessage{source_.incarnation(), target_.incarnation(), 999, wrong[0]},
        LaneMessage{1, target_.incarnation(), next_lane_, wrong[0]},
        LaneMessage{source_.incarnation(), 1, next_lane_, wrong[0]}}) {
    source_.SendRaw(stray);
  }
  source_.SendData(AsBytes("fine"), 1);
  ASSERT_TRUE(Run([&] { return target_.data.size() == 1; }));
}

// ---- what they say to each other ----

TEST(LaneMessagesTest, ComeBackAsTheyWereOrAreRefused) {
  const auto around = [](auto body) {
    return LaneMessage{.sender = 1, .receiver = 2, .lane = 3, .body = std::move(body)};
  };
  const std::vector<LaneMessage> messages = {
      around(LaneOpen{.id = std::string(128, '\xFE')}),
      around(LanePiece{.number = 7,
                       .parts = {{.bytes = 5, .offset = 9, .payload_bytes = 14, .header = ""},
                                 {.bytes = 1, .offset = 0, .payload_bytes = 2, .header = "h"}}}),
      around(LaneTaken{.count = 8}), around(LaneDown{.why = "no room"})};
  for (const LaneMessage& message : messages) {
    const std::string bytes = Encode(message);
    EXPECT_TRUE(IsLaneMessage(AsBytes(bytes)));
    EXPECT_EQ(*DecodeLaneMessage(AsBytes(bytes)), message);
    for (size_t length = 0; length < bytes.size(); ++length) {
      EXPECT_FALSE(DecodeLaneMessage(AsBytes(bytes.substr(0, length))).ok());
    }
    for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
      std::string flipped = bytes;
      flipped[bit / 8] ^= static_cast<char>(1 << (bit % 8));
      EXPECT_FALSE(DecodeLaneMessage(AsBytes(flipped)).ok());
    }
  }
  constexpr uint32_t kSlot = GpuLane::kSlotBytes;
  const std::vector<std::vector<LanePart>> impossible = {
      {},
      {{.bytes = 0, .payload_bytes = 1}},
      {{.bytes = kSlot + 1, .payload_bytes = 2 * kSlot}},
      {{.bytes = kSlot, .payload_bytes = kSlot}, {.bytes = 1, .payload_bytes = 1}},
      {{.bytes = 2, .offset = 1, .payload_bytes = 2}},
      {{.bytes = 1, .offset = UINT64_MAX, .payload_bytes = 2}},
      {{.bytes = 1, .payload_bytes = kMaxLanePayloadBytes + 1}},
      std::vector<LanePart>(kMaxLaneParts + 1, {.bytes = 1, .payload_bytes = 1})};
  for (const std::vector<LanePart>& parts : impossible) {
    const std::string bytes = Encode(around(LanePiece{.number = 1, .parts = parts}));
    EXPECT_FALSE(DecodeLaneMessage(AsBytes(bytes)).ok());
  }
  EXPECT_FALSE(IsLaneMessage(AsBytes(Encode(Message{.body = TargetHeartbeat{}}))));
}

TEST(CheckLaneTest, NamesWhatStandsAgainstIt) {
  const GpuAddress ours{"boot", "0000:65:00.0", "NVIDIA H200", 0, 22'809};
  PeerAddress theirs{.name = "prefill-0", .gpu = ours};
  EXPECT_THAT(CheckLane(ours, theirs).ToString(),
              HasSubstr("both workers use GPU 0 (NVIDIA H200, 0000:65:00.0)"));
  theirs.gpu->machine = "another";
  EXPECT_TRUE(CheckLane(ours, theirs).ok());
  theirs.gpu = ours;
  theirs.gpu->bus_id = "0000:66:00.0";
  EXPECT_TRUE(CheckLane(ours, theirs).ok());
  theirs.gpu->nccl_version = 22'703;
  EXPECT_THAT(CheckLane(ours, theirs).ToString(), HasSubstr("2.28.9 here and 2.27.3 at"));
  theirs.gpu.reset();
  EXPECT_THAT(CheckLane(ours, theirs).ToString(), HasSubstr("'prefill-0' does not offer NCCL"));
  GpuAddress newer = ours;
  newer.nccl_version = 23'000;
  theirs.gpu = newer;
  EXPECT_TRUE(CheckLane(newer, theirs).ok()) << "from NCCL 2.30 on, two ranks may share a GPU";
}

// ---- CUDA and NCCL themselves ----

// A line that says why not is all that there is to see without them.
TEST(NcclTest, AGpuThatIsNotThereIsRefusedWithTheReason) {
  const absl::Status why = OpenGpu(1'000).status();
  EXPECT_THAT(
      why.ToString(),
      testing::AnyOf(HasSubstr("Baton was built without NCCL"), HasSubstr("NCCL cannot be loaded"),
                     HasSubstr("no CUDA driver is installed"), HasSubstr("it finds no GPU"),
                     HasSubstr("GPU 1000 was asked for")));
}

TEST(NcclTest, MovesBlocksBetweenTwoGpus) {
  for (const int32_t gpu : {0, 1}) {
    const absl::Status status = OpenGpu(gpu).status();
    if (!status.ok()) GTEST_SKIP() << status;
  }
  HandoffOptions options = SmallOptions(TransportKind::kNccl);
  options.layout.layers = 256;  // blocks of 2 MiB
  options.block_count = 32;
  const auto start = [&](int32_t gpu, const std::string& name) {
    options.gpu = gpu;
    return StartWorker(options, name);
  };
  const auto source = start(0, "prefill-0");
  const auto target = start(1, "decode-0");
  std::vector<int32_t> blocks(30);
  std::iota(blocks.begin(), blocks.end(), 1);
  for (uint64_t number = 1; number <= 20; ++number) {
    const Attempt attempt = MakeAttempt(number);
    source->FillAll(blocks, number);
    ASSERT_TRUE(
        source->service->Offer(MakeOffer(options, attempt, 30), target->service->address(), blocks)
            .ok());
    source->service->Commit(attempt, "");
    ASSERT_TRUE(target->events.Take<OfferArrived>(attempt).has_value());
    target->service->Grant(attempt, 0, blocks);
    const auto done = target->events.Take<TargetDone>(attempt);
    ASSERT_TRUE(done.has_value());
    ASSERT_TRUE(done->status.ok()) << done->status;
    EXPECT_EQ(done->stats.transport, "nccl");
    for (int32_t i = 0; i < 30; ++i) EXPECT_TRUE(target->Holds(i + 1, number, i)) << i;
    EXPECT_TRUE(source->events.Take<SourceDone>(attempt)->status.ok());
  }
  ASSERT_TRUE(Eventually([&] { return !target->service->paths().empty(); }));
  EXPECT_EQ(target->service->paths()[0].transport, "nccl");
}

// The source's service goes away with its sends under way.
TEST(NcclTest, APeerThatGoesIsNoticed) {
  for (const int32_t gpu : {0, 1}) {
    const absl::Status status = OpenGpu(gpu).status();
    if (!status.ok()) GTEST_SKIP() << status;
  }
  HandoffOptions options = SmallOptions(TransportKind::kNccl);
  auto source = StartWorker(options, "prefill-0");
  options.gpu = 1;
  const auto target = StartWorker(options, "decode-0");
  const Attempt attempt = MakeAttempt(1);
  ASSERT_TRUE(
      source->service->Offer(MakeOffer(options, attempt, 2), target->service->address(), {1, 2})
          .ok());
  source->service->BlocksReady(attempt, 1);
  ASSERT_TRUE(target->events.Take<OfferArrived>(attempt).has_value());
  target->service->Grant(attempt, 0, {1, 2});
  ASSERT_TRUE(Eventually([&] { return !target->service->paths().empty(); }));
  source.reset();
  EXPECT_FALSE(target->events.Take<TargetDone>(attempt).value().status.ok());
}

}  // namespace
}  // namespace baton::kv_transfer
