// The file over restarts, crashes, damage, and everything that its directory may be.

#include "kv_disk/block_file.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <utility>

#include "common/status_macros.h"
#include "tests/common/temp_dir.h"
#include "tests/kv_disk/disk_testing.h"

namespace baton::kv_disk {
namespace {

using testing::HasSubstr;

constexpr int64_t kHeaderBytes = 4096;
constexpr int64_t kTableBytes = 4096;
constexpr int64_t kSlotBytes = 8192;
constexpr int64_t kRecordBytes = 64;

class BlockFileTest : public testing::Test {
 protected:
  std::string path() const { return directory_.File("p0.kvcache"); }
  BlockFileOptions Options(int64_t bytes = 64 << 10) const {
    return {.path = path(), .bytes = bytes, .block_bytes = kBlockBytes, .identity = "model A"};
  }
  static std::unique_ptr<BlockFile> Open(const BlockFileOptions& options) {
    auto file = BlockFile::Open(options);
    BATON_CHECK(file.ok(), file.status().ToString());
    return *std::move(file);
  }
  std::unique_ptr<BlockFile> Open() const { return Open(Options()); }
  static absl::Status Put(BlockFile& file, int32_t slot, uint32_t name, int32_t previous = -1) {
    return file.Write({slot, Name(name), previous}, Content(Name(name)));
  }
  static absl::Status Get(const BlockFile& file, int32_t slot, uint32_t name) {
    std::vector<std::byte> block(kBlockBytes);
    const absl::Status status = file.Read(slot, Name(name), block);
    EXPECT_TRUE(!status.ok() || block == Content(Name(name)));
    return status;
  }
  static std::vector<int32_t> Slots(const BlockFile& file) {
    std::vector<int32_t> slots;
    for (const BlockFile::Record& record : file.Found()) slots.push_back(record.slot);
    return slots;
  }
  void FlipBit(int64_t offset) const {
    std::fstream stream(path(), std::ios::in | std::ios::out | std::ios::binary);
    stream.seekg(offset);
    const int byte = stream.get();
    stream.seekp(offset);
    stream.put(static_cast<char>(byte ^ 4));
    ASSERT_TRUE(stream.good());
  }
  static absl::Status Refusal(const BlockFileOptions& options) {
    const auto file = BlockFile::Open(options);
    EXPECT_FALSE(file.ok());
    return file.status();
  }

  test::TempDir directory_;
};

TEST_F(BlockFileTest, TakesItsRoomAtOnceAndNoMoreThanAllowed) {
  const auto file = Open();
  // 64 KiB less a header and a page of rounding, by 8 KiB and a record.
  EXPECT_EQ(file->slots(), 6);
  struct stat state {};
  ASSERT_EQ(stat(path().c_str(), &state), 0);
  EXPECT_EQ(state.st_size, kHeaderBytes + kTableBytes + 6 * kSlotBytes);
  EXPECT_LE(state.st_size, 64 << 10);
  EXPECT_EQ(state.st_mode & 0777, 0600u);
  EXPECT_TRUE(file->Found().empty());
}

TEST_F(BlockFileTest, KeepsBlocksAndTheirOrderOverARestart) {
  {
    const auto file = Open();
    ASSERT_TRUE(Put(*file, 2, 20).ok());
    ASSERT_TRUE(Put(*file, 0, 21, 2).ok());
    ASSERT_TRUE(Put(*file, 5, 22).ok());
    ASSERT_TRUE(Put(*file, 1, 23).ok());
    ASSERT_TRUE(file->Use(2, -1).ok());
    ASSERT_TRUE(file->Erase(1).ok());
  }
  const auto file = Open();
  EXPECT_THAT(Slots(*file), testing::ElementsAre(0, 5, 2));
  EXPECT_EQ(file->Found()[0].previous, 2);
  EXPECT_EQ(file->Found()[0].hash, Name(21));
  EXPECT_TRUE(Get(*file, 2, 20).ok());
  EXPECT_TRUE(Get(*file, 0, 21).ok());
  EXPECT_TRUE(Get(*file, 5, 22).ok());
  EXPECT_EQ(Get(*file, 1, 23).code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(Get(*file, 5, 20).code(), absl::StatusCode::kDataLoss) << "another block's slot";
  // Stamps go on: what is written now is the latest.
  ASSERT_TRUE(Put(*file, 3, 24).ok());
  EXPECT_THAT(Slots(*file), testing::ElementsAre(0, 5, 2, 3));
}

TEST_F(BlockFileTest, ABitThatFlippedIsFoundWhereverItIs) {
  for (const int64_t offset : {int64_t{0}, kBlockBytes / 2, kBlockBytes - 1}) {
    Put(*Open(), 3, 30).IgnoreError();
    FlipBit(kHeaderBytes + kTableBytes + 3 * kSlotBytes + offset);
    const absl::Status status = Get(*Open(), 3, 30);
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << offset;
    EXPECT_THAT(status.ToString(), HasSubstr("checksum"));
  }
  for (int64_t offset = 0; offset < kRecordBytes; ++offset) {
    Put(*Open(), 3, 30).IgnoreError();
    ASSERT_THAT(Slots(*Open()), testing::ElementsAre(3));
    FlipBit(kHeaderBytes + 3 * kRecordBytes + offset);
    EXPECT_TRUE(Open()->Found().empty()) << "byte " << offset << " of the record";
  }
}

TEST_F(BlockFileTest, ABlockWhoseWriteWasCutShortIsNotBelieved) {
  {
    const auto file = Open();
    ASSERT_TRUE(Put(*file, 0, 1).ok());
    ASSERT_TRUE(Put(*file, 5, 2).ok());
  }
  // The bytes of another block arrived, its record did not.
  {
    std::fstream stream(path(), std::ios::in | std::ios::out | std::ios::binary);
    stream.seekp(kHeaderBytes + kTableBytes);
    const auto other = Content(Name(3));
    stream.write(reinterpret_cast<const char*>(other.data()), 3000);
  }
  EXPECT_EQ(Get(*Open(), 0, 1).code(), absl::StatusCode::kDataLoss);
  // The record arrived, the bytes did not: the file's end is lost.
  std::filesystem::resize_file(path(), kHeaderBytes + kTableBytes + 5 * kSlotBytes + 100);
  const auto file = Open();
  EXPECT_EQ(Get(*file, 5, 2).code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(std::filesystem::file_size(path()), kHeaderBytes + kTableBytes + 6 * kSlotBytes);
  ASSERT_TRUE(Put(*file, 5, 4).ok());
  EXPECT_TRUE(Get(*file, 5, 4).ok());
}

TEST_F(BlockFileTest, AFileThatShrinksUnderItIsAMiss) {
  const auto file = Open();
  ASSERT_TRUE(Put(*file, 5, 2).ok());
  std::filesystem::resize_file(path(), kHeaderBytes + kTableBytes + 5 * kSlotBytes + 100);
  const absl::Status status = Get(*file, 5, 2);
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(status.ToString(), HasSubstr("ends after 100 of 5000 bytes"));
}

TEST_F(BlockFileTest, StartsOverForAnotherModelAnotherSizeOrADamagedHeader) {
  const auto fill = [this] { ASSERT_TRUE(Put(*Open(), 0, 1).ok()); };
  BlockFileOptions other = Options();
  other.identity = "model B";
  fill();
  EXPECT_TRUE(Open(other)->Found().empty());
  EXPECT_TRUE(Open()->Found().empty()) << "it is model B's now";
  other = Options(80 << 10);
  fill();
  EXPECT_TRUE(Open(other)->Found().empty());
  other = Options();
  other.block_bytes = kBlockBytes + 8;
  fill();
  EXPECT_TRUE(Open(other)->Found().empty());
  for (const int64_t offset : {9, 13, 17, 25, 33, 2081}) {
    fill();
    FlipBit(offset);
    EXPECT_TRUE(Open()->Found().empty()) << offset;
  }
}

TEST_F(BlockFileTest, AFileThatWasOnlyBegunIsBegunAgain) {
  const std::string begun[] = {"", std::string(4096, '\0'), std::string(10000, '\0'),
                               std::string("BATONKV\n")};
  for (const std::string& bytes : begun) {
    std::ofstream(path(), std::ios::binary | std::ios::trunc) << bytes;
    const auto file = Open();
    EXPECT_TRUE(file->Found().empty());
    EXPECT_TRUE(Put(*file, 0, 1).ok());
  }
}

TEST_F(BlockFileTest, LeavesAloneWhatIsNotItsOwn) {
  std::ofstream(path()) << "the only copy of somebody's thesis";
  const absl::Status status = Refusal(Options());
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.ToString(), HasSubstr("is not a KV disk cache"));
  EXPECT_EQ(std::filesystem::file_size(path()), 34u);
  std::filesystem::remove(path());

  std::ofstream(directory_.File("target")) << "";
  std::filesystem::create_symlink(directory_.File("target"), path());
  EXPECT_FALSE(Refusal(Options()).ok());
  EXPECT_EQ(std::filesystem::file_size(directory_.File("target")), 0u);
  std::filesystem::remove(path());

  ASSERT_EQ(mkfifo(path().c_str(), 0600), 0);
  EXPECT_EQ(Refusal(Options()).code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(BlockFileTest, SaysWhyItCannotBeOpened) {
  BlockFileOptions options = Options();
  options.path = directory_.File("missing/p0.kvcache");
  EXPECT_EQ(Refusal(options).code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Refusal(options).ToString(), HasSubstr("missing/p0.kvcache"));
  EXPECT_EQ(Refusal(Options(10000)).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Refusal(Options(10000)).ToString(), HasSubstr("holds 0 KV blocks of 5000 bytes"));
  options = Options();
  options.identity = std::string(kMostIdentityBytes + 1, 'x');
  EXPECT_EQ(Refusal(options).code(), absl::StatusCode::kInvalidArgument);
  options = Options(int64_t{1} << 60);  // more than any disk has
  options.block_bytes = int64_t{1} << 50;
  const absl::Status full = Refusal(options);
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted) << full;
  EXPECT_THAT(full.ToString(), HasSubstr("bytes are free"));
  EXPECT_EQ(Open()->slots(), 6) << "and the file is of use again";
}

TEST_F(BlockFileTest, BelongsToOneProcess) {
  auto file = Open();
  const absl::Status status = Refusal(Options());
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.ToString(), HasSubstr("in use by another process"));
  file.reset();
  Open();
}

TEST_F(BlockFileTest, AFullDiskIsAnErrorOfTheWrite) {
  const auto file = Open();
  ASSERT_TRUE(Put(*file, 0, 1).ok());
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  signal(SIGXFSZ, SIG_IGN);
  rlimit small = before;
  small.rlim_cur = static_cast<rlim_t>(kHeaderBytes + kTableBytes + 3 * kSlotBytes);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const absl::Status status = Put(*file, 4, 2);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_EQ(Get(*file, 4, 2).code(), absl::StatusCode::kDataLoss);
  EXPECT_TRUE(Get(*file, 0, 1).ok());
}

}  // namespace
}  // namespace baton::kv_disk
