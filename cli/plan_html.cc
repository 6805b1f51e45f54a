#include "cli/plan_html.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "cli/svg_plot.h"
#include "planner/explain.h"

namespace baton::cli {
namespace {

using planner::Plan;
using planner::PlanRequest;
using planner::SecondsText;

constexpr int64_t kMostCells = 14;  // of the heat map, each way

// The classic curve of serving: what each user gets against what the hardware gives, over the
// batch.
std::string ThroughputPlot(const PlanRequest& request, const Plan& plan) {
  const double chips = static_cast<double>(request.deployment.worker.chips());
  const planner::DecodeBatch batch(request.deployment, request.workload, request.batch);
  const auto point = [&](double n) {
    const double step_s = batch.StepSeconds(n);
    return std::pair(step_s * 1000, n / step_s / chips);
  };
  LinePlot plot{.title = "Throughput against latency, over the batch of a decode worker",
                .x_label = "time between tokens, ms",
                .y_label = "tokens a second and chip",
                .series = {{.name = "batch 1 to " + std::to_string(plan.batch_limit)}}};
  for (int64_t n = 1; n <= batch.limit(); n += std::max<int64_t>(1, n / 8)) {
    plot.series[0].points.push_back(point(static_cast<double>(n)));
  }
  plot.series[0].points.push_back(point(static_cast<double>(batch.limit())));
  const double mean = std::max(1.0, std::ceil(plan.mean_batch));
  plot.marks.push_back(
      {fmt::format("mean batch {:.0f}", mean), point(mean).first, point(mean).second});
  return LinePlotSvg(plot);
}

std::string SplitPlot(const PlanRequest& request, const Plan& plan) {
  const auto cells = [](int64_t chosen) {
    return std::clamp<int64_t>(chosen + std::max<int64_t>(3, chosen / 2), 4, kMostCells);
  };
  const int64_t rows = cells(plan.prefill), columns = cells(plan.decode);
  HeatMap map{.title = "Goodput for each number of workers, requests a second and worker",
              .x_label = "decode workers",
              .y_label = "prefill workers",
              .values = planner::GoodputGrid(request, rows, columns)};
  for (int64_t p = 1; p <= rows; ++p) {
    for (int64_t d = 1; d <= columns; ++d) {
      map.values[static_cast<size_t>(p - 1)][static_cast<size_t>(d - 1)] /=
          static_cast<double>(p + d);
    }
  }
  if (plan.prefill <= rows && plan.decode <= columns) {
    map.chosen_row = plan.prefill;
    map.chosen_column = plan.decode;
  }
  return HeatMapSvg(map);
}

// What a stricter or looser first token costs: the same workers split anew each time, and mixed.
std::string FrontierPlot(const PlanRequest& request, const Plan& plan) {
  const double itl_s = planner::ItlObjective(request);
  const double percentile = request.objectives.percentile;
  const int64_t workers = plan.prefill + plan.decode;
  LinePlot plot{
      .title = fmt::format("SLO frontier: goodput of {} workers, gaps {}", workers,
                           std::isinf(itl_s) ? "of any length" : "within " + SecondsText(itl_s)),
      .x_label = fmt::format("objective for {:.4g}% of first tokens, seconds", percentile * 100),
      .y_label = "requests a second",
      .series = {{.name = "split anew"}, {.name = "as planned"}, {.name = "mixed"}}};
  for (const double times : {0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0}) {
    PlanRequest other = request;
    other.objectives.ttft_s = plan.ttft_slo_s * times;
    other.workload.arrivals.per_s = request.workload.arrivals.per_s;
    const auto goodput = [&](const PlanRequest& of) {
      const auto planned = planner::MakePlan(of);
      return planned.ok() ? planned->goodput_per_s : 0;
    };
    other.prefill = plan.prefill;
    other.decode = plan.decode;
    plot.series[1].points.emplace_back(other.objectives.ttft_s, goodput(other));
    other.prefill = other.decode = 0;
    other.fleet_workers = workers;
    plot.series[0].points.emplace_back(other.objectives.ttft_s, goodput(other));
    plot.series[2].points.emplace_back(
        other.objectives.ttft_s, planner::BestMixed(request.deployment, request.workload, workers,
                                                    other.objectives.ttft_s, itl_s, percentile)
                                     .max_rate_per_s);
  }
  plot.marks.push_back({"plan", plan.ttft_slo_s, plan.goodput_per_s});
  return LinePlotSvg(plot);
}

}  // namespace

std::string PlanHtml(const PlanRequest& request, const Plan& plan, const std::string& table,
                     const std::string& derivation) {
  const std::string title = HtmlEscaped(
      fmt::format("{} prefill and {} decode workers: {} on {}", plan.prefill, plan.decode,
                  request.deployment.model.name, request.deployment.hardware.name));
  return fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{0}</title>\n"
      "<style>body{{font-family:sans-serif;max-width:60em;margin:2em auto;padding:0 1em;"
      "background:#fff;color:#000}}pre{{overflow-x:auto}}svg{{max-width:100%;height:auto}}"
      "</style></head>\n<body>\n<h1>{0}</h1>\n<pre>{1}</pre>\n{2}{3}{4}"
      "<h2>How the ratio comes about</h2>\n<pre>{5}</pre>\n</body></html>\n",
      title, HtmlEscaped(table), ThroughputPlot(request, plan), SplitPlot(request, plan),
      FrontierPlot(request, plan), HtmlEscaped(derivation));
}

}  // namespace baton::cli
