#include "cli/etcd_flags.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace baton::cli {
namespace {

using testing::HasSubstr;

TEST(AdvertisedAddress, IsTheListenedOneUnlessAnotherIsGiven) {
  EXPECT_EQ(*AdvertisedAddress("", "127.0.0.1", 7000), "127.0.0.1:7000");
  EXPECT_EQ(*AdvertisedAddress("10.0.0.5", "0.0.0.0", 7000), "10.0.0.5:7000");
  EXPECT_EQ(*AdvertisedAddress("worker-0.pods:9", "0.0.0.0", 7000), "worker-0.pods:9");
  EXPECT_EQ(*AdvertisedAddress("[fd00::5]", "[::]", 7000), "[fd00::5]:7000");
}

TEST(AdvertisedAddress, MustBeOneThatCanBeDialled) {
  for (const char* const all : {"0.0.0.0", "[::]"}) {
    EXPECT_THAT(std::string(AdvertisedAddress("", all, 7000).status().message()),
                HasSubstr("give --advertise"));
  }
  for (const char* const unsound : {"http://a", "a:b", "a:0", "fd00::5", ":7000"}) {
    EXPECT_THAT(std::string(AdvertisedAddress(unsound, "0.0.0.0", 7000).status().message()),
                HasSubstr("--advertise must be"))
        << unsound;
  }
}

TEST(CheckEtcdFlags, WantsEncryptionBeyondThisMachine) {
  discovery::EtcdOptions options;
  EXPECT_TRUE(CheckEtcdFlags(options, false).ok());
  options.user = "u";
  EXPECT_THAT(std::string(CheckEtcdFlags(options, false).message()), HasSubstr("need --etcd"));
  options.user.clear();
  options.endpoints = {"http://127.0.0.1:2379"};
  EXPECT_TRUE(CheckEtcdFlags(options, false).ok());
  options.endpoints.push_back("http://10.0.0.1:2379");
  EXPECT_TRUE(absl::IsPermissionDenied(CheckEtcdFlags(options, false)));
  EXPECT_TRUE(CheckEtcdFlags(options, true).ok());
  options.endpoints = {"10.0.0.1:2379"};
  EXPECT_TRUE(absl::IsInvalidArgument(CheckEtcdFlags(options, true)));
}

}  // namespace
}  // namespace baton::cli
