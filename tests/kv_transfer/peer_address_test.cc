#include "kv_transfer/peer_address.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/kv_layout.h"

namespace baton::kv_transfer {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

PeerAddress Example() {
  return {.incarnation = 42,
          .name = "decode-0",
          .family = "ucx",
          .endpoint = "bytes of a worker",
          .layout = "layers=30 kv_heads=3",
          .model_fingerprint = "abc",
          .block_count = 100,
          .block_bytes = 368'640,
          .slab_file = SlabFile{.host = "a boot", .pid = 17, .fd = 5}};
}

TEST(PeerAddressTest, ComesBackAsItWas) {
  PeerAddress address = Example();
  EXPECT_EQ(*DecodeAddress(*EncodeAddress(address)), address);
  EXPECT_EQ(address.slab_bytes(), 36'864'000);
  address.slab_file.reset();
  EXPECT_EQ(*DecodeAddress(*EncodeAddress(address)), address);
  address.gpu = GpuAddress{.machine = "a boot",
                           .bus_id = "0000:65:00.0",
                           .name = "NVIDIA H200",
                           .index = 3,
                           .nccl_version = 22'809};
  EXPECT_EQ(*DecodeAddress(*EncodeAddress(address)), address);
}

TEST(PeerAddressTest, CutOrDamagedIsRefused) {
  const std::string bytes = *EncodeAddress(Example());
  for (size_t length = 0; length < bytes.size(); ++length) {
    EXPECT_FALSE(DecodeAddress(bytes.substr(0, length)).ok());
  }
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    std::string flipped = bytes;
    flipped[bit / 8] ^= static_cast<char>(1 << (bit % 8));
    EXPECT_FALSE(DecodeAddress(flipped).ok());
  }
}

TEST(PeerAddressTest, ImpossibleSizesAreRefused) {
  for (const int64_t block_bytes : {int64_t{0}, int64_t{-1}, int64_t{1} << 40}) {
    PeerAddress address = Example();
    address.block_bytes = block_bytes;
    EXPECT_FALSE(DecodeAddress(*EncodeAddress(address)).ok()) << block_bytes;
  }
  PeerAddress address = Example();
  address.block_count = 0;
  EXPECT_FALSE(DecodeAddress(*EncodeAddress(address)).ok());
  address = Example();
  address.endpoint.resize(9'000);
  EXPECT_THAT(EncodeAddress(address).status().ToString(), HasSubstr("at most 8192"));
}

TEST(PeerAddressTest, ADifferenceIsNamedWithBothValues) {
  const PeerAddress ours = Example();
  EXPECT_TRUE(CheckCompatible(ours, ours).ok());
  PeerAddress theirs = ours;
  theirs.name = "prefill-0";
  theirs.family = "inproc";
  EXPECT_THAT(CheckCompatible(ours, theirs).ToString(),
              AllOf(HasSubstr("'ucx' here"), HasSubstr("'inproc' there"), HasSubstr("prefill-0")));
  theirs = ours;
  theirs.model_fingerprint = "def";
  EXPECT_THAT(CheckCompatible(ours, theirs).ToString(),
              AllOf(HasSubstr("model 'abc'"), HasSubstr("'def'")));
  theirs = ours;
  theirs.layout = "layers=80 kv_heads=8";
  EXPECT_THAT(CheckCompatible(ours, theirs).ToString(),
              AllOf(HasSubstr("layers=30"), HasSubstr("layers=80")));
}

TEST(PeerAddressTest, LayoutsThatCanBeConvertedFit) {
  const auto with = [](const kernels::KvLayout& layout) {
    PeerAddress address = Example();
    address.layout = layout.ToString();
    address.block_bytes = layout.block_bytes();
    return address;
  };
  const PeerAddress ours = with({30, 3, 64, 16, kernels::KvDType::kF16});
  for (const kernels::KvDType dtype : kernels::kKvDTypes) {
    for (const int32_t block_tokens : {8, 16, 32}) {
      EXPECT_TRUE(CheckCompatible(ours, with({30, 3, 64, block_tokens, dtype})).ok());
    }
  }
  EXPECT_FALSE(CheckCompatible(ours, with({30, 3, 64, 4, kernels::KvDType::kF16})).ok());
  EXPECT_FALSE(CheckCompatible(ours, with({30, 2, 64, 8, kernels::KvDType::kF16})).ok());
  EXPECT_FALSE(CheckCompatible(ours, with({29, 3, 64, 8, kernels::KvDType::kF16})).ok());
  EXPECT_FALSE(CheckCompatible(ours, with({30, 3, 128, 8, kernels::KvDType::kF16})).ok());
  PeerAddress older = with({30, 3, 64, 8, kernels::KvDType::kF16});
  older.layout.back() = '1';  // another order of bytes
  EXPECT_THAT(CheckCompatible(ours, older).ToString(),
              AllOf(HasSubstr("order=2' here"), HasSubstr("order=1' there")));
  PeerAddress liar = with({30, 3, 64, 8, kernels::KvDType::kF16});
  ++liar.block_bytes;
  EXPECT_FALSE(CheckCompatible(ours, liar).ok());
}

}  // namespace
}  // namespace baton::kv_transfer
