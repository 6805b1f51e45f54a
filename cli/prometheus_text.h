#pragma once

// Prometheus' text format, as far as routers write it: their /metrics as numbers. Pure.

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace baton::cli {

using MetricLabels = std::map<std::string, std::string>;

struct MetricSample {
  MetricLabels labels;
  double value = 0;
};

// A histogram's buckets, or the difference of two.
struct Quantiles {
  double count = 0;
  double p50 = 0, p95 = 0, p99 = 0;
};

class Metrics {
 public:
  Metrics() = default;
  // Lines that are no samples are passed over.
  explicit Metrics(std::string_view text);

  bool empty() const { return by_name_.empty(); }
  const std::vector<MetricSample>& Of(std::string_view name) const;
  // Of all samples with these labels; 0 without any.
  double Sum(std::string_view name, const MetricLabels& with = {}) const;
  // Upper bound to how many are at most that, over all its series.
  std::map<double, double> Buckets(std::string_view histogram) const;

 private:
  std::map<std::string, std::vector<MetricSample>, std::less<>> by_name_;
};

// Within a bucket as if all values were spread evenly; of what is above the last bound, that bound.
Quantiles QuantilesOf(const std::map<double, double>& buckets);

// What came between two scrapes of the same histogram. Empty when it began anew in between.
std::map<double, double> Since(const std::map<double, double>& before,
                               const std::map<double, double>& now);

}  // namespace baton::cli
