#include "cli/prometheus_text.h"

#include <charconv>
#include <cmath>
#include <limits>
#include <utility>

namespace baton::cli {
namespace {

constexpr size_t kMaxSamples = size_t{4} << 20;

bool TakeNumber(std::string_view text, double* value) {
  if (text == "+Inf" || text == "Inf") {
    *value = std::numeric_limits<double>::infinity();
    return true;
  }
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), *value);
  return failed == std::errc() && end != text.data();
}

// `a="b",c="d"}` up to and with the brace; what is left of `text` is behind it.
bool TakeLabels(std::string_view* text, MetricLabels* labels) {
  while (!text->starts_with('}')) {
    const size_t equals = text->find("=\"");
    if (equals == std::string_view::npos) return false;
    std::string& value = (*labels)[std::string(text->substr(0, equals))];
    text->remove_prefix(equals + 2);
    while (!text->starts_with('"')) {
      if (text->empty()) return false;
      const bool escaped = text->starts_with('\\') && text->size() > 1;
      if (escaped) text->remove_prefix(1);
      value += escaped && text->front() == 'n' ? '\n' : text->front();
      text->remove_prefix(1);
    }
    text->remove_prefix(1);
    if (text->starts_with(',')) text->remove_prefix(1);
  }
  text->remove_prefix(1);
  return true;
}

}  // namespace

Metrics::Metrics(std::string_view text) {
  size_t samples = 0;
  while (!text.empty() && samples < kMaxSamples) {
    std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    if (line.starts_with('#')) continue;
    const size_t end = line.find_first_of("{ ");
    if (end == std::string_view::npos || end == 0) continue;
    const std::string_view name = line.substr(0, end);
    MetricSample sample;
    const bool labelled = line[end] == '{';
    line.remove_prefix(labelled ? end + 1 : end);
    if (labelled && !TakeLabels(&line, &sample.labels)) continue;
    while (line.starts_with(' ')) line.remove_prefix(1);
    if (!TakeNumber(line, &sample.value)) continue;
    by_name_[std::string(name)].push_back(std::move(sample));
    ++samples;
  }
}

const std::vector<MetricSample>& Metrics::Of(std::string_view name) const {
  static const std::vector<MetricSample> none;
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? none : found->second;
}

double Metrics::Sum(std::string_view name, const MetricLabels& with) const {
  double sum = 0;
  for (const MetricSample& sample : Of(name)) {
    bool fits = true;
    for (const auto& [label, value] : with) {
      const auto has = sample.labels.find(label);
      fits = fits && has != sample.labels.end() && has->second == value;
    }
    if (fits) sum += sample.value;
  }
  return sum;
}

std::map<double, double> Metrics::Buckets(std::string_view histogram) const {
  std::map<double, double> buckets;
  for (const MetricSample& sample : Of(std::string(histogram) + "_bucket")) {
    const auto le = sample.labels.find("le");
    double bound = 0;
    if (le != sample.labels.end() && TakeNumber(le->second, &bound)) {
      buckets[bound] += sample.value;
    }
  }
  return buckets;
}

Quantiles QuantilesOf(const std::map<double, double>& buckets) {
  Quantiles quantiles;
  if (buckets.empty()) return quantiles;
  quantiles.count = buckets.rbegin()->second;
  if (quantiles.count <= 0) return quantiles;
  const auto at = [&](double share) {
    const double rank = share * quantiles.count;
    double low = 0, below = 0;
    for (const auto& [bound, upto] : buckets) {
      if (upto >= rank) {
        if (std::isinf(bound)) return low;
        return upto > below ? low + (bound - low) * (rank - below) / (upto - below) : bound;
      }
      low = bound;
      below = upto;
    }
    return low;
  };
  quantiles.p50 = at(0.5);
  quantiles.p95 = at(0.95);
  quantiles.p99 = at(0.99);
  return quantiles;
}

std::map<double, double> Since(const std::map<double, double>& before,
                               const std::map<double, double>& now) {
  std::map<double, double> since;
  for (const auto& [bound, upto] : now) {
    const auto earlier = before.find(bound);
    const double count = upto - (earlier == before.end() ? 0 : earlier->second);
    if (count < 0) return {};
    since[bound] = count;
  }
  return since;
}

}  // namespace baton::cli
