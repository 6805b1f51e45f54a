#pragma once

// The router's own cost, measured from outside: its process serves simulated workers, and this
// process sends the load.

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "bench/load_client.h"
#include "bench/load_run.h"
#include "bench/simulated_workers.h"
#include "bench/timing.h"

namespace baton::bench {

struct RouterRow {
  std::string name;
  double value = 0;
  std::string unit;
};

struct RouterBenchOptions {
  int64_t requests = 20000;  // of each measurement
  int32_t prompt_tokens = 200;
  int32_t output_tokens = 64;
  int32_t concurrency = 1024;  // where the router is to be busy all the time
  int32_t unary_concurrency = 256;
  int32_t long_prompt_tokens = 100000;
  int32_t long_prompts = 9;  // of each kind; a value is their median
  int64_t idle_streams = 20000;
  int64_t growth_requests = 200000;
  StopRequested stop;
  std::function<void(const std::string&)> progress;  // may be null
};

// One router process under load.
class RouterBench {
 public:
  // Unavailable when it does not answer. `workers` are those that the router has.
  static absl::StatusOr<RouterBench> Connect(const RouterBenchOptions& options, const LoadUrl& url,
                                             pid_t pid, SimulatedWorkers* workers);

  // requests_per_s, requests_per_s_per_core, cpu_ms_per_request_busy: with `concurrency` streams
  // open all the time.
  absl::StatusOr<std::vector<RouterRow>> Streams();
  // cpu_ms_per_request, added_ttft_p50_ms, added_ttft_p99_ms: Poisson arrivals of `rate_per_s`.
  absl::StatusOr<std::vector<RouterRow>> HalfLoad(double rate_per_s);
  // cpu_ms_per_request_unary, requests_per_s_unary.
  absl::StatusOr<std::vector<RouterRow>> Unary();
  // prompt_100k_text_ms, prompt_100k_ids_ms.
  absl::StatusOr<std::vector<RouterRow>> LongPrompts();
  // idle_streams, idle_streams_bytes_each.
  absl::StatusOr<std::vector<RouterRow>> IdleStreams();
  // memory_growth_percent, memory_mib: short answers in one piece.
  absl::StatusOr<std::vector<RouterRow>> MemoryGrowth();

 private:
  RouterBench(const RouterBenchOptions& options, LoadUrl url, pid_t pid, SimulatedWorkers* workers)
      : options_(options), url_(std::move(url)), pid_(pid), workers_(workers) {}

  struct Measured;
  absl::Status CountPromptWords();
  std::string Chat(uint64_t seed, int32_t output_tokens, bool stream) const;
  absl::StatusOr<Measured> Closed(const char* what, int64_t requests, int64_t concurrency,
                                  int32_t output_tokens, bool stream);
  absl::StatusOr<Measured> Measure(const char* what, int64_t requests, int32_t output_tokens,
                                   bool stream,
                                   const std::function<void(LoadClient*, LoadSource)>& run);
  absl::StatusOr<double> LongPromptMs(bool ids);
  void Progress(const std::string& text) const {
    if (options_.progress) options_.progress(text);
  }

  RouterBenchOptions options_;
  LoadUrl url_;
  pid_t pid_;
  SimulatedWorkers* workers_;
  int64_t prompt_words_ = 0;
  uint64_t next_seed_ = 1;
};

}  // namespace baton::bench
