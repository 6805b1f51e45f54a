#include "kv_transfer/path_probe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/kv_transfer/handoff_harness.h"

namespace baton::kv_transfer {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kBlockBytes = 64 << 10;
constexpr int32_t kRuns = 64;  // so many of these blocks are asked for

// A transport in this process and its probes, with a clock that is told.
class Side final : private TransportEvents {
 public:
  Side(TransportKind kind, const std::string& name)
      : incarnation_(RandomU64()),
        transport_(*CreateInprocTransport({.kind = TransportKind::kInproc,
                                           .incarnation = incarnation_,
                                           .slab_bytes = 4 << 20,
                                           .ucx_tls = ""})),
        probes_(*transport_, kind, incarnation_, kBlockBytes) {
    address_ = {.incarnation = incarnation_,
                .name = name,
                .family = "inproc",
                .endpoint = "",
                .layout = "",
                .model_fingerprint = "",
                .block_count = 64,
                .block_bytes = kBlockBytes,
                .slab_file = std::nullopt};
  }

  // Of the side that this one talks to; with its slab where it is mapped.
  void Meet(const Side& other, bool mapped) {
    peer_.address = other.address_;
    peer_.id = *transport_->Connect(other.address_);
    if (mapped) peer_.slab = *transport_->MapSlab(other.address_);
  }
  void Start() { probes_.Start(peer_, now_); }
  // All that can be done without the other side.
  void Run() {
    for (bool busy = true; busy;) {
      busy = transport_->Progress(*this);
      busy |= probes_.Step(now_);
    }
  }
  void OpenLane() { probes_.MeasureLane(peer_.id, now_); }
  void LoseLane() { probes_.ForgetLane(peer_.id); }
  void Forget() { probes_.Remove(peer_.id); }
  void Ask(const ProbeMessage& asked) {
    transport_->Send(peer_.id, Encode({.sender = incarnation_,
                                       .receiver = peer_.address.incarnation,
                                       .attempt = {.request = {.high = 0, .low = 99}},
                                       .body = asked}));
  }
  void Pass(Duration time) { now_ += time; }
  std::optional<DataWay> FasterPull() const { return probes_.FasterPull(peer_.id); }
  std::vector<MeasuredPath> Measured() const { return probes_.Measured(); }
  int data_seen() const { return data_seen_; }
  int data_taken() const { return data_taken_; }

 private:
  void OnMessage(std::span<const std::byte> bytes) override {
    const Message message = *Decode(bytes);
    probes_.Answer(peer_, message.attempt, std::get<ProbeMessage>(message.body));
  }
  bool WantsData(std::span<const std::byte> header, size_t bytes) override {
    ++data_seen_;
    return probes_.Wants(*DecodeDataHeader(header), bytes);
  }
  void OnData(std::span<const std::byte> header, std::span<const std::byte> payload) override {
    EXPECT_TRUE(std::ranges::all_of(payload, [](std::byte b) { return b == std::byte{0}; }));
    data_taken_ += probes_.Take(*DecodeDataHeader(header), payload.size(), now_);
  }
  void OnSent(uint64_t tag) override {
    EXPECT_EQ(tag, PathProbes::kSendTag);
    probes_.OnSent();
  }
  void OnPeerDown(PeerId, const absl::Status&) override {}
  void OnLane(PeerId, const absl::Status&) override {}

  const uint64_t incarnation_;
  PeerAddress address_;
  std::unique_ptr<Transport> transport_;
  PathProbes probes_;
  Peer peer_;
  TimePoint now_{std::chrono::seconds(1'000)};
  int data_seen_ = 0, data_taken_ = 0;
};

struct Pair {
  explicit Pair(TransportKind kind, bool mapped) : source(kind, "prefill-0"), target(kind, "d") {
    target.Meet(source, mapped);
    source.Meet(target, false);
  }
  // What was asked for takes this long.
  void Measure(Duration pull_time) {
    target.Start();
    target.Run();
    source.Run();
    target.Run();  // the connection is open, and the rest asked for
    target.Pass(pull_time);
    source.Run();
    target.Run();
  }
  void MeasureAgain(Duration pull_time) {
    target.Pass(std::chrono::seconds(1));
    target.Run();
    target.Pass(pull_time);
    source.Run();
    target.Run();
  }
  Side source, target;
};

TEST(PathProbeTest, PulledBytesAreTimedFromTheRequestOn) {
  Pair pair(TransportKind::kUcx, /*mapped=*/false);
  pair.Measure(std::chrono::milliseconds(1));
  ASSERT_EQ(pair.target.Measured().size(), 1);
  const MeasuredPath path = pair.target.Measured()[0];
  EXPECT_EQ(path.peer_name, "prefill-0");
  EXPECT_EQ(path.transport, "inproc pull");
  EXPECT_TRUE(path.in_use);
  EXPECT_NEAR(path.gb_per_s, kRuns * kBlockBytes / 1e6, 1e-6);
  EXPECT_EQ(pair.target.data_taken(), 1 + kRuns);
}

TEST(PathProbeTest, ASlowPathIsLoud) {
  for (const bool loud : {true, false}) {
    Pair pair(TransportKind::kUcx, /*mapped=*/false);
    testing::internal::CaptureStderr();
    pair.Measure(std::chrono::seconds(1));
    EXPECT_TRUE(pair.target.Measured().empty()) << "it is measured again first";
    pair.MeasureAgain(std::chrono::seconds(1));
    pair.MeasureAgain(std::chrono::milliseconds(loud ? 1'000 : 10));
    const std::string log = testing::internal::GetCapturedStderr();
    const MeasuredPath path = pair.target.Measured().at(0);
    EXPECT_EQ(path.gb_per_s < PathProbes::kLoudShare * path.expected_gb_per_s, loud);
    EXPECT_EQ(log.find("THE PATH FROM 'prefill-0' IS SLOW") != std::string::npos, loud) << log;
  }
}

TEST(PathProbeTest, TheFasterWayIsTaken) {
  for (const bool pull : {true, false}) {
    Pair pair(TransportKind::kAuto, /*mapped=*/true);
    // Memory is read in real time: pulling takes a nanosecond, or longer than any machine's memory.
    const Duration pull_time = pull ? Duration(1) : Duration(std::chrono::seconds(1));
    pair.Measure(pull_time);
    if (!pull) {
      pair.MeasureAgain(pull_time);
      pair.MeasureAgain(pull_time);
    }
    EXPECT_EQ(pair.target.FasterPull() == DataWay::kWire, pull);
    const std::vector<MeasuredPath> ways = pair.target.Measured();
    ASSERT_EQ(ways.size(), 2) << "both are told";
    EXPECT_EQ(ways[0].transport, pull ? "inproc pull" : "inproc");
    EXPECT_EQ(ways[1].transport, pull ? "inproc" : "inproc pull");
    EXPECT_TRUE(ways[0].in_use);
    EXPECT_FALSE(ways[1].in_use);
    for (const MeasuredPath& way : ways) {
      EXPECT_GT(way.gb_per_s, 0);
      EXPECT_GT(way.expected_gb_per_s, 0);
    }
  }
}

// Three ways: the lane is measured when it opens, whenever that is, and forgotten with it.
TEST(PathProbeTest, ALaneIsTakenWhileItIsOpenAndFaster) {
  Pair pair(TransportKind::kAuto, /*mapped=*/true);
  for (int round = 0; round < 2; ++round) {
    pair.Measure(std::chrono::seconds(1));
    pair.MeasureAgain(std::chrono::seconds(1));
    pair.MeasureAgain(std::chrono::seconds(1));
    EXPECT_EQ(pair.target.FasterPull(), std::nullopt);
    ASSERT_EQ(pair.target.Measured().size(), 2);
    pair.target.OpenLane();
    pair.source.Run();
    pair.target.Run();
    pair.target.Pass(Duration(1));
    pair.source.Run();
    pair.target.Run();
    EXPECT_EQ(pair.target.FasterPull(), DataWay::kLane);
    ASSERT_EQ(pair.target.Measured().size(), 3);
    EXPECT_TRUE(pair.target.Measured()[0].in_use);
    EXPECT_GT(pair.target.Measured()[0].gb_per_s, pair.target.Measured()[1].gb_per_s);
    pair.target.LoseLane();
    EXPECT_EQ(pair.target.FasterPull(), std::nullopt);
    ASSERT_EQ(pair.target.Measured().size(), 2);
    EXPECT_TRUE(pair.target.Measured()[0].in_use);
    pair.target.Forget();
  }
}

TEST(PathProbeTest, AMappedSlabIsReadWithoutAskingAnybody) {
  Pair pair(TransportKind::kShm, /*mapped=*/true);
  pair.target.Start();
  pair.target.Run();
  ASSERT_EQ(pair.target.Measured().size(), 1);
  EXPECT_EQ(pair.target.Measured()[0].transport, "inproc");
  EXPECT_EQ(pair.target.Measured()[0].expected_gb_per_s, MachineCopyGbS());
}

TEST(PathProbeTest, APeerIsMeasuredOnceUntilItGoes) {
  Pair pair(TransportKind::kUcx, /*mapped=*/false);
  pair.Measure(std::chrono::milliseconds(1));
  pair.Measure(std::chrono::milliseconds(1));
  EXPECT_EQ(pair.target.data_seen(), 1 + kRuns);
  pair.target.Forget();
  EXPECT_TRUE(pair.target.Measured().empty());
  pair.Measure(std::chrono::milliseconds(1));
  EXPECT_EQ(pair.target.data_seen(), 2 * (1 + kRuns));
}

TEST(PathProbeTest, ASilentPeerIsGivenUp) {
  Pair pair(TransportKind::kAuto, /*mapped=*/true);
  pair.target.Start();
  pair.target.Run();
  EXPECT_TRUE(pair.target.Measured().empty()) << "the answer may still come";
  pair.target.Pass(std::chrono::seconds(3));
  pair.target.Run();
  ASSERT_EQ(pair.target.Measured().size(), 1);
  EXPECT_EQ(pair.target.Measured()[0].transport, "inproc");
  // What comes now is dropped.
  pair.source.Run();
  pair.target.Run();
  EXPECT_EQ(pair.target.data_seen(), 1);
  EXPECT_EQ(pair.target.data_taken(), 0);
}

// However often a target asks, little is under way for it at a time.
TEST(PathProbeTest, ASourceSendsABoundedAmount) {
  Pair pair(TransportKind::kUcx, /*mapped=*/false);
  for (int i = 0; i < 10; ++i) pair.target.Ask({.runs = kMaxProbeRuns, .run_bytes = 1'024});
  pair.source.Run();
  pair.target.Run();
  EXPECT_EQ(pair.target.data_seen(), 4 * kMaxProbeRuns);
  EXPECT_EQ(pair.target.data_taken(), 0) << "nobody asked for these";
  pair.target.Ask({.runs = 1, .run_bytes = kMaxProbeBytes});
  pair.source.Run();
  pair.target.Run();
  EXPECT_EQ(pair.target.data_seen(), 4 * kMaxProbeRuns + 1) << "the others are done";
}

}  // namespace
}  // namespace baton::kv_transfer
