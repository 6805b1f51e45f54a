#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "worker_link/convert.h"

namespace baton::worker_link {
namespace {

using testing::HasSubstr;

TEST(ConvertBlocksTest, KeepsEveryField) {
  const BlockNews news{.number = 7, .restart = true, .levels = {3, 1}, .changes = {{{1, 2}, {3}}}};
  v1::WireBlocks wire;
  ToWire(news, &wire);
  const absl::StatusOr<BlockNews> got = FromWire(wire);
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_EQ(got->number, news.number);
  EXPECT_EQ(got->restart, news.restart);
  EXPECT_EQ(got->levels, news.levels);
  EXPECT_EQ(got->changes, news.changes);
}

TEST(ConvertBlocksTest, RefusesWhatIsUnsoundByName) {
  v1::WireBlocks wire;
  wire.set_memory_level(8);
  EXPECT_THAT(FromWire(wire).status().ToString(), HasSubstr("memory_level is 8"));
  wire = {};
  wire.set_disk_level(-1);
  EXPECT_THAT(FromWire(wire).status().ToString(), HasSubstr("disk_level is -1"));
  wire = {};
  for (size_t i = 0; i < BlockJournal::kMaxChanges; ++i) wire.add_memory(i);
  EXPECT_TRUE(FromWire(wire).ok());
  wire.add_disk(0);
  EXPECT_THAT(FromWire(wire).status().ToString(), HasSubstr("4097 changes"));
}

}  // namespace
}  // namespace baton::worker_link
