#include "cli/serve_html.h"

#include <fmt/format.h>

#include "cli/svg_plot.h"

namespace baton::cli {
namespace {

using bench::FleetSample;
using bench::RoleLoad;
using bench::Spread;

std::string NameOf(const ServeRun& run) {
  return run.stats.concurrency > 0 ? fmt::format("{} at a time", run.stats.concurrency)
                                   : fmt::format("{:.4g}/s", run.stats.offered_per_s);
}

// Throughput against a latency, a point a run.
std::string LatencyPlot(const char* title, const char* label, const std::vector<ServeRun>& runs,
                        Spread bench::ServeStats::*spread) {
  LinePlot plot{.title = title,
                .x_label = "output tokens a second",
                .y_label = label,
                .series = {{.name = "p50"}, {.name = "p99"}}};
  for (const ServeRun& run : runs) {
    const Spread& times = run.stats.*spread;
    plot.series[0].points.emplace_back(run.stats.output_tokens_per_s, times.p50 * 1e3);
    plot.series[1].points.emplace_back(run.stats.output_tokens_per_s, times.p99 * 1e3);
    plot.marks.push_back({NameOf(run), run.stats.output_tokens_per_s, times.p50 * 1e3});
  }
  return LinePlotSvg(plot);
}

std::string SharesPlot(const char* title, const std::vector<ServeRun>& runs,
                       std::vector<std::pair<double, double>> ServeRun::*shares) {
  LinePlot plot{.title = title, .x_label = "milliseconds", .y_label = "share of them within"};
  for (const ServeRun& run : runs) {
    Series series{.name = NameOf(run)};
    for (const auto& [value_s, share] : run.*shares) {
      series.points.emplace_back(value_s * 1e3, share);
    }
    plot.series.push_back(std::move(series));
  }
  return LinePlotSvg(plot);
}

std::string TtftPlot(const ServeRun& run) {
  LinePlot plot{.title = "Time to the first token, over the run: " + NameOf(run),
                .x_label = "seconds",
                .y_label = "milliseconds",
                .series = {{.name = "TTFT"}}};
  for (const auto& [at_s, ttft_s] : run.ttft_over_time) {
    plot.series[0].points.emplace_back(at_s, ttft_s * 1e3);
  }
  return LinePlotSvg(plot);
}

// `value` of both kinds of workers over the run.
template <typename Value>
std::string FleetPlot(const ServeRun& run, const std::string& title, const char* label,
                      Value value) {
  LinePlot plot{.title = title + ": " + NameOf(run),
                .x_label = "seconds",
                .y_label = label,
                .series = {{.name = "prefill"}, {.name = "decode"}}};
  for (const auto& [at_s, sample] : run.fleet) {
    plot.series[0].points.emplace_back(at_s, value(sample.prefill));
    plot.series[1].points.emplace_back(at_s, value(sample.decode));
  }
  return LinePlotSvg(plot);
}

std::string FleetPlots(const ServeRun& run) {
  if (run.fleet.empty()) return "";
  return FleetPlot(run, "Workers that had something to compute", "% of them",
                   [](const RoleLoad& load) {
                     return load.workers == 0 ? 0 : 100.0 * load.busy / load.workers;
                   }) +
         FleetPlot(run, "Requests at workers, running and waiting", "requests",
                   [](const RoleLoad& load) { return load.running + load.waiting; }) +
         FleetPlot(run, "KV blocks that requests hold", "% of them", [](const RoleLoad& load) {
           return load.blocks_total > 0 ? 100 * load.blocks_held / load.blocks_total : 0;
         });
}

}  // namespace

std::string ServeHtml(const std::string& url, const bench::ServeSlo& slo,
                      const std::vector<ServeRun>& runs) {
  std::string text, plots;
  for (const ServeRun& run : runs) text += bench::ServeStatsText(run.stats, slo) + "\n";
  if (runs.size() > 1) {
    plots += LatencyPlot("Throughput against time to the first token", "milliseconds", runs,
                         &bench::ServeStats::ttft_s);
    plots += LatencyPlot("Throughput against time between tokens", "milliseconds", runs,
                         &bench::ServeStats::itl_s);
  }
  plots += SharesPlot("Time to the first token", runs, &ServeRun::ttft_shares);
  plots += SharesPlot("Time between tokens", runs, &ServeRun::itl_shares);
  for (const ServeRun& run : runs) plots += TtftPlot(run) + FleetPlots(run);
  const std::string title = HtmlEscaped("Load on " + url);
  return fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{0}</title>\n"
      "<style>body{{font-family:sans-serif;max-width:60em;margin:2em auto;padding:0 1em;"
      "background:#fff;color:#000}}pre{{overflow-x:auto}}svg{{max-width:100%;height:auto}}"
      "</style></head>\n<body>\n<h1>{0}</h1>\n<pre>{1}</pre>\n{2}</body></html>\n",
      title, HtmlEscaped(text), plots);
}

}  // namespace baton::cli
