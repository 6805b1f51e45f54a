#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "worker_link/convert.h"

namespace baton::worker_link {
namespace {

using testing::HasSubstr;

WorkerStatus FullStatus() {
  return {.role = Role::kDecode,
          .draining = true,
          .leaving = true,
          .longest_step = std::chrono::milliseconds(2500),
          .running = 1,
          .waiting = 2,
          .blocks_free = 3,
          .blocks_held = 4,
          .blocks_cached = 5,
          .blocks_total = 12,
          .transfers = 6,
          .prompt_tokens_queued = int64_t{1} << 33,
          .prefill_tokens_per_s = 7.5,
          .kv_bytes_per_s = 8.5,
          .preemptions = 10,
          .kv = {.handoffs = 11,
                 .handoffs_failed = 12,
                 .handoffs_converted = 13,
                 .checksum_mismatches = 14,
                 .prefixes_fetched = 15,
                 .prefixes_not_offered = 16,
                 .prefixes_refused = 17,
                 .prefixes_failed = 18,
                 .prefix_tokens_fetched = 19,
                 .prefix_bytes_fetched = int64_t{1} << 40},
          .paths = {{"p0", "shm", 6e9, 12e9, true}, {"p0", "ucx tcp", 5e8, 1.1e9, false}},
          .disk = {.on = true,
                   .blocks = 7,
                   .blocks_total = 8,
                   .blocks_hit = 9,
                   .blocks_missed = 10,
                   .blocks_read = 11,
                   .blocks_written = 12,
                   .blocks_dropped = 13,
                   .blocks_evicted = 14,
                   .blocks_damaged = int64_t{1} << 34},
          .steps = {.steps = 31,
                    .prompt_steps = 30,
                    .seconds = 32.5,
                    .prompt_tokens = 33,
                    .prompt_pairs = 34.5,
                    .sequences = 35,
                    .context_tokens = 36.5,
                    .chunk_tokens = 37}};
}

v1::WireStatus FullWire() {
  v1::WireStatus wire;
  ToWire(FullStatus(), &wire);
  return wire;
}

TEST(ConvertStatusTest, KeepsEveryField) {
  const absl::StatusOr<WorkerStatus> got = FromWire(FullWire());
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_EQ(*got, FullStatus());
}

TEST(ConvertStatusTest, RefusesWhatIsUnsoundByName) {
  const auto error = [](const v1::WireStatus& wire) { return FromWire(wire).status().ToString(); };
  v1::WireStatus wire = FullWire();
  wire.set_blocks_free(-1);
  EXPECT_THAT(error(wire), HasSubstr("blocks_free is -1"));
  wire = FullWire();
  wire.set_kv_bytes_per_s(std::nan(""));
  EXPECT_THAT(error(wire), HasSubstr("kv_bytes_per_s is nan"));
  wire = FullWire();
  wire.mutable_steps()->set_seconds(-2);
  EXPECT_THAT(error(wire), HasSubstr("steps.seconds"));
  wire = FullWire();
  wire.mutable_disk()->set_blocks_read(-1);
  EXPECT_THAT(error(wire), HasSubstr("disk.blocks_read is -1"));
  wire = FullWire();
  wire.mutable_kv()->set_prefixes_failed(-2);
  EXPECT_THAT(error(wire), HasSubstr("prefixes_failed is -2"));
  wire = FullWire();
  wire.mutable_paths(1)->set_expected_bytes_per_s(-1);
  EXPECT_THAT(error(wire), HasSubstr("expected_bytes_per_s is -1"));
  wire = FullWire();
  wire.mutable_paths(0)->set_source(std::string(kMaxNameBytes + 1, 'x'));
  EXPECT_THAT(error(wire), HasSubstr("source has 257 bytes"));
  wire = FullWire();
  while (wire.paths_size() <= static_cast<int>(kMaxKvPaths)) *wire.add_paths() = wire.paths(0);
  EXPECT_THAT(error(wire), HasSubstr("257 paths, at most 256"));
}

}  // namespace
}  // namespace baton::worker_link
