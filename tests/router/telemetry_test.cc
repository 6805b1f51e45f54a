#include "router/telemetry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/common/temp_dir.h"
#include "tests/router/record_testing.h"
#include "tests/router/test_collector.h"

namespace baton::router {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;

TEST(TelemetryTest, KeepsTheLatestTheNewestFirst) {
  const auto telemetry = Telemetry::Create({});
  ASSERT_TRUE(telemetry.ok());
  EXPECT_THAT((*telemetry)->Recent(), IsEmpty());
  const size_t all = Telemetry::kRecent + 10;
  for (size_t i = 0; i < all; ++i) {
    (*telemetry)->Ended(TestRecord(TestCall("call-" + std::to_string(i))));
    if (i == 1) {
      EXPECT_EQ((*telemetry)->Recent().front()->call->request_id, "call-1");
      EXPECT_EQ((*telemetry)->Recent().back()->call->request_id, "call-0");
    }
  }
  const std::vector<RecordPtr> recent = (*telemetry)->Recent();
  ASSERT_EQ(recent.size(), Telemetry::kRecent);
  EXPECT_EQ(recent.front()->call->request_id, "call-" + std::to_string(all - 1));
  EXPECT_EQ(recent.back()->call->request_id, "call-10");
  for (size_t i = 0; i < 2 * Telemetry::kRefused; ++i) {
    (*telemetry)
        ->Ended(RecordOfCall(TestCall("refused-" + std::to_string(i)), 429,
                             absl::ResourceExhaustedError("too much"), {}));
  }
  EXPECT_EQ((*telemetry)->Recent().front(), recent.front()) << "they are apart";
  ASSERT_EQ((*telemetry)->Refused().size(), Telemetry::kRefused);
  EXPECT_EQ((*telemetry)->Refused().front()->call->request_id, "refused-511");
  EXPECT_EQ((*telemetry)->MetricsText(), "") << "nothing is on";
  EXPECT_FALSE((*telemetry)->TraceOf("", "").on());
}

TEST(TelemetryTest, LogsAllAndExportsWhatIsSampled) {
  const test::TempDir directory;
  TestCollector collector;
  TelemetryOptions options;
  options.access_log = directory.File("access.log");
  options.otlp.endpoint = collector.url();
  {
    const auto telemetry = Telemetry::Create(options);
    ASSERT_TRUE(telemetry.ok()) << telemetry.status();
    const CallTrace begun = (*telemetry)->TraceOf("", "");
    EXPECT_TRUE(begun.sampled);
    auto sampled = TestCall("sampled");
    sampled->trace = begun;
    (*telemetry)->Ended(TestRecord(sampled));
    auto not_sampled = TestCall("not-sampled");
    not_sampled->trace =
        (*telemetry)->TraceOf("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00", "");
    (*telemetry)->Ended(TestRecord(not_sampled));
    const std::string metrics = (*telemetry)->MetricsText();
    EXPECT_THAT(metrics, HasSubstr("# TYPE baton_access_log_lines_total counter"));
    EXPECT_THAT(metrics, HasSubstr("baton_access_log_lines_total{result=\"dropped\"} 0"));
    EXPECT_THAT(metrics, HasSubstr("baton_trace_spans_total{result=\"failed\"} 0"));
    EXPECT_THAT(metrics, HasSubstr("baton_trace_requests_dropped_total 0"));
  }
  const auto requests = collector.Await(1);
  ASSERT_EQ(requests.size(), 1u);
  EXPECT_THAT(requests[0].body, HasSubstr("\"sampled\""));
  EXPECT_EQ(requests[0].body.find("not-sampled"), std::string::npos);
}

TEST(TelemetryTest, WhatCannotWorkIsAnError) {
  EXPECT_FALSE(Telemetry::Create({.access_log = "/proc/no/such.log"}).ok());
  TelemetryOptions options;
  options.otlp.endpoint = "nonsense";
  EXPECT_FALSE(Telemetry::Create(options).ok());
}

}  // namespace
}  // namespace baton::router
