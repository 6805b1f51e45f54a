#include "kv_transfer/shared_slab.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

namespace baton::kv_transfer {
namespace {

using ::testing::HasSubstr;

constexpr size_t kBytes = 3 * 4'096 + 64;  // not whole pages
constexpr uint64_t kIncarnation = 0x1234;

PeerAddress AddressOf(const SharedSlab& slab) {
  return {.incarnation = kIncarnation,
          .name = "prefill-0",
          .family = "ucx",
          .endpoint = "",
          .layout = "",
          .model_fingerprint = "",
          .block_count = 1,
          .block_bytes = static_cast<int64_t>(slab.bytes().size()),
          .slab_file = slab.file()};
}

class SharedSlabTest : public testing::Test {
 protected:
  std::unique_ptr<SharedSlab> slab_ = *SharedSlab::Create(kBytes, kIncarnation);
};

TEST_F(SharedSlabTest, AReaderSeesWhatTheOwnerWrites) {
  EXPECT_EQ(slab_->bytes().size(), kBytes);
  const auto reader = MapPeerSlab(AddressOf(*slab_));
  ASSERT_TRUE(reader.ok()) << reader.status();
  ASSERT_EQ((*reader)->bytes().size(), kBytes);
  EXPECT_EQ((*reader)->bytes()[kBytes - 1], std::byte{0});
  slab_->bytes()[kBytes - 1] = std::byte{7};
  EXPECT_EQ((*reader)->bytes()[kBytes - 1], std::byte{7});
  slab_.reset();
  EXPECT_EQ((*reader)->bytes()[kBytes - 1], std::byte{7}) << "the mapping outlives the owner";
}

TEST_F(SharedSlabTest, AnotherProcessCanReadAndNotWrite) {
  slab_->bytes()[100] = std::byte{42};
  const PeerAddress address = AddressOf(*slab_);
  const pid_t child = fork();
  if (child == 0) {
    const auto reader = MapPeerSlab(address);
    if (!reader.ok() || (*reader)->bytes()[100] != std::byte{42}) _exit(1);
    // Even one that asks for a writable mapping does not get it.
    const std::string path =
        fmt::format("/proc/{}/fd/{}", address.slab_file->pid, address.slab_file->fd);
    const int fd = open(path.c_str(), O_RDWR);
    void* const writable = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    const bool shrunk = ftruncate(fd, 0) == 0;
    _exit(writable == MAP_FAILED && !shrunk ? 0 : 2);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST_F(SharedSlabTest, IsNotMappedWhenItIsSomethingElse) {
  PeerAddress address = AddressOf(*slab_);
  address.incarnation = 99;
  EXPECT_THAT(MapPeerSlab(address).status().ToString(), HasSubstr("belongs to incarnation"));
  address = AddressOf(*slab_);
  address.block_bytes += 4'096;
  EXPECT_THAT(MapPeerSlab(address).status().ToString(), HasSubstr("not a KV slab of"));
  address = AddressOf(*slab_);
  address.slab_file->host = "another boot";
  EXPECT_THAT(MapPeerSlab(address).status().ToString(), HasSubstr("another machine"));
  address = AddressOf(*slab_);
  address.slab_file.reset();
  EXPECT_EQ(MapPeerSlab(address).status().code(), absl::StatusCode::kFailedPrecondition);
  address = AddressOf(*slab_);
  slab_.reset();
  EXPECT_EQ(MapPeerSlab(address).status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(SharedSlabTest, AFileThatCouldShrinkIsNotMapped) {
  const int unsealed = memfd_create("unsealed", MFD_CLOEXEC);
  ASSERT_EQ(ftruncate(unsealed, 4 * 4'096 + 16), 0);
  PeerAddress address = AddressOf(*slab_);
  address.slab_file->fd = unsealed;
  EXPECT_THAT(MapPeerSlab(address).status().ToString(), HasSubstr("not a KV slab of"));
  close(unsealed);
}

TEST(SharedSlabErrorTest, MemoryThatIsNotThereIsSaidAtTheStart) {
  const auto slab = SharedSlab::Create(size_t{1} << 46, kIncarnation);
  EXPECT_EQ(slab.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(slab.status().ToString(), HasSubstr("70368744177664 bytes"));
}

}  // namespace
}  // namespace baton::kv_transfer
