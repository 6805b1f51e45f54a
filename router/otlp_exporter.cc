#include "router/otlp_exporter.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <random>
#include <span>
#include <utility>

#include "common/ids.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "router/http_exchange.h"
#include "router/otlp_json.h"

namespace baton::router {
namespace {

constexpr size_t kMaxAnswerBytes = 64 << 10;

// The protocol's list of what may go better later.
bool MayRetry(int status) {
  return status == 429 || status == 502 || status == 503 || status == 504;
}

}  // namespace

class OtlpExporter::Collector {
 public:
  static absl::StatusOr<std::unique_ptr<Collector>> Create(const OtlpOptions& options) {
    std::optional<ServiceUrl> url = ParseServiceUrl(options.endpoint);
    if (!url) {
      return absl::InvalidArgumentError(fmt::format(
          "--otlp-endpoint must look like http://127.0.0.1:4318, not '{}'", options.endpoint));
    }
    auto collector = std::make_unique<Collector>();
    collector->target_ = url->path + "/v1/traces";
    collector->timeout_ = options.timeout;
    auto client = ServiceClient::Create(*std::move(url), options.ca);
    if (!client.ok()) {
      return absl::InvalidArgumentError(
          fmt::format("--otlp-ca: {}", std::string(client.status().message())));
    }
    collector->client_ = *std::move(client);
    return collector;
  }

  // Unavailable for what may go better later.
  absl::Status Post(const std::string& body) {
    const auto answer = client_->Ask({.method = "POST",
                                      .target = target_,
                                      .headers = {{"Content-Type", "application/json"}},
                                      .body = body},
                                     timeout_, kMaxAnswerBytes);
    if (!answer.ok()) return absl::UnavailableError(answer.status().message());
    if (answer->status >= 200 && answer->status < 300) return absl::OkStatus();
    const std::string why =
        fmt::format("it answered {}: {}", answer->status, answer->body.substr(0, 256));
    return MayRetry(answer->status) ? absl::UnavailableError(why) : absl::InvalidArgumentError(why);
  }

 private:
  std::string target_;
  Duration timeout_{};
  std::unique_ptr<ServiceClient> client_;
};

absl::StatusOr<std::unique_ptr<OtlpExporter>> OtlpExporter::Create(const OtlpOptions& options) {
  BATON_ASSIGN_OR_RETURN(std::unique_ptr<Collector> collector, Collector::Create(options));
  return std::unique_ptr<OtlpExporter>(new OtlpExporter(options, std::move(collector)));
}

OtlpExporter::OtlpExporter(const OtlpOptions& options, std::unique_ptr<Collector> collector)
    : options_(options), collector_(std::move(collector)), thread_([this] { Run(); }) {}

OtlpExporter::~OtlpExporter() {
  queue_.Close();
  thread_.join();
}

void OtlpExporter::Run() {
  std::mt19937_64 random(RandomU64());
  const std::function<uint64_t()> new_id = [&random] { return std::max<uint64_t>(1, random()); };
  while (true) {
    const bool last = queue_.closed();
    const std::vector<RecordPtr> records = queue_.Take(options_.period);
    for (size_t at = 0; at < records.size(); at += kBatch) {
      if (last && failing_) return;
      const size_t count = std::min(kBatch, records.size() - at);
      const OtlpTraces traces =
          ToOtlp(std::span(records).subspan(at, count), options_.router_name, new_id);
      Export(traces.body, traces.spans);
    }
    if (last && records.empty()) return;
  }
}

void OtlpExporter::Export(const std::string& body, size_t spans) {
  absl::Status status;
  Duration pause = options_.retry_pause;
  for (int i = 0; i < kTries; ++i) {
    status = collector_->Post(body);
    if (!absl::IsUnavailable(status)) break;
    if (i + 1 == kTries || queue_.WaitClosed(pause)) break;
    pause *= 2;
  }
  if (status.ok()) {
    exported_ += spans;
    if (std::exchange(failing_, false)) LogInfo("the trace collector takes spans again");
    return;
  }
  failed_ += spans;
  if (!std::exchange(failing_, true)) {
    LogWarning(fmt::format("spans are lost, the trace collector {} does not take them: {}",
                           options_.endpoint, std::string(status.message())));
  }
}

}  // namespace baton::router
