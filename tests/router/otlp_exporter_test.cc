#include "router/otlp_exporter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <cstdlib>
#include <functional>
#include <set>
#include <string>
#include <thread>

#include "tests/common/temp_dir.h"
#include "tests/router/record_testing.h"
#include "tests/router/test_collector.h"

namespace baton::router {
namespace {

namespace json = boost::json;
using std::chrono::milliseconds;
using testing::HasSubstr;

RecordPtr Traced(uint64_t number) {
  auto call = TestCall("call-" + std::to_string(number));
  call->trace = {.id_high = 7, .id_low = number, .span = number, .sampled = true};
  return std::make_shared<const RequestRecord>(TestRecord(call));
}

OtlpOptions To(const std::string& endpoint) {
  return {.endpoint = endpoint,
          .router_name = "router",
          .period = milliseconds(5),
          .retry_pause = milliseconds(1)};
}

void WaitFor(const std::function<bool()>& done) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!done() && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(milliseconds(2));
  }
  EXPECT_TRUE(done());
}

// The field names are those of OTLP's JSON; whatever else is there, a collector would ignore or
// refuse.
void CheckShape(const std::string& body, size_t* spans) {
  const std::set<std::string> known = {
      "traceId", "spanId", "parentSpanId",      "traceState",      "flags",      "name",
      "kind",    "status", "startTimeUnixNano", "endTimeUnixNano", "attributes", "events"};
  const json::value value = json::parse(body);
  for (const json::value& resource : value.at("resourceSpans").as_array()) {
    EXPECT_TRUE(resource.at("resource").at("attributes").is_array());
    for (const json::value& scope : resource.at("scopeSpans").as_array()) {
      EXPECT_TRUE(scope.at("scope").at("name").is_string());
      for (const json::value& span : scope.at("spans").as_array()) {
        ++*spans;
        EXPECT_EQ(span.at("traceId").as_string().size(), 32u);
        EXPECT_EQ(span.at("spanId").as_string().size(), 16u);
        EXPECT_TRUE(span.at("startTimeUnixNano").is_string()) << "64 bits are strings";
        for (const auto& [key, field] : span.as_object()) {
          EXPECT_TRUE(known.contains(std::string(key))) << key;
        }
      }
    }
  }
}

TEST(OtlpExporterTest, PostsWhatACollectorReads) {
  TestCollector collector;
  const auto exporter = OtlpExporter::Create(To(collector.url() + "/base/"));
  ASSERT_TRUE(exporter.ok()) << exporter.status();
  for (uint64_t i = 1; i <= 600; ++i) (*exporter)->Put(Traced(i));
  WaitFor([&] { return (*exporter)->exported() == 600 * 7; });
  size_t spans = 0;
  for (const TestCollector::Request& request : collector.Await(1)) {
    EXPECT_EQ(request.method, "POST");
    EXPECT_EQ(request.target, "/base/v1/traces");
    EXPECT_EQ(request.content_type, "application/json");
    CheckShape(request.body, &spans);
  }
  EXPECT_EQ(spans, 600u * 7);
  EXPECT_EQ((*exporter)->failed(), 0u);
}

TEST(OtlpExporterTest, HttpsWithTheCollectorsCaAndWithNoOther) {
  const test::TempDir dir;
  const std::string certificate = dir.File("cert.pem"), key = dir.File("key.pem");
  const std::string make =
      "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout " + key +
      " -out " + certificate +
      " -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost 2>/dev/null";
  ASSERT_EQ(std::system(make.c_str()), 0);
  TestCollector collector(certificate, key);
  ASSERT_THAT(collector.url(), testing::StartsWith("https://localhost:"));
  OtlpOptions options = To(collector.url());
  const auto distrusts = OtlpExporter::Create(options);
  (*distrusts)->Put(Traced(1));
  WaitFor([&] { return (*distrusts)->failed() == 7; });
  EXPECT_TRUE(collector.Received().empty()) << "nothing is told to a stranger";
  options.ca = certificate;
  const auto exporter = OtlpExporter::Create(options);
  ASSERT_TRUE(exporter.ok()) << exporter.status();
  (*exporter)->Put(Traced(1));
  WaitFor([&] { return (*exporter)->exported() == 7; });
  EXPECT_EQ(collector.Await(1).size(), 1u);
}

TEST(OtlpExporterTest, TriesAgainWhatMayGoBetter) {
  TestCollector collector;
  collector.AnswerWith({503, 429, 200});
  const auto exporter = OtlpExporter::Create(To(collector.url()));
  (*exporter)->Put(Traced(1));
  WaitFor([&] { return (*exporter)->exported() == 7; });
  const auto requests = collector.Await(3);
  ASSERT_EQ(requests.size(), 3u);
  EXPECT_EQ(requests[0].body, requests[2].body);
  EXPECT_EQ(requests[0].target, "/v1/traces");
}

TEST(OtlpExporterTest, GivesUpAndCounts) {
  TestCollector collector;
  collector.AnswerWith({400});
  const auto exporter = OtlpExporter::Create(To(collector.url()));
  (*exporter)->Put(Traced(1));
  WaitFor([&] { return (*exporter)->failed() == 7; });
  EXPECT_EQ(collector.Await(1).size(), 1u) << "what was refused is not asked again";
  (*exporter)->Put(Traced(2));
  WaitFor([&] { return (*exporter)->exported() == 7; });
}

TEST(OtlpExporterTest, ACollectorThatIsAwayCostsSpansAndNothingElse) {
  std::string url;
  {
    const TestCollector gone;
    url = gone.url();
  }
  const auto exporter = OtlpExporter::Create(To(url));
  ASSERT_TRUE(exporter.ok());
  (*exporter)->Put(Traced(1));
  WaitFor([&] { return (*exporter)->failed() == 7; });
}

TEST(OtlpExporterTest, WhatWaitsAtTheEndIsStillSent) {
  TestCollector collector;
  {
    OtlpOptions options = To(collector.url());
    options.period = std::chrono::hours(1);
    const auto exporter = OtlpExporter::Create(options);
    (*exporter)->Put(Traced(1));
  }
  EXPECT_EQ(collector.Await(1).size(), 1u);
}

TEST(OtlpExporterTest, RefusesWhatIsNoEndpoint) {
  for (const char* endpoint : {"127.0.0.1:4318", "grpc://127.0.0.1:4317", "http://", "nonsense",
                               "http://127.0.0.1:4318/?a=b", "http://user@127.0.0.1:4318"}) {
    const auto exporter = OtlpExporter::Create(To(endpoint));
    EXPECT_EQ(exporter.status().code(), absl::StatusCode::kInvalidArgument) << endpoint;
    EXPECT_THAT(std::string(exporter.status().message()), HasSubstr("--otlp-endpoint"));
  }
  OtlpOptions options = To("https://127.0.0.1:1");
  EXPECT_TRUE(OtlpExporter::Create(options).ok());
  options.ca = "no/such.pem";
  EXPECT_THAT(std::string(OtlpExporter::Create(options).status().message()),
              HasSubstr("--otlp-ca: the CA 'no/such.pem'"));
}

}  // namespace
}  // namespace baton::router
