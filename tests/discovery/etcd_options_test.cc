#include "discovery/etcd_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "tests/common/temp_dir.h"

namespace baton::discovery {
namespace {

using testing::HasSubstr;

EtcdOptions At(std::vector<std::string> endpoints) {
  EtcdOptions options;
  options.endpoints = std::move(endpoints);
  return options;
}

std::string Complaint(const EtcdOptions& options) {
  return std::string(CheckEtcdOptions(options).message());
}

TEST(EtcdOptionsTest, EndpointsAreUrlsOfOneKind) {
  EXPECT_EQ(Complaint(At({"http://a:2379", "http://[::1]:2379"})), "");
  EXPECT_EQ(DialAddress("http://a:2379"), "a:2379");
  for (const char* const unsound :
       {"a:2379", "ftp://a:2379", "http://a", "http://a:2379/", "http://u:p@a:2379", "http://"}) {
    EXPECT_THAT(Complaint(At({unsound})), HasSubstr("is not of the form http://HOST:PORT"))
        << unsound;
  }
  EXPECT_THAT(Complaint(At({"http://a:1", "https://b:1"})), HasSubstr("all endpoints"));
  EXPECT_THAT(Complaint(At(std::vector<std::string>(33, "http://a:1"))), HasSubstr("not 33"));
}

TEST(EtcdOptionsTest, EachFlagNeedsWhatItGoesWith) {
  EtcdOptions options = At({"https://a:1"});
  EXPECT_THAT(Complaint(options), HasSubstr("needs --etcd-ca"));
  options.tls.ca = "/nowhere/ca.pem";
  EXPECT_THAT(Complaint(options), HasSubstr("/nowhere/ca.pem cannot be read"));
  options = At({"http://a:1"});
  options.tls.ca = "/nowhere/ca.pem";
  EXPECT_THAT(Complaint(options), HasSubstr("are for https"));
  options = At({"http://a:1"});
  options.prefix = "/baton";
  EXPECT_THAT(Complaint(options), HasSubstr("must end with '/'"));
  options = At({"http://a:1"});
  options.user = "u";
  EXPECT_THAT(Complaint(options), HasSubstr("need each other"));
}

TEST(EtcdOptionsTest, ThePasswordIsTheFilesFirstLine) {
  const test::TempDir directory;
  EtcdOptions options = At({"http://a:1"});
  options.user = "u";
  options.password_file = directory.File("password");
  EXPECT_THAT(Complaint(options), HasSubstr("has no first line"));
  std::ofstream(options.password_file) << "se cret\r\nmore\n";
  std::string password;
  ASSERT_TRUE(ReadPassword(options, &password).ok());
  EXPECT_EQ(password, "se cret");
  EXPECT_EQ(Complaint(options), "");
}

TEST(EtcdOptionsTest, APrefixEndsBeforeTheNextKeyThatHasIt) {
  EXPECT_EQ(PrefixEnd("/a/"), "/a0");
  EXPECT_EQ(PrefixEnd("a\xff\xff"), "b");
  EXPECT_EQ(PrefixEnd("\xff"), std::string(1, '\0'));
}

}  // namespace
}  // namespace baton::discovery
