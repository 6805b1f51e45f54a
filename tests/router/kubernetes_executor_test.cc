#include "router/kubernetes_executor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/ssl.hpp>
#include <boost/json.hpp>
#include <cstdlib>
#include <fstream>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "tests/common/temp_dir.h"

namespace baton::router {
namespace {

using testing::HasSubstr;
using worker_link::Role;

// A small API server: the scale subresource of workloads, on the paths, with the bodies and with
// the errors of Kubernetes. HTTP, or HTTPS with a certificate.
class KubeApiDouble {
 public:
  struct Tls {
    std::string certificate, key;  // PEM files
  };
  explicit KubeApiDouble(std::optional<Tls> tls = {})
      : acceptor_(io_, {boost::asio::ip::make_address("127.0.0.1"), 0}) {
    if (tls) {
      tls_.emplace(boost::asio::ssl::context::tls_server);
      tls_->use_certificate_chain_file(tls->certificate);
      tls_->use_private_key_file(tls->key, boost::asio::ssl::context::pem);
    }
    port_ = acceptor_.local_endpoint().port();
    thread_ = std::thread([this] { Serve(); });
  }
  ~KubeApiDouble() {
    stopping_ = true;
    boost::asio::ip::tcp::socket wake(io_);
    boost::system::error_code ignored;
    wake.connect({boost::asio::ip::make_address("127.0.0.1"), port_}, ignored);
    thread_.join();
  }

  std::string url() const {
    return (tls_ ? "https://localhost:" : "http://127.0.0.1:") + std::to_string(port_);
  }

  // "baton/statefulsets/prefill": namespace, resource, name.
  void Set(const std::string& workload, int64_t replicas) {
    const std::lock_guard lock(mutex_);
    workloads_[workload] = {replicas, ++version_};
  }
  int64_t Replicas(const std::string& workload) {
    const std::lock_guard lock(mutex_);
    return workloads_.at(workload).replicas;
  }
  std::string token = "secret";
  std::atomic<bool> silent{false};  // takes connections and never answers
  std::atomic<bool> mad{false};     // answers with what is no Scale

 private:
  struct Workload {
    int64_t replicas = 0;
    int64_t version = 0;
  };
  using Request = boost::beast::http::request<boost::beast::http::string_body>;
  using Response = boost::beast::http::response<boost::beast::http::string_body>;

  void Serve() {
    while (!stopping_) {
      boost::system::error_code error;
      boost::asio::ip::tcp::socket socket(io_);
      acceptor_.accept(socket, error);
      if (error || stopping_) continue;
      if (silent) {
        held_.push_back(std::move(socket));
        continue;
      }
      if (tls_) {
        boost::asio::ssl::stream<boost::asio::ip::tcp::socket> stream(std::move(socket), *tls_);
        stream.handshake(boost::asio::ssl::stream_base::server, error);
        if (!error) One(stream);
      } else {
        One(socket);
      }
    }
  }

  template <typename Stream>
  void One(Stream& stream) {
    boost::system::error_code error;
    boost::beast::flat_buffer buffer;
    Request request;
    boost::beast::http::read(stream, buffer, request, error);
    if (error) return;
    Response response = Answer(request);
    response.prepare_payload();
    boost::beast::http::write(stream, response, error);
  }

  static Response Failure(unsigned status, const std::string& reason, const std::string& message) {
    Response response(static_cast<boost::beast::http::status>(status), 11);
    response.body() = boost::json::serialize(boost::json::object{{"kind", "Status"},
                                                                 {"apiVersion", "v1"},
                                                                 {"status", "Failure"},
                                                                 {"message", message},
                                                                 {"reason", reason},
                                                                 {"code", status}});
    return response;
  }

  Response Answer(const Request& request) {
    namespace json = boost::json;
    const std::lock_guard lock(mutex_);
    if (request[boost::beast::http::field::authorization] != "Bearer " + token) {
      return Failure(401, "Unauthorized", "Unauthorized");
    }
    // /apis/apps/v1/namespaces/NS/RESOURCE/NAME/scale
    const std::string target(request.target());
    const std::string head = "/apis/apps/v1/namespaces/", tail = "/scale";
    if (!target.starts_with(head) || !target.ends_with(tail)) {
      return Failure(404, "NotFound", "the server could not find the requested resource");
    }
    const std::string workload =
        target.substr(head.size(), target.size() - head.size() - tail.size());
    const auto found = workloads_.find(workload);
    if (found == workloads_.end()) {
      return Failure(404, "NotFound", "statefulsets.apps \"" + workload + "\" not found");
    }
    if (request.method() == boost::beast::http::verb::patch) {
      if (request[boost::beast::http::field::content_type] != "application/merge-patch+json") {
        return Failure(415, "UnsupportedMediaType",
                       "the body of the request was in an unknown format");
      }
      const json::object patch = json::parse(request.body()).as_object();
      if (const json::value* metadata = patch.if_contains("metadata")) {
        const auto& version = metadata->as_object().at("resourceVersion").as_string();
        if (version != std::to_string(found->second.version)) {
          return Failure(409, "Conflict", "the object has been modified");
        }
      }
      found->second = {patch.at("spec").at("replicas").as_int64(), ++version_};
    } else if (request.method() != boost::beast::http::verb::get) {
      return Failure(405, "MethodNotAllowed", "the server does not allow this method");
    }
    Response response(boost::beast::http::status::ok, 11);
    response.set(boost::beast::http::field::content_type, "application/json");
    json::object spec;  // as there: zero is left out
    if (found->second.replicas > 0) spec["replicas"] = found->second.replicas;
    response.body() =
        mad ? "[]"
            : json::serialize(json::object{
                  {"kind", "Scale"},
                  {"apiVersion", "autoscaling/v1"},
                  {"metadata",
                   json::object{{"name", workload},
                                {"resourceVersion", std::to_string(found->second.version)}}},
                  {"spec", std::move(spec)},
                  {"status", json::object{{"replicas", found->second.replicas}}}});
    return response;
  }

  boost::asio::io_context io_;
  boost::asio::ip::tcp::acceptor acceptor_;
  std::optional<boost::asio::ssl::context> tls_;
  uint16_t port_ = 0;
  std::mutex mutex_;
  std::map<std::string, Workload> workloads_;
  int64_t version_ = 100;
  std::vector<boost::asio::ip::tcp::socket> held_;
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

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
  EXPECT_THAT(error({.ca_file = "nowhere.pem"}), HasSubstr("the CA 'nowhere.pem' cannot be used"));
}

}  // namespace
}  // namespace baton::router
