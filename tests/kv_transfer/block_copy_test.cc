#include "kv_transfer/block_copy.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "common/checksum.h"

namespace baton::kv_transfer {
namespace {

TEST(BlockCopyTest, CopiesAnySizeAtAnyAlignmentAndGivesTheCommonChecksum) {
  std::mt19937 random(3);
  std::vector<std::byte> from(20'000), to(20'000);
  for (std::byte& byte : from) byte = static_cast<std::byte>(random());
  BlockCopier copier;
  for (const size_t bytes : {1, 63, 64, 65, 4'095, 4'096, 4'097, 8'192, 12'345, 16'384}) {
    for (const size_t skew : {0, 1, 16, 64}) {
      SCOPED_TRACE(testing::Message() << bytes << " bytes at " << skew);
      std::fill(to.begin(), to.end(), std::byte{0xEE});
      const auto source = std::span(from).subspan(2 * skew, bytes);
      const auto target = std::span(to).subspan(skew, bytes);
      EXPECT_EQ(copier.Copy(target, source), Checksum(source));
      EXPECT_EQ(copier.Checksum(source), Checksum(source));
      EXPECT_TRUE(std::equal(source.begin(), source.end(), target.begin()));
      for (size_t i = 0; i < skew; ++i) EXPECT_EQ(to[i], std::byte{0xEE});
      for (size_t i = skew + bytes; i < to.size(); ++i) ASSERT_EQ(to[i], std::byte{0xEE}) << i;
    }
  }
}

TEST(BlockCopyTest, WithoutChecksumsItOnlyCopies) {
  const std::vector<std::byte> from(10'000, std::byte{7});
  std::vector<std::byte> to(from.size());
  BlockCopier copier(/*checksums=*/false);
  EXPECT_EQ(copier.Copy(to, from), 0);
  EXPECT_EQ(copier.Checksum(from), 0);
  EXPECT_EQ(to, from);
}

}  // namespace
}  // namespace baton::kv_transfer
