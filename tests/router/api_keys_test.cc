#include "router/api_keys.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <set>

#include "tests/common/temp_dir.h"

namespace baton::router {
namespace {

using testing::HasSubstr;

constexpr char kHash[] = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

std::string Entry(const std::string& more) {
  return "keys:\n- name: a\n  sha256: " + std::string(kHash) + "\n  " + more + "\n";
}

TEST(ApiKeysTest, DigestIsSha256) { EXPECT_EQ(ToHex(DigestOf("abc")), kHash); }

TEST(ApiKeysTest, NewKeysAreLongAndNeverAlike) {
  std::set<std::string> keys;
  for (int i = 0; i < 1000; ++i) {
    const std::string key = NewApiKey();
    EXPECT_EQ(key.size(), 46u);
    EXPECT_TRUE(key.starts_with("bk-"));
    keys.insert(key);
  }
  EXPECT_EQ(keys.size(), 1000u);
}

TEST(ApiKeysTest, WhatIsWrittenIsReadAgain) {
  std::vector<ApiKey> keys(2);
  keys[0].name = "alice";
  keys[0].tenant = "acme";
  keys[0].digest = DigestOf("one");
  keys[0].priority = Priority::kHigh;
  keys[0].limits = {2.5, 3, 1000, 2000};
  keys[1].name = keys[1].tenant = "bob";
  keys[1].digest = DigestOf("two");
  keys[1].revoked = true;
  const test::TempDir directory;
  const std::string path = directory.File("keys.yaml");
  ASSERT_TRUE(WriteApiKeys(path, keys).ok());
  struct stat about {};
  ASSERT_EQ(stat(path.c_str(), &about), 0);
  EXPECT_EQ(about.st_mode & 0777, 0600u);
  const auto read = ReadApiKeys(path);
  ASSERT_TRUE(read.ok()) << read.status();
  ASSERT_EQ(read->size(), 2u);
  EXPECT_EQ((*read)[0].tenant, "acme");
  EXPECT_EQ((*read)[0].digest, DigestOf("one"));
  EXPECT_EQ((*read)[0].priority, Priority::kHigh);
  EXPECT_EQ((*read)[0].limits, keys[0].limits);
  EXPECT_FALSE((*read)[0].revoked);
  EXPECT_EQ((*read)[1].tenant, "bob");
  EXPECT_TRUE((*read)[1].revoked);
}

TEST(ApiKeysTest, JsonIsYaml) {
  const auto keys = ParseApiKeys(R"({"keys": [{"name": "a", "sha256": ")" + std::string(kHash) +
                                 R"(", "tokens-per-minute": 5}]})");
  ASSERT_TRUE(keys.ok()) << keys.status();
  EXPECT_EQ(keys->at(0).limits.tokens_per_minute, 5);
}

TEST(ApiKeysTest, AFileWithoutKeysLetsNobodyIn) {
  EXPECT_TRUE(ParseApiKeys("keys: []").ok());
  EXPECT_TRUE(ParseApiKeys("keys:").ok());
}

TEST(ApiKeysTest, UnsoundFilesAreRefusedWithThePlace) {
  const std::pair<std::string, const char*> cases[] = {
      {"", "'keys'"},
      {"keys: 5", "'keys'"},
      {"keys: []\nmore: 1", "'keys'"},
      {"keys: [5]", "key 1: it is not a map"},
      {"keys: [{name: a}]", "key 1: 'sha256' is missing"},
      {"keys: [{name: a, sha256: abc}]", "has 3 characters"},
      {"keys: [{name: a, sha256: " + std::string(64, 'g') + "}]", "hexadecimal"},
      {"keys: [{name: 'a b', sha256: " + std::string(kHash) + "}]", "'name' must have"},
      {Entry("tenant: 'x:y'"), "'tenant' must have"},
      {Entry("priority: urgent"), "high, normal or low"},
      {Entry("requests-per-second: -1"), "'requests-per-second'"},
      {Entry("requests-per-second: .nan"), "'requests-per-second'"},
      {Entry("concurrent-requests: many"), "'concurrent-requests'"},
      {Entry("revoked: perhaps"), "'revoked'"},
      {Entry("token-per-minute: 5"), "did you mean 'tokens-per-minute'?"},
      {Entry("tenant: b") + "- name: b\n  sha256: " + kHash, "comes twice"},
      {"keys: [", "yaml-cpp"},
  };
  for (const auto& [text, words] : cases) {
    const auto keys = ParseApiKeys(text);
    EXPECT_TRUE(absl::IsInvalidArgument(keys.status())) << text;
    EXPECT_THAT(std::string(keys.status().message()), HasSubstr(words)) << text;
  }
}

TEST(ApiKeysTest, AFileThatIsNotThereIsNotFound) {
  EXPECT_TRUE(absl::IsNotFound(ReadApiKeys("/nowhere/keys.yaml").status()));
}

}  // namespace
}  // namespace baton::router
