#include "worker_common/kv_paths.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

namespace baton::worker_common {
namespace {

using kv_transfer::MeasuredPath;
using worker_link::KvPath;

TEST(KvPathsTest, AreInBytesAndInAnOrderThatRepeats) {
  const MeasuredPath shm{"p1", "shm", 8, 10, true};
  const MeasuredPath tcp{"p1", "ucx tcp", 0.5, 1, false};
  const MeasuredPath other{"p0", "shm", 9, 10, true};
  const std::vector<KvPath> wanted = {{"p0", "shm", 9e9, 10e9, true},
                                      {"p1", "shm", 8e9, 10e9, true},
                                      {"p1", "ucx tcp", 0.5e9, 1e9, false}};
  EXPECT_EQ(KvPathsOf({shm, tcp, other}), wanted);
  EXPECT_EQ(KvPathsOf({other, tcp, shm}), wanted);
}

TEST(KvPathsTest, AWorkerThatCameBackIsThereOnce) {
  const std::vector<KvPath> paths =
      KvPathsOf({{"p0", "shm", 8, 10, true}, {"p0", "shm", 2, 10, true}});
  ASSERT_EQ(paths.size(), 1);
  EXPECT_EQ(paths[0].bytes_per_s, 2e9);
}

TEST(KvPathsTest, WhereThereAreTooManyTheSlowOnesInUseAreTold) {
  std::vector<MeasuredPath> measured;
  for (size_t i = 0; i < worker_link::kMaxKvPaths; ++i) {
    const std::string name = "p" + std::to_string(i);
    measured.push_back({name, "shm", 8, 10, true});
    measured.push_back({name, "ucx tcp", 0.01, 1, false});
  }
  measured.push_back({"slow", "shm", 1, 10, true});
  const std::vector<KvPath> paths = KvPathsOf(measured);
  EXPECT_EQ(paths.size(), worker_link::kMaxKvPaths);
  EXPECT_TRUE(std::ranges::all_of(paths, &KvPath::in_use));
  EXPECT_EQ(paths.back().source, "slow");
}

}  // namespace
}  // namespace baton::worker_common
