#pragma once

// What a load's answers say together. Pure.

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "bench/load_client.h"

namespace baton::bench {

struct Spread {
  double mean = 0, p50 = 0, p90 = 0, p95 = 0, p99 = 0, max = 0;  // all 0 of nothing
};
Spread SpreadOf(std::vector<double> values);

// Objectives of a request; 0: none.
struct ServeSlo {
  double ttft_s = 0;  // from when the request was due to its first text
  double itl_s = 0;   // mean time between its pieces of text
  bool any() const { return ttft_s > 0 || itl_s > 0; }
};

struct ServeStats {
  double offered_per_s = 0;  // what the load was to be; 0: as fast as answers came
  int64_t concurrency = 0;   // of a closed load
  int64_t requests = 0;
  int64_t ok = 0;
  std::map<std::string, int64_t> errors;  // by kind
  std::string first_error;                // in words
  double duration_s = 0;                  // from the first request's due time to the last end
  double requests_per_s = 0;              // answered well
  double input_tokens_per_s = 0;
  double output_tokens_per_s = 0;
  double good_per_s = 0;                                 // of these, within the objectives
  double good_share = 0;                                 // of all requests
  double mean_input_tokens = 0, mean_output_tokens = 0;  // as the server counts, where it does
  double latest_send_s = 0;                              // how late the client was at worst
  Spread ttft_s, itl_s, e2e_s;
};

class ServeCollector {
 public:
  explicit ServeCollector(const ServeSlo& slo) : slo_(slo) {}

  // `input_words`: for servers that do not tell their own count.
  void Add(const LoadAnswer& answer, int64_t input_words);
  ServeStats Finish() const;  // of all until now

  int64_t done() const { return requests_; }
  int64_t failed() const { return requests_ - ok_; }
  // Of the last few answers, for a line of progress.
  double RecentTtft() const;
  // Due time and TTFT of each request that was answered well, seconds from the first due one.
  std::vector<std::pair<double, double>> TtftOverTime() const;
  // Value and share of the values up to it, at most some hundred points.
  std::vector<std::pair<double, double>> TtftShares() const { return Shares(ttft_s_); }
  std::vector<std::pair<double, double>> ItlShares() const { return Shares(itl_s_); }

 private:
  static std::vector<std::pair<double, double>> Shares(std::vector<double> values);

  const ServeSlo slo_;
  int64_t requests_ = 0, ok_ = 0, good_ = 0;
  int64_t input_tokens_ = 0, output_tokens_ = 0;
  std::map<std::string, int64_t> errors_;
  std::string first_error_;
  TimePoint begin_ = TimePoint::max(), end_ = TimePoint::min();
  double latest_send_s_ = 0;
  std::vector<double> ttft_s_, itl_s_, e2e_s_;
  std::vector<TimePoint> due_;  // beside ttft_s_
};

std::string ServeStatsJson(const ServeStats& stats, const ServeSlo& slo);
std::string ServeStatsText(const ServeStats& stats, const ServeSlo& slo);

}  // namespace baton::bench
