// Ten thousand transfers of one block each at once: memory stays where it is, and none is overtaken
// by many more than the others are.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <fstream>
#include <thread>

#include "tests/kv_transfer/handoff_harness.h"

namespace baton::kv_transfer {
namespace {

constexpr int32_t kAtOnce = 10'000;
constexpr int32_t kRounds = 5;  // of each place
// What allocators and UCX keep for later: less than a leak of 200 bytes a transfer would be.
constexpr int64_t kMemoryNoise = kAtOnce * (kRounds - 1) * 200;

// Memory of this process' own, without mapped slabs.
int64_t AnonymousBytes() {
  std::ifstream status("/proc/self/status");
  int64_t kilobytes = 0;
  for (std::string key; status >> key;) {
    if (key == "RssAnon:" && status >> kilobytes) break;
  }
  return kilobytes << 10;
}

// kAtOnce places, each with a block of either slab, in which one transfer follows another.
class Crowd {
 public:
  explicit Crowd(TransportKind kind) : places_(kAtOnce) {
    HandoffOptions options = SmallOptions(kind);
    options.layout.layers = 1;
    options.layout.kv_heads = 1;  // 4 KiB a block
    options.block_count = kAtOnce;
    options.max_transfers = kAtOnce;
    options.lease = options.ready_timeout = options.offer_timeout = kPatience;
    for (Place& place : places_) place.waits.reserve(kRounds);
    target_ = *HandoffService::Create(options, "decode-0", [this](const HandoffEvent& event) {
      if (const auto* arrived = std::get_if<OfferArrived>(&event)) {
        Grant(arrived->offer.attempt);
      } else if (const auto* done = std::get_if<TargetDone>(&event); !done->status.ok()) {
        ++failed_;
      }
    });
    source_ = *HandoffService::Create(options, "prefill-0", [this](const HandoffEvent& event) {
      Ended(std::get<SourceDone>(event));
    });
    target_address_ = target_->address();
  }

  // Until every place has had its rounds. False when that takes too long.
  bool Run() {
    for (int32_t place = 0; place < kAtOnce; ++place) Begin(place, 0);
    const TimePoint give_up = SystemClock().Now() + kPatience;
    while (ended_ < kAtOnce * kRounds && SystemClock().Now() < give_up) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return ended_ == kAtOnce * kRounds;
  }

  int failed() const { return failed_; }
  size_t active() const { return source_->active_transfers() + target_->active_transfers(); }
  // After every thousand transfers.
  const std::vector<int64_t>& memory() const { return memory_; }
  // Of each transfer that began and ended in the full crowd, how many others ended meanwhile: its
  // time, but for what else the machine does. Fewest first.
  std::vector<int> SortedWaits() const {
    std::vector<int> waits;
    for (const Place& place : places_) {
      waits.insert(waits.end(), place.waits.begin() + 1, place.waits.end() - 1);
    }
    std::ranges::sort(waits);
    return waits;
  }

 private:
  struct Place {
    int ended_before = 0;  // the transfer of the moment began
    std::vector<int> waits;
  };

  static int32_t PlaceOf(const Attempt& attempt) {
    return static_cast<int32_t>(attempt.request.low % kAtOnce);
  }
  void Begin(int32_t place, uint64_t round) {
    places_[static_cast<size_t>(place)].ended_before = ended_;
    const Attempt attempt = MakeAttempt(round * kAtOnce + static_cast<uint64_t>(place));
    const absl::Status offered = source_->Offer(
        {.attempt = attempt, .tokens = 16, .block_hashes = {}, .source_name = "prefill-0"},
        target_address_, {place});
    if (!offered.ok()) ++failed_;
    source_->Commit(attempt, "");
  }
  // Nobody's is granted before all have come.
  void Grant(const Attempt& attempt) {
    if (++arrived_ < kAtOnce) return waiting_.push_back(attempt);
    for (const Attempt& other : std::exchange(waiting_, {})) {
      target_->Grant(other, 0, {PlaceOf(other)});
    }
    target_->Grant(attempt, 0, {PlaceOf(attempt)});
  }
  void Ended(const SourceDone& done) {
    if (!done.status.ok()) ++failed_;
    const int32_t number = PlaceOf(done.attempt);
    Place& place = places_[static_cast<size_t>(number)];
    place.waits.push_back(ended_ - place.ended_before);
    if (place.waits.size() < kRounds) Begin(number, place.waits.size());
    if (++ended_ % 1'000 == 0) memory_.push_back(AnonymousBytes());
  }

  std::vector<Place> places_;
  std::vector<int64_t> memory_;
  std::vector<Attempt> waiting_;
  int arrived_ = 0;
  std::string target_address_;
  std::atomic<int> ended_ = 0, failed_ = 0;
  std::unique_ptr<HandoffService> target_, source_;
};

class HandoffCrowdTest : public testing::TestWithParam<TransportKind> {};

INSTANTIATE_TEST_SUITE_P(Transports, HandoffCrowdTest,
                         testing::Values(TransportKind::kInproc, TransportKind::kShm,
                                         TransportKind::kUcx),
                         [](const auto& tested) {
                           return tested.param == TransportKind::kInproc ? "Inproc"
                                  : tested.param == TransportKind::kShm  ? "Shm"
                                                                         : "Ucx";
                         });

TEST_P(HandoffCrowdTest, TakesNoMoreMemoryAfterTheFirstThousandAndIsFair) {
  Crowd crowd(GetParam());
  ASSERT_TRUE(crowd.Run());
  EXPECT_EQ(crowd.failed(), 0);
  // A buffer that comes and goes is no growth: in the last round it was this little at least once.
  const std::vector<int64_t>& memory = crowd.memory();
  EXPECT_LE(*std::min_element(memory.end() - kAtOnce / 1'000, memory.end()),
            memory.front() + kMemoryNoise)
      << testing::PrintToString(memory);
  const std::vector<int> waits = crowd.SortedWaits();
  EXPECT_LE(waits.back(), 2 * waits[waits.size() / 2]);
  const TimePoint give_up = SystemClock().Now() + kPatience;
  while (crowd.active() > 0 && SystemClock().Now() < give_up) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_EQ(crowd.active(), 0);
}

}  // namespace
}  // namespace baton::kv_transfer
