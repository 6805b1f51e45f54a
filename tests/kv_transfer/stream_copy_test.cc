#include "kv_transfer/stream_copy.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <random>

#include "common/checksum.h"

namespace baton::kv_transfer {
namespace {

constexpr size_t kLine = 64;

struct Free {
  void operator()(std::byte* data) const { std::free(data); }
};
std::unique_ptr<std::byte, Free> Lines(size_t bytes) {
  return std::unique_ptr<std::byte, Free>(
      static_cast<std::byte*>(std::aligned_alloc(kLine, (bytes + kLine - 1) / kLine * kLine)));
}

TEST(StreamCopyTest, TakesWholeLinesOnly) {
  const auto memory = Lines(4 * 1'024);
  const std::span<const std::byte> from(memory.get() + 2'048, 1'024);
  const auto takes = [&](size_t offset, size_t bytes) {
    return CanStreamCopy({memory.get() + offset, bytes}, from.first(bytes));
  };
  if (!takes(0, 1'024)) GTEST_SKIP() << "this CPU has no AVX2";
  EXPECT_TRUE(takes(64, 256));
  EXPECT_FALSE(takes(0, 192)) << "XXH3 has another way for short inputs";
  EXPECT_FALSE(takes(0, 1'000));
  EXPECT_FALSE(takes(32, 1'024 - 64));
  EXPECT_FALSE(CanStreamCopy({memory.get(), 512}, from));
}

// Around every size at which XXH3 does something else: stripes, blocks of 16, the last stripe.
TEST(StreamCopyTest, GivesTheCommonChecksumOfWhatItWrites) {
  constexpr size_t kMost = 20 * 1'024;
  std::mt19937_64 random(11);
  const auto from = Lines(kMost + 2 * kLine), to = Lines(kMost + 2 * kLine);
  std::generate_n(from.get(), kMost + 2 * kLine, [&] { return std::byte(random()); });
  for (size_t bytes = 256; bytes <= kMost; bytes += kLine) {
    for (const size_t skew : {0, 1, 32}) {
      const std::span<const std::byte> source(from.get() + skew, bytes);
      const std::span<std::byte> target(to.get() + kLine, bytes);
      if (!CanStreamCopy(target, source)) GTEST_SKIP() << "this CPU has no AVX2";
      std::fill_n(to.get(), kMost + 2 * kLine, std::byte{0xEE});
      ASSERT_EQ(StreamCopy(target, source, true), Checksum(source)) << bytes << " from " << skew;
      ASSERT_TRUE(std::ranges::equal(source, target)) << bytes;
      ASSERT_EQ(to.get()[kLine - 1], std::byte{0xEE});
      ASSERT_EQ(to.get()[kLine + bytes], std::byte{0xEE});
    }
  }
  std::fill_n(to.get(), kMost, std::byte{0xEE});
  EXPECT_EQ(StreamCopy({to.get(), kMost}, {from.get(), kMost}, false), 0);
  EXPECT_TRUE(std::equal(from.get(), from.get() + kMost, to.get()));
}

}  // namespace
}  // namespace baton::kv_transfer
