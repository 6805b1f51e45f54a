#pragma once

// The report of `baton bench serve` as one HTML file that needs nothing else. Pure.

#include <string>
#include <utility>
#include <vector>

#include "bench/fleet_samples.h"
#include "bench/serve_stats.h"

namespace baton::cli {

// One load that was sent, and what came back.
struct ServeRun {
  bench::ServeStats stats;
  std::vector<std::pair<double, double>> ttft_over_time, ttft_shares, itl_shares;
  std::vector<std::pair<double, bench::FleetSample>> fleet;  // seconds from the run's beginning
};

std::string ServeHtml(const std::string& url, const bench::ServeSlo& slo,
                      const std::vector<ServeRun>& runs);

}  // namespace baton::cli
