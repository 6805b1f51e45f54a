#include "cli/regret_output.h"

#include <fmt/format.h>

#include <boost/json.hpp>

namespace baton::cli {
namespace {

namespace json = boost::json;
using simulator::LiveReport;
using simulator::PlayedSplit;
using simulator::RegretReport;

double OfBest(const RegretReport& report, const PlayedSplit& split) {
  return split.goodput_per_s / report.chosen.front().goodput_per_s;
}

struct Played {
  const char* how;
  int64_t good;
};
// Of the live report, the clairvoyant first.
std::vector<Played> WaysOf(const LiveReport& report) {
  return {{"best of each half", report.good_clairvoyant},
          {"told when it changes", report.good_told},
          {"live controller", report.good_live},
          {"best of the first half", report.good_stays},
          {"1:1", report.good_equal}};
}

double Share(int64_t part, int64_t whole) {
  return whole > 0 ? static_cast<double>(part) / static_cast<double>(whole) : 0;
}

}  // namespace

std::string RegretTable(const RegretReport& report, int64_t workers) {
  std::string out = fmt::format("{:<14} {:>9} {:>14} {:>14} {:>8}\n", "split", "workers", "goodput",
                                "a worker", "of best");
  for (const PlayedSplit& split : report.chosen) {
    out += fmt::format("{:<14} {:>9} {:>12.4g}/s {:>12.4g}/s {:>7.1f}%\n", split.how,
                       fmt::format("{}:{}", split.prefill, split.decode), split.goodput_per_s,
                       split.goodput_per_s / static_cast<double>(workers),
                       OfBest(report, split) * 100);
  }
  return out + fmt::format("\nof {} runs of the simulator\n", report.runs);
}

std::string RegretJson(const RegretReport& report, int64_t workers) {
  json::array splits;
  for (const PlayedSplit& split : report.chosen) {
    splits.push_back({{"split", split.how},
                      {"prefill", split.prefill},
                      {"decode", split.decode},
                      {"goodput_per_s", split.goodput_per_s},
                      {"goodput_per_worker", split.goodput_per_s / static_cast<double>(workers)},
                      {"of_best", OfBest(report, split)}});
  }
  return json::serialize(
      json::object{{"workers", workers}, {"runs", report.runs}, {"splits", std::move(splits)}});
}

std::string LiveTable(const LiveReport& report, int64_t workers) {
  std::string out = fmt::format(
      "{} requests in {:.0f} s; the traffic changes after {:.0f} s. Best split {}:{}, then "
      "{}:{}\n\n",
      report.requests, report.duration_s, report.first_s, report.best_first.prefill,
      report.best_first.decode, report.best_second.prefill, report.best_second.decode);
  out += fmt::format("{:<24} {:>10} {:>14} {:>9}\n", "", "in time", "a worker", "of best");
  for (const Played& way : WaysOf(report)) {
    out += fmt::format(
        "{:<24} {:>9.2f}% {:>12.4g}/s {:>8.1f}%\n", way.how, Share(way.good, report.requests) * 100,
        static_cast<double>(way.good) / report.duration_s / static_cast<double>(workers),
        Share(way.good, report.good_clairvoyant) * 100);
  }
  out +=
      fmt::format("\n{} streams were moved by {} changes\n", report.moved, report.changes.size());
  for (const auto& change : report.changes) {
    out += fmt::format("  after {:.0f} s, {}:{} to {}:{}: {}\n", change.at_s,
                       change.decision.prefill, change.decision.decode, change.decision.new_prefill,
                       change.decision.new_decode, change.decision.reason);
  }
  return out;
}

std::string LiveJson(const LiveReport& report, int64_t workers) {
  json::array ways, changes;
  for (const Played& way : WaysOf(report)) {
    ways.push_back({{"split", way.how},
                    {"good_requests", way.good},
                    {"goodput_per_worker", static_cast<double>(way.good) / report.duration_s /
                                               static_cast<double>(workers)},
                    {"of_best", Share(way.good, report.good_clairvoyant)}});
  }
  for (const auto& change : report.changes) {
    changes.push_back({{"at_s", change.at_s},
                       {"prefill", change.decision.new_prefill},
                       {"decode", change.decision.new_decode},
                       {"reason", change.decision.reason}});
  }
  return json::serialize(json::object{{"workers", workers},
                                      {"requests", report.requests},
                                      {"changes_after_s", report.first_s},
                                      {"duration_s", report.duration_s},
                                      {"ways", std::move(ways)},
                                      {"changes", std::move(changes)},
                                      {"moved", report.moved}});
}

}  // namespace baton::cli
