#include "kv_transfer/source_checksums.h"

#include <gtest/gtest.h>

namespace baton::kv_transfer {
namespace {

BlockHash Content(uint8_t value) {
  BlockHash hash{};
  hash.back() = value;
  return hash;
}

TEST(SourceChecksumsTest, GivesWhatWasKeptOfThisBlockAndContentOnly) {
  SourceChecksums checksums(3);
  EXPECT_EQ(checksums.Find(1, Content(0)), std::nullopt) << "of zeros neither";
  checksums.Keep(1, Content(7), 0xABC);
  EXPECT_EQ(checksums.Find(1, Content(7)), 0xABCu);
  EXPECT_EQ(checksums.Find(1, Content(8)), std::nullopt);
  EXPECT_EQ(checksums.Find(0, Content(7)), std::nullopt);
  EXPECT_EQ(checksums.Find(2, Content(7)), std::nullopt);
}

TEST(SourceChecksumsTest, ABlockThatIsTakenForSomethingElseIsNotMistakenForWhatItHeld) {
  SourceChecksums checksums(1);
  checksums.Keep(0, Content(1), 11);
  checksums.Keep(0, Content(2), 22);
  EXPECT_EQ(checksums.Find(0, Content(1)), std::nullopt);
  EXPECT_EQ(checksums.Find(0, Content(2)), 22u);
}

TEST(SourceChecksumsTest, ForgetsOneBlock) {
  SourceChecksums checksums(2);
  checksums.Keep(0, Content(1), 11);
  checksums.Keep(1, Content(2), 22);
  checksums.Forget(0);
  EXPECT_EQ(checksums.Find(0, Content(1)), std::nullopt);
  EXPECT_EQ(checksums.Find(1, Content(2)), 22u);
}

}  // namespace
}  // namespace baton::kv_transfer
