#include "kv_transfer/stream_copy.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <random>

#include "common/checksum.h"
#include "kv_transfer/stream_copy_isa.h"

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

using Copy = uint64_t (*)(char* to, const char* from, size_t bytes, bool checksum);

// Around every size at which XXH3 does something else: stripes, blocks of 16, the last stripe.
void ExpectTheCommonChecksum(Copy copy) {
  constexpr size_t kMost = 20 * 1'024;
  std::mt19937_64 random(11);
  const auto from = Lines(kMost + 2 * kLine), to = Lines(kMost + 2 * kLine);
  std::generate_n(from.get(), kMost + 2 * kLine, [&] { return std::byte(random()); });
  const auto* const source = reinterpret_cast<const char*>(from.get());
  auto* const target = reinterpret_cast<char*>(to.get());
  for (size_t bytes = 256; bytes <= kMost; bytes += kLine) {
    for (const size_t skew : {0, 1, 32}) {
      const std::span<const std::byte> data(from.get() + skew, bytes);
      std::fill_n(to.get(), kMost + 2 * kLine, std::byte{0xEE});
      ASSERT_EQ(copy(target + kLine, source + skew, bytes, true), Checksum(data))
          << bytes << " from " << skew;
      ASSERT_TRUE(std::equal(data.begin(), data.end(), to.get() + kLine)) << bytes;
      ASSERT_EQ(to.get()[kLine - 1], std::byte{0xEE});
      ASSERT_EQ(to.get()[kLine + bytes], std::byte{0xEE});
    }
  }
  std::fill_n(to.get(), kMost, std::byte{0xEE});
  EXPECT_EQ(copy(target, source, kMost, false), 0);
  EXPECT_TRUE(std::equal(from.get(), from.get() + kMost, to.get()));
}

#ifdef __x86_64__
TEST(StreamCopyTest, Avx2GivesTheCommonChecksumOfWhatItWrites) {
  if (!__builtin_cpu_supports("avx2")) GTEST_SKIP() << "this CPU has no AVX2";
  ExpectTheCommonChecksum(avx2::StreamCopy);
}

TEST(StreamCopyTest, Avx512GivesTheCommonChecksumOfWhatItWrites) {
  if (!__builtin_cpu_supports("avx512f")) GTEST_SKIP() << "this CPU has no AVX-512";
  ExpectTheCommonChecksum(avx512::StreamCopy);
}
#endif

TEST(StreamCopyTest, TakesWhatThisCpuHas) {
  const auto from = Lines(1'024), to = Lines(1'024);
  std::fill_n(from.get(), 1'024, std::byte{0x5A});
  const std::span<const std::byte> source(from.get(), 1'024);
  const std::span<std::byte> target(to.get(), 1'024);
  if (!CanStreamCopy(target, source)) GTEST_SKIP() << "this CPU has no AVX2";
  EXPECT_EQ(StreamCopy(target, source, true), Checksum(source));
  EXPECT_TRUE(std::ranges::equal(source, target));
}

}  // namespace
}  // namespace baton::kv_transfer
