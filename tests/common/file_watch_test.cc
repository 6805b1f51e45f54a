#include "common/file_watch.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>

#include "tests/common/temp_dir.h"

namespace baton {
namespace {

TEST(FileWatchTest, SeesFilesThatComeChangeAndGo) {
  const test::TempDir directory;
  const std::string one = directory.File("one"), two = directory.File("two");
  FileWatch watch({one, two});
  EXPECT_FALSE(watch.Changed());
  std::ofstream(one) << "a";
  EXPECT_TRUE(watch.Changed());
  EXPECT_FALSE(watch.Changed());
  std::ofstream(two) << "a";
  EXPECT_TRUE(watch.Changed());
  std::ofstream(one) << "longer";
  EXPECT_TRUE(watch.Changed());
  std::ofstream(directory.File("new")) << "longer";
  ASSERT_EQ(std::rename(directory.File("new").c_str(), one.c_str()), 0);
  EXPECT_TRUE(watch.Changed());
  std::remove(two.c_str());
  EXPECT_TRUE(watch.Changed());
  EXPECT_FALSE(watch.Changed());
}

}  // namespace
}  // namespace baton
