#pragma once

// What `baton top` shows: two looks at a router, as numbers, as text, as JSON. Pure.

#include <array>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "cli/prometheus_text.h"
#include "common/clock.h"

namespace baton::cli {

struct TopWorker {
  std::string name, role, state;
  bool suspect = false;
  double running = 0, waiting = 0, transfers = 0;
  double blocks_held = 0, blocks_cached = 0, blocks_total = 0;
  double busy_s = 0;  // since its start
  double busy = 0;    // share of the time between two looks
};

// One look.
struct TopSample {
  TimePoint at;
  Metrics metrics;
  std::vector<TopWorker> workers;
};

// Of the admin API's /metrics and /v1/workers. Internal when the second is not what it should be.
absl::StatusOr<TopSample> ReadTopSample(TimePoint at, std::string_view metrics,
                                        std::string_view workers);

struct TopRole {
  int workers = 0;
  int ready = 0;
  double busy = 0;     // of those that are ready, the mean
  double kv_held = 0;  // share of their blocks
  double running = 0, waiting = 0;
};

struct TopLatency {
  std::string_view name;
  Quantiles quantiles;
  bool of_interval = false;  // false: nothing came between the looks, these are since the start
};

struct TopView {
  double interval_s = 0;
  std::string model;
  double running = 0, waiting = 0, queued_tokens = 0;
  double requests_per_s = 0, errors_per_s = 0, prompt_tokens_per_s = 0, output_tokens_per_s = 0;
  double moved_per_s = 0;   // placed again
  double cached_share = 0;  // of the prompt tokens
  std::vector<TopLatency> latencies;
  TopRole prefill, decode;
  std::string advice;              // which role is short; "" when neither
  std::vector<TopWorker> workers;  // prefill first, then by name
};

TopView ViewOf(const TopSample& before, const TopSample& now);

// Lines of at most `columns`, at most `rows` of them. `colors`: with ANSI's.
std::vector<std::string> TopLines(const TopView& view, size_t columns, size_t rows, bool colors);
std::string TopJson(const TopView& view);

}  // namespace baton::cli
