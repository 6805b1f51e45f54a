// The KV cache's formats and where they lie, by the reference backend's loads and stores.

#include "kernels/kv_layout.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "kernels/reference/kv_vector.h"
#include "tests/kernels/test_support.h"

namespace baton::kernels {
namespace {

TEST(KvDType, HasNames) {
  EXPECT_EQ(KvDTypeNames(), "f32, f16, bf16, int8, fp8");
  for (const KvDType dtype : kKvDTypes) {
    EXPECT_EQ(KvDTypeFromName(Traits(dtype).name), dtype);
  }
  EXPECT_EQ(KvDTypeFromName("bf16"), KvDType::kBF16);
  EXPECT_EQ(KvDTypeFromName("q8_0"), std::nullopt);
  EXPECT_EQ(KvDTypeFromName(""), std::nullopt);
}

TEST(KvLayout, SaysWhatABlockNeeds) {
  const auto bytes = [](KvDType dtype) { return KvLayout{30, 3, 64, 16, dtype}.block_bytes(); };
  EXPECT_EQ(bytes(KvDType::kF32), 30 * 2 * 3 * 16 * 64 * 4);
  EXPECT_EQ(bytes(KvDType::kF16), 30 * 2 * 3 * 16 * 64 * 2);
  EXPECT_EQ(bytes(KvDType::kBF16), bytes(KvDType::kF16));
  EXPECT_EQ(bytes(KvDType::kInt8), 30 * 2 * 3 * 16 * (64 + 4));
  EXPECT_EQ(bytes(KvDType::kFp8), bytes(KvDType::kInt8));
  EXPECT_EQ((KvLayout{1, 2, 3, 8, KvDType::kInt8}.ToString()),
            "layers=1 kv_heads=2 head_dim=3 block_tokens=8 dtype=INT8 order=2");
}

TEST(KvLayout, ComesBackFromItsText) {
  for (const KvDType dtype : kKvDTypes) {
    const KvLayout layout{30, 3, 64, 32, dtype};
    EXPECT_EQ(*KvLayout::FromString(layout.ToString()), layout);
  }
  const std::string text = KvLayout{30, 3, 64, 16, KvDType::kF16}.ToString();
  for (size_t length = 0; length < text.size(); ++length) {
    EXPECT_FALSE(KvLayout::FromString(text.substr(0, length)).ok()) << text.substr(0, length);
  }
  for (const std::string_view wrong :
       {"", "layers=30", "layers=0 kv_heads=3 head_dim=64 block_tokens=16 dtype=F16 order=2",
        "layers=-1 kv_heads=3 head_dim=64 block_tokens=16 dtype=F16 order=2",
        "layers=16385 kv_heads=3 head_dim=64 block_tokens=16 dtype=F16 order=2",
        "layers=99999999999 kv_heads=3 head_dim=64 block_tokens=16 dtype=F16 order=2",
        "layers=030 kv_heads=3 head_dim=64 block_tokens=16 dtype=F16 order=2",
        "layers=30 kv_heads=3 head_dim=64 block_tokens=16 dtype=f16 order=2",
        "layers=30 kv_heads=3 head_dim=64 block_tokens=16 dtype=Q4 order=2",
        "layers=30 kv_heads=3 head_dim=64 block_tokens=16 dtype=F16 order=1",
        "layers=30 kv_heads=3 head_dim=64 block_tokens=16 dtype=F16 order=2 "}) {
    EXPECT_FALSE(KvLayout::FromString(wrong).ok()) << wrong;
  }
  EXPECT_EQ(KvLayout::FromString(text + "?").status().message(),
            "'" + text + "?' is no KV layout of this build, whose order is 2");
}

// Every element and scale has bytes of its own, and together they are the block, but for what makes
// the BF16 of an odd head_dim pairs.
TEST(KvLayout, FillsABlockWithoutOverlap) {
  for (const KvDType dtype : kKvDTypes) {
    for (const int32_t block_tokens : {8, 16, 32}) {
      const KvLayout layout{2, 3, 5, block_tokens, dtype};
      std::vector<int> used(layout.block_bytes(), 0);
      const auto use = [&](int64_t at, int64_t count) {
        ASSERT_LE(at + count, std::ssize(used));
        for (int64_t i = 0; i < count; ++i) ++used[at + i];
      };
      for (int32_t i = 0; i < 2 * 3 * block_tokens; ++i) {
        const int32_t layer = i / block_tokens / 3;
        const int32_t head = i / block_tokens % 3;
        const int32_t token = i % block_tokens;
        const int64_t key = layout.key_offset(layer, head);
        const int64_t value = layout.value_offset(layer, head);
        for (int32_t d = 0; d < 5; ++d) {
          use(key + layout.key_element(token, d), layout.element_bytes());
          use(value + layout.value_element(token, d), layout.element_bytes());
        }
        if (!Traits(dtype).scaled) continue;
        EXPECT_EQ((key + layout.scale(token)) % 4, 0);
        use(key + layout.scale(token), 4);
        use(value + layout.scale(token), 4);
      }
      const int64_t padding = dtype == KvDType::kBF16 ? 2 * 3 * 2 * block_tokens * 2 : 0;
      EXPECT_EQ(std::ranges::count(used, 1), layout.block_bytes() - padding) << layout.ToString();
      EXPECT_EQ(std::ranges::count(used, 0), padding) << layout.ToString();
    }
  }
}

// What a vector of deviation 1 looks like after its way through the cache. Bounds: half a step of
// the format, which for INT8 is 1/127 of the largest element.
TEST(KvVector, IsOffByHalfAStepAtMost) {
  std::mt19937 random = TestRandom();
  for (const KvDType dtype : kKvDTypes) {
    const KvLayout layout{1, 1, 64, 16, dtype};
    std::vector<std::byte> head(layout.head_bytes(), std::byte{0xff});
    for (int i = 0; i < 200; ++i) {
      const KvSide side = i % 2 == 0 ? KvSide::kKey : KvSide::kValue;
      const float size = std::ldexp(1.0f, i % 20 - 10);
      const std::vector<float> x = RandomFloats(random, 64, size);
      StoreKvVector(layout, side, i % 16, x.data(), head.data());
      std::vector<float> y(64);
      LoadKvVector(layout, side, i % 16, head.data(), y.data());
      const float largest =
          std::abs(*std::ranges::max_element(x, {}, [](float value) { return std::abs(value); }));
      for (int d = 0; d < 64; ++d) {
        float bound = 0;
        if (dtype == KvDType::kF16) bound = std::max(std::abs(x[d]) * 0x1p-11f, 0x1p-25f);
        if (dtype == KvDType::kBF16) bound = std::abs(x[d]) * 0x1p-8f;
        if (dtype == KvDType::kInt8) bound = largest / 253;
        if (dtype == KvDType::kFp8) bound = std::max(std::abs(x[d]) / 15.9f, largest / 448 / 1023);
        ASSERT_NEAR(y[d], x[d], bound) << Traits(dtype).name;
      }
    }
  }
}

TEST(KvVector, ScaledFormatsKeepZerosAndNaNs) {
  for (const KvDType dtype : {KvDType::kInt8, KvDType::kFp8}) {
    const KvLayout layout{1, 1, 4, 8, dtype};
    std::vector<std::byte> head(layout.head_bytes(), std::byte{0xff});
    const auto through = [&](std::vector<float> x) {
      StoreKvVector(layout, KvSide::kKey, 3, x.data(), head.data());
      LoadKvVector(layout, KvSide::kKey, 3, head.data(), x.data());
      return x;
    };
    EXPECT_EQ(through({0, 0, 0, 0}), (std::vector<float>{0, 0, 0, 0}));
    EXPECT_EQ(through({1e-35f, 0, -1e-35f, 0}), (std::vector<float>{0, 0, 0, 0}));
    EXPECT_EQ(through({0, 0, -2e38f, 0})[1], 0);
    EXPECT_NEAR(through({0, 0, -2e38f, 0})[2], -2e38f, 1e32f);
    for (const float x : through({1, std::nanf(""), 2, 3})) EXPECT_TRUE(std::isnan(x));
  }
}

}  // namespace
}  // namespace baton::kernels
