#include "bench/serve_stats.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "bench/report.h"

namespace baton::bench {
namespace {

constexpr size_t kPoints = 200;  // of a curve
constexpr size_t kRecent = 50;

// `sorted` ascends and is not empty.
double At(const std::vector<double>& sorted, double share) {
  const auto rank = static_cast<size_t>(share * static_cast<double>(sorted.size()) + 0.999999);
  return sorted[std::clamp<size_t>(rank, 1, sorted.size()) - 1];
}

std::string KindOf(const LoadAnswer& answer) {
  if (answer.end != LoadEnd::kStatus) return std::string(LoadEndName(answer.end));
  return fmt::format("http {}", answer.facts.status);
}

std::string SpreadJson(const Spread& s) {
  return fmt::format(
      R"({{"mean":{:.6g},"p50":{:.6g},"p90":{:.6g},"p95":{:.6g},"p99":{:.6g},"max":{:.6g}}})",
      s.mean * 1e3, s.p50 * 1e3, s.p90 * 1e3, s.p95 * 1e3, s.p99 * 1e3, s.max * 1e3);
}

std::string SpreadLine(const char* name, const Spread& s) {
  return fmt::format("  {:<28} {:>9.1f} {:>9.1f} {:>9.1f} {:>9.1f} {:>9.1f} {:>9.1f}\n", name,
                     s.mean * 1e3, s.p50 * 1e3, s.p90 * 1e3, s.p95 * 1e3, s.p99 * 1e3, s.max * 1e3);
}

}  // namespace

Spread SpreadOf(std::vector<double> values) {
  if (values.empty()) return {};
  std::ranges::sort(values);
  const double sum = std::accumulate(values.begin(), values.end(), 0.0);
  return {sum / static_cast<double>(values.size()),
          At(values, 0.5),
          At(values, 0.9),
          At(values, 0.95),
          At(values, 0.99),
          values.back()};
}

void ServeCollector::Add(const LoadAnswer& answer, int64_t input_words) {
  ++requests_;
  begin_ = std::min(begin_, answer.due);
  end_ = std::max(end_, answer.ended);
  latest_send_s_ = std::max(latest_send_s_, Seconds(answer.sent - answer.due));
  if (answer.end != LoadEnd::kOk) {
    ++errors_[KindOf(answer)];
    if (first_error_.empty()) first_error_ = answer.facts.error;
    return;
  }
  ++ok_;
  input_tokens_ += answer.facts.prompt_tokens >= 0 ? answer.facts.prompt_tokens : input_words;
  output_tokens_ += answer.facts.output_tokens >= 0 ? answer.facts.output_tokens : answer.pieces;
  const double ttft_s = Seconds(answer.first_piece - answer.due);
  double gaps_s = 0;
  for (const float gap_s : answer.gaps_s) {
    gaps_s += gap_s;
    itl_s_.push_back(gap_s);
  }
  const double mean_gap_s =
      answer.gaps_s.empty() ? 0 : gaps_s / static_cast<double>(answer.gaps_s.size());
  due_.push_back(answer.due);
  ttft_s_.push_back(ttft_s);
  e2e_s_.push_back(Seconds(answer.ended - answer.due));
  const bool good =
      (slo_.ttft_s <= 0 || ttft_s <= slo_.ttft_s) && (slo_.itl_s <= 0 || mean_gap_s <= slo_.itl_s);
  good_ += good ? 1 : 0;
}

ServeStats ServeCollector::Finish() const {
  ServeStats stats;
  stats.requests = requests_;
  stats.ok = ok_;
  stats.errors = errors_;
  stats.first_error = first_error_;
  stats.latest_send_s = latest_send_s_;
  stats.ttft_s = SpreadOf(ttft_s_);
  stats.itl_s = SpreadOf(itl_s_);
  stats.e2e_s = SpreadOf(e2e_s_);
  if (requests_ == 0) return stats;
  stats.duration_s = Seconds(end_ - begin_);
  stats.good_share = static_cast<double>(good_) / static_cast<double>(requests_);
  if (ok_ > 0) {
    stats.mean_input_tokens = static_cast<double>(input_tokens_) / static_cast<double>(ok_);
    stats.mean_output_tokens = static_cast<double>(output_tokens_) / static_cast<double>(ok_);
  }
  if (stats.duration_s <= 0) return stats;
  stats.requests_per_s = static_cast<double>(ok_) / stats.duration_s;
  stats.input_tokens_per_s = static_cast<double>(input_tokens_) / stats.duration_s;
  stats.output_tokens_per_s = static_cast<double>(output_tokens_) / stats.duration_s;
  stats.good_per_s = static_cast<double>(good_) / stats.duration_s;
  return stats;
}

double ServeCollector::RecentTtft() const {
  if (ttft_s_.empty()) return 0;
  const size_t count = std::min(kRecent, ttft_s_.size());
  return SpreadOf({ttft_s_.end() - static_cast<std::ptrdiff_t>(count), ttft_s_.end()}).p50;
}

std::vector<std::pair<double, double>> ServeCollector::TtftOverTime() const {
  std::vector<std::pair<double, double>> points;
  for (size_t i = 0; i < ttft_s_.size(); ++i) {
    points.emplace_back(Seconds(due_[i] - begin_), ttft_s_[i]);
  }
  std::ranges::sort(points);
  return points;
}

std::vector<std::pair<double, double>> ServeCollector::Shares(std::vector<double> values) {
  std::ranges::sort(values);
  std::vector<std::pair<double, double>> points;
  const size_t stride = std::max<size_t>(1, values.size() / kPoints);
  for (size_t i = 0; i < values.size(); i += stride) {
    points.emplace_back(values[i], static_cast<double>(i + 1) / static_cast<double>(values.size()));
  }
  if (!values.empty()) points.emplace_back(values.back(), 1.0);
  return points;
}

std::string ServeStatsJson(const ServeStats& stats, const ServeSlo& slo) {
  std::string errors;
  for (const auto& [kind, count] : stats.errors) {
    errors += fmt::format("{}{}:{}", errors.empty() ? "" : ",", JsonString(kind), count);
  }
  return fmt::format(
      R"({{"rate":{:.6g},"concurrency":{},"requests":{},"ok":{},"errors":{{{}}},)"
      R"("duration_s":{:.6g},"requests_per_s":{:.6g},"input_tokens_per_s":{:.6g},)"
      R"("output_tokens_per_s":{:.6g},"mean_input_tokens":{:.6g},"mean_output_tokens":{:.6g},)"
      R"("latest_send_ms":{:.6g},"slo_ttft_ms":{:.6g},"slo_itl_ms":{:.6g},"goodput_per_s":{:.6g},)"
      R"("goodput_share":{:.6g},"ttft_ms":{},"itl_ms":{},"e2e_ms":{}}})",
      stats.offered_per_s, stats.concurrency, stats.requests, stats.ok, errors, stats.duration_s,
      stats.requests_per_s, stats.input_tokens_per_s, stats.output_tokens_per_s,
      stats.mean_input_tokens, stats.mean_output_tokens, stats.latest_send_s * 1e3,
      slo.ttft_s * 1e3, slo.itl_s * 1e3, stats.good_per_s, stats.good_share,
      SpreadJson(stats.ttft_s), SpreadJson(stats.itl_s), SpreadJson(stats.e2e_s));
}

std::string ServeStatsText(const ServeStats& stats, const ServeSlo& slo) {
  std::string text;
  if (stats.concurrency > 0) {
    text += fmt::format("{} at a time", stats.concurrency);
  } else {
    text += fmt::format("{:.4g} requests a second", stats.offered_per_s);
  }
  text += fmt::format(": {} requests in {:.1f} s, {} answered\n", stats.requests, stats.duration_s,
                      stats.ok);
  for (const auto& [kind, count] : stats.errors) text += fmt::format("  {:<28} {}\n", kind, count);
  if (!stats.first_error.empty()) text += fmt::format("  the first error: {}\n", stats.first_error);
  text += fmt::format("  {:<28} {:.4g}\n", "requests/s", stats.requests_per_s);
  text += fmt::format("  {:<28} {:.6g} in, {:.6g} out\n", "tokens/s", stats.input_tokens_per_s,
                      stats.output_tokens_per_s);
  text += fmt::format("  {:<28} {:.6g} in, {:.6g} out\n", "tokens a request",
                      stats.mean_input_tokens, stats.mean_output_tokens);
  if (slo.any()) {
    text += fmt::format("  {:<28} {:.4g} requests/s, {:.1f}% of all\n", "goodput", stats.good_per_s,
                        stats.good_share * 100);
  }
  text += fmt::format("  {:<28} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}\n", "milliseconds", "mean",
                      "p50", "p90", "p95", "p99", "max");
  text += SpreadLine("to the first token", stats.ttft_s);
  text += SpreadLine("between tokens", stats.itl_s);
  text += SpreadLine("to the end", stats.e2e_s);
  if (stats.latest_send_s > 0.01) {
    text += fmt::format("  requests were sent up to {:.0f} ms late: this machine was busy\n",
                        stats.latest_send_s * 1e3);
  }
  return text;
}

}  // namespace baton::bench
