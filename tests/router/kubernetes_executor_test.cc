#include "router/kubernetes_executor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

#include "tests/common/temp_dir.h"
#include "tests/router/kube_api_double.h"

namespace baton::router {
namespace {

using testing::HasSubstr;
using worker_link::Role;

constexpr char kPrefill[] = "baton/statefulsets/prefill";
constexpr char kDecode[] = "baton/deployments/decode";

class KubernetesExecutorTest : public testing::Test {
 protected:
  KubernetesOptions Options(const KubeApiDouble& api, const std::string& token = "secret") {
    const std::string path = dir_.File("token");
    std::ofstream(path) << token << "\n";
    return {.api = api.url(),
            .space = "baton",
            .prefill = "statefulsets/prefill",
            .decode = "deployments/decode",
            .token_file = path,
            .timeout = std::chrono::seconds(20)};
  }

  test::TempDir dir_;
};

TEST_F(KubernetesExecutorTest, ReadsAndSetsReplicasOfEachRole) {
  KubeApiDouble api;
  api.Set(kPrefill, 3);
  api.Set(kDecode, 0);
  auto executor = KubernetesExecutor(Options(api));
  ASSERT_TRUE(executor.ok()) << executor.status();
  EXPECT_EQ(*(*executor)->Replicas(Role::kPrefill), 3);
  EXPECT_EQ(*(*executor)->Replicas(Role::kDecode), 0);
  EXPECT_TRUE((*executor)->SetReplicas(Role::kPrefill, 4).ok());
  EXPECT_EQ(api.Replicas(kPrefill), 4);
  EXPECT_EQ(api.Replicas(kDecode), 0);
  EXPECT_TRUE(
      (*executor)->SetReplicas(Role::kPrefill, 5).ok());  // by the version of its own change
  EXPECT_EQ(api.Replicas(kPrefill), 5);
}

TEST_F(KubernetesExecutorTest, WhoChangedItSinceWins) {
  KubeApiDouble api;
  api.Set(kPrefill, 3);
  auto executor = KubernetesExecutor(Options(api));
  ASSERT_TRUE((*executor)->Replicas(Role::kPrefill).ok());
  api.Set(kPrefill, 7);
  const absl::Status status = (*executor)->SetReplicas(Role::kPrefill, 4);
  EXPECT_TRUE(absl::IsAborted(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("has been modified"));
  EXPECT_EQ(api.Replicas(kPrefill), 7);
}

TEST_F(KubernetesExecutorTest, ErrorsSayWhatTheServerSays) {
  KubeApiDouble api;
  api.Set(kPrefill, 3);
  auto stranger = KubernetesExecutor(Options(api, "wrong"));
  EXPECT_TRUE(absl::IsPermissionDenied((*stranger)->Replicas(Role::kPrefill).status()));
  auto executor = KubernetesExecutor(Options(api));
  const absl::Status missing = (*executor)->Replicas(Role::kDecode).status();
  EXPECT_TRUE(absl::IsNotFound(missing));
  EXPECT_THAT(std::string(missing.message()), HasSubstr("not found"));
  EXPECT_TRUE(absl::IsInvalidArgument((*executor)->SetReplicas(Role::kPrefill, -1)));
  api.mad = true;
  EXPECT_THAT(std::string((*executor)->Replicas(Role::kPrefill).status().message()),
              HasSubstr("did not answer with a Scale"));
}

TEST_F(KubernetesExecutorTest, AServerThatIsSilentOrGoneIsUnavailable) {
  KubernetesOptions options;
  {
    KubeApiDouble api;
    api.silent = true;
    options = Options(api);
    options.timeout = std::chrono::milliseconds(200);
    auto executor = KubernetesExecutor(options);
    EXPECT_FALSE((*executor)->Replicas(Role::kPrefill).ok());
  }
  options.timeout = std::chrono::seconds(20);
  auto executor = KubernetesExecutor(options);
  EXPECT_TRUE(absl::IsUnavailable((*executor)->Replicas(Role::kPrefill).status()));
}

TEST_F(KubernetesExecutorTest, HttpsWithTheClustersCaAndWithNoOther) {
  const std::string dir = dir_.File(".");
  const std::string make =
      "cd " + dir +
      " && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem "
      "-out cert.pem -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost 2>/dev/null";
  ASSERT_EQ(std::system(make.c_str()), 0);
  KubeApiDouble api(KubeApiDouble::Tls{dir + "/cert.pem", dir + "/key.pem"});
  api.Set(kPrefill, 2);
  KubernetesOptions options = Options(api);
  options.ca_file = dir + "/cert.pem";
  auto executor = KubernetesExecutor(options);
  ASSERT_TRUE(executor.ok()) << executor.status();
  EXPECT_EQ(*(*executor)->Replicas(Role::kPrefill), 2);
  options.ca_file = "";
  auto distrusts = KubernetesExecutor(options);
  ASSERT_TRUE(distrusts.ok()) << distrusts.status();
  EXPECT_THAT(std::string((*distrusts)->Replicas(Role::kPrefill).status().message()),
              HasSubstr("certificate"));
}

TEST_F(KubernetesExecutorTest, RefusesWhatIsMalformed) {
  const auto error = [](const KubernetesOptions& options) {
    return std::string(KubernetesExecutor(options).status().message());
  };
  EXPECT_THAT(error({.api = "ftp://x"}), HasSubstr("no address of an API server"));
  EXPECT_THAT(error({.api = "https://"}), HasSubstr("no address of an API server"));
  EXPECT_THAT(error({.api = "https://x/y"}), HasSubstr("no address of an API server"));
  EXPECT_THAT(error({.prefill = "prefill"}), HasSubstr("statefulsets/NAME"));
  EXPECT_THAT(error({.decode = "pods/decode"}), HasSubstr("the decode workers' workload"));
  EXPECT_THAT(error({.decode = "deployments/../x"}), HasSubstr("statefulsets/NAME"));
  EXPECT_THAT(error({.space = "a/b"}), HasSubstr("namespace"));
  EXPECT_THAT(error({.api = "http://10.0.0.1:80", .token_file = "token"}),
              HasSubstr("unencrypted"));
  EXPECT_THAT(error({.ca_file = "nowhere.pem"}), HasSubstr("cannot read the CA"));
}

}  // namespace
}  // namespace baton::router
