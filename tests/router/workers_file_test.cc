#include "router/workers_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "tests/common/temp_dir.h"

namespace baton::router {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

TEST(WorkersFileTest, OneAddressALineWithCommentsAndBlanks) {
  EXPECT_THAT(ParseWorkersFile("# fleet\n\n a:1 \r\nb:2 # decode\n\t\na:1\nc:3"),
              ElementsAre("a:1", "b:2", "c:3"));
  EXPECT_THAT(ParseWorkersFile(""), IsEmpty());
}

TEST(WorkersFileTest, IsReadAsItWasWritten) {
  const test::TempDir directory;
  const std::string path = directory.File("workers");
  ASSERT_TRUE(WriteWorkersFile(path, {"a:1", "b:2"}).ok());
  EXPECT_THAT(*ReadWorkersFile(path), ElementsAre("a:1", "b:2"));
  EXPECT_TRUE(absl::IsUnavailable(WriteWorkersFile(directory.File("none/workers"), {"a:1"})));
}

TEST(WorkersFileTest, ReadsOrSaysWhyNot) {
  const test::TempDir directory;
  const std::filesystem::path path = directory.File("workers");
  std::ofstream(path) << "127.0.0.1:9000\n";
  EXPECT_THAT(*ReadWorkersFile(path), ElementsAre("127.0.0.1:9000"));
  std::ofstream(path) << std::string(1 << 20, '#');
  EXPECT_THAT(*ReadWorkersFile(path), IsEmpty());
  std::ofstream(path) << std::string((1 << 20) + 1, '#');
  EXPECT_TRUE(absl::IsInvalidArgument(ReadWorkersFile(path).status()));
  std::filesystem::remove(path);
  const absl::Status missing = ReadWorkersFile(path).status();
  EXPECT_TRUE(absl::IsNotFound(missing));
  EXPECT_THAT(std::string(missing.message()), HasSubstr(path.string()));
}

}  // namespace
}  // namespace baton::router
