#include "engine/local_engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/engine/engine_testing.h"
#include "tests/engine/tiny_model.h"

namespace baton::engine {
namespace {

using testing::HasSubstr;

class LocalEngineTest : public testing::Test {
 protected:
  std::string Refusal(const LocalEngineOptions& options) {
    const auto engine = LocalEngine::Load(*file_, options);
    BATON_CHECK(!engine.ok(), "the options are refused");
    return std::string(engine.status().message());
  }
  std::shared_ptr<const GgufFile> file_ = OpenTiny({});
};

TEST_F(LocalEngineTest, SizesItsPoolAsAsked) {
  const auto blocks = [&](const LocalEngineOptions& options) {
    return LoadEngine(*file_, options)->executor().pool().counts().total;
  };
  EXPECT_EQ(blocks({}), 16);  // one context of 256 tokens
  EXPECT_EQ(blocks({.block_tokens = 32}), 8);
  EXPECT_EQ(blocks({.block_count = 5}), 5);
  // 3 layers of K and V of 2 heads of 64 halves: 1,536 bytes a token, 24,576 a block.
  EXPECT_EQ(blocks({.kv_bytes = 100000}), 4);
}

TEST_F(LocalEngineTest, RefusesPoolsWithoutSense) {
  EXPECT_THAT(Refusal({.block_count = -1}), HasSubstr("-1 KV blocks"));
  EXPECT_THAT(Refusal({.kv_bytes = 24575}), HasSubstr("room for 0 KV blocks of 24576 bytes"));
  EXPECT_THAT(Refusal({.block_count = int64_t{1} << 40}), HasSubstr("1099511627776 KV blocks"));
  EXPECT_THAT(Refusal({.block_tokens = 9}), HasSubstr("cannot hold 9 tokens"));
}

TEST_F(LocalEngineTest, UsesTheSlabItIsGiven) {
  std::vector<std::byte> memory;
  LocalEngineOptions options;
  options.allocate_slab = [&](int64_t bytes) -> absl::StatusOr<std::span<std::byte>> {
    memory.resize(static_cast<size_t>(bytes));
    return memory;
  };
  const auto engine = LoadEngine(*file_, options);
  EXPECT_EQ(engine->slab().data(), memory.data());
  EXPECT_EQ(engine->slab().size(), 16u * 24576);
  Answer(*engine, {1, 2, 3}, GreedyTokens(2), 16);
  EXPECT_TRUE(std::ranges::any_of(memory, [](std::byte b) { return b != std::byte{0}; }));

  options.allocate_slab = [&](int64_t) { return std::span<std::byte>(memory).first(10); };
  EXPECT_THAT(Refusal(options), HasSubstr("a slab of 393216 bytes was asked for, 10 came"));
  options.allocate_slab = [](int64_t) -> absl::StatusOr<std::span<std::byte>> {
    return absl::ResourceExhaustedError("no memory today");
  };
  EXPECT_EQ(Refusal(options), "no memory today");
}

TEST_F(LocalEngineTest, OutlivesItsFile) {
  const auto expected = Answer(*LoadEngine(*file_, {}), {1, 2, 3}, GreedyTokens(5), 16);
  const auto engine = LoadEngine(*file_, {});
  file_.reset();
  ExpectSame(Answer(*engine, {1, 2, 3}, GreedyTokens(5), 16), expected);
}

TEST(HostSlab, IsZeroedAlignedAndMovable) {
  auto slab = HostSlab::Allocate(10'000'000);
  ASSERT_TRUE(slab.ok()) << slab.status();
  const std::span<std::byte> bytes = slab->bytes();
  EXPECT_EQ(bytes.size(), 10'000'000u);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(bytes.data()) % 4096, 0u);
  EXPECT_TRUE(std::ranges::all_of(bytes, [](std::byte b) { return b == std::byte{0}; }));
  HostSlab moved = *std::move(slab);
  EXPECT_EQ(moved.bytes().data(), bytes.data());
  EXPECT_FALSE(HostSlab::Allocate(0).ok());
  EXPECT_EQ(HostSlab::Allocate(int64_t{1} << 60).status().code(),
            absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace baton::engine
