#pragma once

// Spans of sampled requests to an OpenTelemetry collector: OTLP over HTTP, JSON, by a thread of its
// own.

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "absl/status/statusor.h"
#include "router/record_queue.h"

namespace baton::router {

struct OtlpOptions {
  std::string endpoint;  // "http://host:4318", "https://..."; "/v1/traces" is appended to its path
  std::string ca;        // PEM CA of an https collector; "": the system's
  std::string router_name;                                // service.instance.id
  Duration period = std::chrono::seconds(1);              // batches wait for so long
  Duration timeout = std::chrono::seconds(5);             // of a try
  Duration retry_pause = std::chrono::milliseconds(500);  // doubled after each
};

// Thread-safe. A collector that is slow, away or full costs memory for kCapacity requests and then
// spans, never a request's time. What waits when it is destroyed is tried once more, until a try
// fails.
class OtlpExporter {
 public:
  static constexpr size_t kCapacity = 4096;
  static constexpr size_t kBatch = 256;  // requests
  static constexpr int kTries = 4;

  // InvalidArgument for an endpoint that is none, or a CA that cannot be read.
  static absl::StatusOr<std::unique_ptr<OtlpExporter>> Create(const OtlpOptions& options);
  ~OtlpExporter();
  OtlpExporter(const OtlpExporter&) = delete;
  OtlpExporter& operator=(const OtlpExporter&) = delete;

  void Put(RecordPtr record) { queue_.Put(std::move(record)); }

  uint64_t exported() const { return exported_; }  // spans
  uint64_t failed() const { return failed_; }      // likewise: the collector did not take them
  uint64_t dropped() const { return queue_.dropped(); }  // requests

 private:
  class Collector;

  OtlpExporter(const OtlpOptions& options, std::unique_ptr<Collector> collector);
  void Run();
  void Export(const std::string& body, size_t spans);

  const OtlpOptions options_;
  const std::unique_ptr<Collector> collector_;  // the thread's
  bool failing_ = false;                        // likewise: was told
  RecordQueue queue_{kCapacity};
  std::atomic<uint64_t> exported_{0};
  std::atomic<uint64_t> failed_{0};
  std::thread thread_;
};

}  // namespace baton::router
