#include "common/checksum.h"

#include <gtest/gtest.h>

#include <vector>

namespace baton {
namespace {

TEST(Checksum, EmptyInputHasTheReferenceValue) {
  EXPECT_EQ(Checksum({}), 0x2D06800538D394C2ull);  // XXH3_64bits of nothing, from its specification
}

TEST(Checksum, EveryBitMatters) {
  std::vector<std::byte> bytes(4096);
  const uint64_t before = Checksum(bytes);
  for (size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] ^= std::byte{1};
    EXPECT_NE(Checksum(bytes), before) << "byte " << i;
    bytes[i] ^= std::byte{1};
  }
}

}  // namespace
}  // namespace baton
