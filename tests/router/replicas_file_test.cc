#include "router/replicas_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "tests/common/temp_dir.h"

namespace baton::router {
namespace {

using testing::HasSubstr;
using worker_link::Role;

TEST(ReplicasFile, IsWrittenAndRead) {
  const test::TempDir dir;
  const std::string path = dir.File("replicas");
  ASSERT_TRUE(WriteReplicas(path, {3, 2}).ok());
  const auto executor = ReplicasFileExecutor(path);
  EXPECT_EQ(*executor->Replicas(Role::kPrefill), 3);
  EXPECT_TRUE(executor->SetReplicas(Role::kDecode, 5).ok());
  EXPECT_EQ(*ReadReplicas(path), (ReplicaCounts{3, 5}));
  EXPECT_TRUE(absl::IsInvalidArgument(executor->SetReplicas(Role::kDecode, -1)));
  EXPECT_EQ(*ReadReplicas(path), (ReplicaCounts{3, 5}));
}

TEST(ReplicasFile, RefusesWhatIsNone) {
  const test::TempDir dir;
  const std::string path = dir.File("replicas");
  EXPECT_TRUE(absl::IsNotFound(ReadReplicas(path).status()));
  for (const char* text : {"", "prefill 3\n", "prefill 3\nprefill 4\n", "prefill x\ndecode 2\n",
                           "prefill -1\ndecode 2\n", "prefill 1\ndecode 99999999\n",
                           "prefill 1\ndecode 2\nmore 3\n"}) {
    std::ofstream(path) << text;
    EXPECT_THAT(std::string(ReadReplicas(path).status().message()), HasSubstr("two lines")) << text;
  }
}

}  // namespace
}  // namespace baton::router
