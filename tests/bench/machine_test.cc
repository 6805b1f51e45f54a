#include "bench/machine.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <vector>

#include "tests/common/temp_dir.h"

namespace baton::bench {
namespace {

TEST(MachineTest, ParsesSizes) {
  EXPECT_EQ(ParseCacheSize("32768K"), int64_t{32} << 20);
  EXPECT_EQ(ParseCacheSize("2M"), int64_t{2} << 20);
  EXPECT_EQ(ParseCacheSize("512"), 512);
  for (const char* text : {"", "K", "1G", "-1K", "1 K", "99999999999999999999K"}) {
    EXPECT_EQ(ParseCacheSize(text), 0) << text;
  }
}

class CacheFolderTest : public testing::Test {
 protected:
  void AddCache(const std::string& cpu, const std::string& index, const std::string& level,
                const std::string& size, const std::string& shared) {
    const std::string folder = directory_.File(cpu) + "/cache/" + index;
    std::filesystem::create_directories(folder);
    std::ofstream(folder + "/level") << level << "\n";
    std::ofstream(folder + "/size") << size << "\n";
    std::ofstream(folder + "/shared_cpu_list") << shared << "\n";
  }
  CacheSizes Read() const { return ReadCacheSizes(root_); }

  test::TempDir directory_;
  std::string root_ = std::filesystem::path(directory_.File("x")).parent_path();
};

TEST_F(CacheFolderTest, CountsASharedCacheOnce) {
  for (const auto& [cpu, shared] : std::vector<std::pair<std::string, std::string>>{
           {"cpu0", "0-1"}, {"cpu1", "0-1"}, {"cpu2", "2-3"}, {"cpu10", "2-3"}}) {
    AddCache(cpu, "index0", "1", "32K", cpu);
    AddCache(cpu, "index2", "2", "512K", cpu);
    AddCache(cpu, "index3", "3", "16384K", shared);
  }
  AddCache("cpufreq", "index3", "3", "1024K", "9");
  EXPECT_EQ(Read().l2_bytes, 512 << 10);
  EXPECT_EQ(Read().l3_bytes, 32 << 20);
}

TEST_F(CacheFolderTest, AMachineMayHaveNoL3) {
  AddCache("cpu0", "index2", "2", "1024K", "0");
  EXPECT_EQ(Read().l3_bytes, 0);
}

TEST_F(CacheFolderTest, UsualSizesWhereNothingIsSaid) {
  EXPECT_EQ(Read().l2_bytes, 1 << 20);
  EXPECT_EQ(Read().l3_bytes, 32 << 20);
  EXPECT_GT(ReadCacheSizes(root_ + "/none").l2_bytes, 0);
}

TEST(MachineTest, ResidentBytesGrowWithTouchedMemory) {
  const int64_t before = ResidentBytes();
  EXPECT_GT(before, 0);
  const std::vector<char> touched(64 << 20, 1);
  EXPECT_GE(ResidentBytes(), before + (32 << 20));
  EXPECT_EQ(touched.back(), 1);
}

}  // namespace
}  // namespace baton::bench
