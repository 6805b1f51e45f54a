#include "cli/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "tests/common/temp_dir.h"

namespace baton::cli {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

const std::vector<ConfigKey> kKeys = {{"model"}, {"block-tokens"}, {"workers", true}};
const std::vector<ConfigKey> kAllKeys = {{"model"}, {"block-tokens"}, {"workers", true}, {"http"}};

class MergeConfigTest : public testing::Test {
 protected:
  std::string Write(const std::string& text) {
    const std::string path = directory_.File("config_test.yaml");
    std::ofstream(path) << text;
    return path;
  }
  void ExpectError(const std::string& yaml, const std::string& text) {
    const auto merged = MergeConfig(kKeys, kAllKeys, {"--config", Write(yaml)}, {});
    ASSERT_FALSE(merged.ok()) << yaml;
    EXPECT_THAT(std::string(merged.status().message()), HasSubstr(text));
  }

  const test::TempDir directory_;
};

TEST_F(MergeConfigTest, FlagBeatsEnvironmentBeatsFile) {
  const std::string config =
      "--config=" + Write("model: file\nblock-tokens: 8\nhttp: other command's\n");
  EXPECT_THAT(*MergeConfig(kKeys, kAllKeys, {config}, {}),
              ElementsAre("--model=file", "--block-tokens=8", config));
  EXPECT_THAT(*MergeConfig(kKeys, kAllKeys, {config}, {{"BATON_MODEL", "variable"}}),
              ElementsAre("--model=variable", "--block-tokens=8", config));
  EXPECT_THAT(
      *MergeConfig(kKeys, kAllKeys, {config, "--model", "flag"}, {{"BATON_MODEL", "variable"}}),
      ElementsAre("--block-tokens=8", config, "--model", "flag"));
}

TEST_F(MergeConfigTest, ListsAndTheVariableForTheFile) {
  const std::string path = Write("workers: [a:1, b:2]\n");
  EXPECT_THAT(*MergeConfig(kKeys, kAllKeys, {}, {{"BATON_CONFIG", path}}),
              ElementsAre("--workers=a:1", "--workers=b:2"));
  EXPECT_THAT(*MergeConfig(kKeys, kAllKeys, {}, {{"PATH", "/bin"}}), ElementsAre());
}

TEST_F(MergeConfigTest, UnknownNamesAreErrorsThatNameTheNearest) {
  ExpectError("modle: x\n", "unknown key 'modle'; did you mean 'model'?");
  const auto merged = MergeConfig(kKeys, kAllKeys, {}, {{"BATON_BLOCK_TOKEN", "8"}});
  EXPECT_THAT(
      std::string(merged.status().message()),
      HasSubstr("BATON_BLOCK_TOKEN in the environment; did you mean 'BATON_BLOCK_TOKENS'?"));
}

TEST_F(MergeConfigTest, UnsoundFilesAreErrors) {
  ExpectError("- a\n- b\n", "must be a map");
  ExpectError("model: {a: 1}\n", "'model' must be a value or a list");
  ExpectError("model: [a, b]\n", "'model' takes one value, not 2");
  ExpectError("model: [\n", "config_test.yaml: ");
  ExpectError(std::string(2 << 20, '#'), "larger than");
  EXPECT_EQ(MergeConfig(kKeys, kAllKeys, {"--config", "/nowhere.yaml"}, {}).status().code(),
            absl::StatusCode::kNotFound);
}

TEST(VariableName, IsTheKeyInCapitals) {
  EXPECT_EQ(VariableName("block-tokens"), "BATON_BLOCK_TOKENS");
}

}  // namespace
}  // namespace baton::cli
