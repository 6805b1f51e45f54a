#include "cli/top_view.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>
#include <map>
#include <tuple>
#include <utility>

namespace baton::cli {
namespace {

namespace json = boost::json;

// When a role counts as short, and the other as having room to spare.
constexpr double kShort = 0.85;
constexpr double kSpare = 0.5;

constexpr std::pair<std::string_view, std::string_view> kLatencies[] = {
    {"first token", "vllm:time_to_first_token_seconds"},
    {"next token", "vllm:inter_token_latency_seconds"},
    {"whole", "vllm:e2e_request_latency_seconds"},
    {"queue", "vllm:request_queue_time_seconds"},
    {"prefill", "vllm:request_prefill_time_seconds"},
    {"KV exposed", "baton_handoff_exposed_seconds"},
};

double Number(const json::object& object, const char* field) {
  const json::value* value = object.if_contains(field);
  return value != nullptr && value->is_number() ? value->to_number<double>() : 0;
}

// What would move a terminal's cursor, or worse, is not shown.
std::string Plain(std::string text) {
  std::ranges::replace_if(
      text, [](char c) { return c < 0x20 || c > 0x7e; }, '?');
  return text;
}

std::string Text(const json::object& object, const char* field) {
  const json::value* value = object.if_contains(field);
  return value != nullptr && value->is_string() ? std::string(value->get_string()) : "";
}

bool Flag(const json::object& object, const char* field) {
  const json::value* value = object.if_contains(field);
  return value != nullptr && value->is_bool() && value->get_bool();
}

double Share(double part, double whole) { return whole > 0 ? std::min(1.0, part / whole) : 0; }

// Counters that began anew say nothing of the time between.
double Rate(const TopSample& before, const TopSample& now, std::string_view name) {
  const double seconds = Seconds(now.at - before.at);
  const double grown = now.metrics.Sum(name) - before.metrics.Sum(name);
  return seconds > 0 ? std::max(0.0, grown) / seconds : 0;
}

TopRole RoleOf(const std::vector<TopWorker>& workers, std::string_view name) {
  TopRole role;
  double held = 0, total = 0;
  for (const TopWorker& worker : workers) {
    if (worker.role != name) continue;
    ++role.workers;
    role.running += worker.running;
    role.waiting += worker.waiting;
    if (worker.state != "ready") continue;
    ++role.ready;
    role.busy += worker.busy;
    held += worker.blocks_held;
    total += worker.blocks_total;
  }
  if (role.ready > 0) role.busy /= role.ready;
  role.kv_held = Share(held, total);
  return role;
}

// A decode worker computes all the time as soon as it has one stream: how full it is, its KV says.
// A prefill worker's KV is its cache: how full it is, its time says.
std::string AdviceOf(const TopView& view) {
  const TopRole& prefill = view.prefill;
  const TopRole& decode = view.decode;
  if (decode.ready == 0) return "no decode worker is ready";
  if (prefill.ready == 0) return "";
  const bool prefill_short = prefill.busy >= kShort && (prefill.waiting > 0 || view.waiting > 0);
  const bool decode_short = decode.kv_held >= kShort || decode.waiting > 0;
  const std::string numbers = fmt::format("prefill is {:.0f}% busy, decode holds {:.0f}% of its KV",
                                          100 * prefill.busy, 100 * decode.kv_held);
  if (prefill_short && decode_short) return numbers + ": both are short, add workers";
  if (prefill_short && decode.kv_held < kSpare && decode.ready > 1) {
    return numbers + ": prefill is short, 'baton role' can make a decode worker one";
  }
  if (prefill_short) return numbers + ": prefill is short";
  if (decode_short && prefill.busy < kSpare && prefill.ready > 1) {
    return numbers + ": decode is short, 'baton role' can make a prefill worker one";
  }
  if (decode_short) return numbers + ": decode is short";
  return "";
}

std::string Time(double seconds) {
  if (seconds < 0.0995) return fmt::format("{:.1f} ms", seconds * 1000);
  if (seconds < 0.9995) return fmt::format("{:.0f} ms", seconds * 1000);
  return fmt::format("{:.2f} s", seconds);
}

std::string Bar(double share, size_t cells) {
  const auto full = static_cast<size_t>(share * static_cast<double>(cells) + 0.5);
  return std::string(full, '#') + std::string(cells - full, '.');
}

std::string RoleLine(std::string_view name, const TopRole& role) {
  return fmt::format(
      "{:<8} {}/{} ready   busy {} {:>3.0f}%   KV held {} {:>3.0f}%   "
      "{:.0f} running, {:.0f} waiting",
      name, role.ready, role.workers, Bar(role.busy, 10), 100 * role.busy, Bar(role.kv_held, 10),
      100 * role.kv_held, role.running, role.waiting);
}

std::string WorkerLine(const TopWorker& worker) {
  return fmt::format("{:<20} {:<8} {:<10} {:>7.0f} {:>7.0f} {:>6.0f}  {} {:>4.0f}%  {} {:>4.0f}%",
                     worker.name.substr(0, 20), worker.role,
                     worker.suspect ? worker.state + "!" : worker.state, worker.running,
                     worker.waiting, worker.transfers, Bar(worker.busy, 8), 100 * worker.busy,
                     Bar(Share(worker.blocks_held, worker.blocks_total), 8),
                     100 * Share(worker.blocks_held, worker.blocks_total));
}

json::object RoleJson(const TopRole& role) {
  return {{"workers", role.workers}, {"ready", role.ready},     {"busy", role.busy},
          {"kv_held", role.kv_held}, {"running", role.running}, {"waiting", role.waiting}};
}

}  // namespace

absl::StatusOr<TopSample> ReadTopSample(TimePoint at, std::string_view metrics,
                                        std::string_view workers) {
  TopSample sample{at, Metrics(metrics), {}};
  boost::system::error_code error;
  const json::value value = json::parse({workers.data(), workers.size()}, error);
  const json::value* list =
      !error && value.is_object() ? value.get_object().if_contains("workers") : nullptr;
  if (list == nullptr || !list->is_array()) {
    return absl::InternalError("the router's list of workers is not as expected");
  }
  for (const json::value& one : list->get_array()) {
    if (!one.is_object()) continue;
    const json::object& object = one.get_object();
    TopWorker worker{.name = Text(object, "name"),
                     .role = Text(object, "role"),
                     .state = Text(object, "state"),
                     .suspect = Flag(object, "suspect"),
                     .running = Number(object, "running"),
                     .waiting = Number(object, "waiting"),
                     .transfers = Number(object, "transfers"),
                     .blocks_held = Number(object, "blocks_held"),
                     .blocks_cached = Number(object, "blocks_cached"),
                     .blocks_total = Number(object, "blocks_total")};
    if (worker.name.empty()) worker.name = Text(object, "address");
    worker.busy_s =
        sample.metrics.Sum("baton_worker_busy_seconds_total", {{"worker", worker.name}});
    sample.workers.push_back(std::move(worker));
  }
  return sample;
}

TopView ViewOf(const TopSample& before, const TopSample& now) {
  TopView view;
  view.interval_s = Seconds(now.at - before.at);
  const auto& running = now.metrics.Of("vllm:num_requests_running");
  if (!running.empty()) {
    const auto model = running.front().labels.find("model_name");
    if (model != running.front().labels.end()) view.model = model->second;
  }
  view.running = now.metrics.Sum("vllm:num_requests_running");
  view.waiting = now.metrics.Sum("vllm:num_requests_waiting");
  view.queued_tokens = now.metrics.Sum("baton_queue_prompt_tokens");
  view.requests_per_s = Rate(before, now, "vllm:request_success_total");
  view.errors_per_s = Rate(before, now, "baton_request_errors_total");
  view.prompt_tokens_per_s = Rate(before, now, "vllm:prompt_tokens_total");
  view.output_tokens_per_s = Rate(before, now, "vllm:generation_tokens_total");
  view.moved_per_s = Rate(before, now, "baton_requests_placed_again_total");
  view.cached_share = Share(Rate(before, now, "vllm:prefix_cache_hits_total"),
                            Rate(before, now, "vllm:prefix_cache_queries_total"));
  for (const auto& [name, histogram] : kLatencies) {
    const auto all = now.metrics.Buckets(histogram);
    TopLatency latency{name, QuantilesOf(Since(before.metrics.Buckets(histogram), all)), true};
    if (latency.quantiles.count <= 0) latency = {name, QuantilesOf(all), false};
    view.latencies.push_back(latency);
  }
  std::map<std::string, double> busy_before;
  for (const TopWorker& worker : before.workers) busy_before[worker.name] = worker.busy_s;
  view.workers = now.workers;
  for (TopWorker& worker : view.workers) {
    const auto earlier = busy_before.find(worker.name);
    if (earlier == busy_before.end() || worker.busy_s < earlier->second) continue;
    worker.busy = Share(worker.busy_s - earlier->second, view.interval_s);
  }
  std::ranges::sort(view.workers, [](const TopWorker& a, const TopWorker& b) {
    return std::tuple(a.role != "prefill", std::string_view(a.role), std::string_view(a.name)) <
           std::tuple(b.role != "prefill", std::string_view(b.role), std::string_view(b.name));
  });
  view.prefill = RoleOf(view.workers, "prefill");
  view.decode = RoleOf(view.workers, "decode");
  view.advice = AdviceOf(view);
  return view;
}

std::vector<std::string> TopLines(const TopView& view, size_t columns, size_t rows, bool colors) {
  std::vector<std::string> lines;
  std::vector<size_t> bold;
  const auto head = [&](std::string line) {
    bold.push_back(lines.size());
    lines.push_back(std::move(line));
  };
  head(fmt::format("baton top   {}   {:.0f} running, {:.0f} waiting ({:.0f} prompt tokens)",
                   view.model, view.running, view.waiting, view.queued_tokens));
  lines.push_back(
      fmt::format("{:.1f} requests/s, {:.1f} errors/s, {:.1f} moved/s   {:.0f} prompt "
                  "tokens/s ({:.0f}% cached), {:.0f} output tokens/s",
                  view.requests_per_s, view.errors_per_s, view.moved_per_s,
                  view.prompt_tokens_per_s, 100 * view.cached_share, view.output_tokens_per_s));
  lines.emplace_back();
  lines.push_back(RoleLine("prefill", view.prefill));
  lines.push_back(RoleLine("decode", view.decode));
  if (!view.advice.empty()) head(view.advice);
  lines.emplace_back();
  head(fmt::format("{:<12} {:>10} {:>10} {:>10}", "latency", "p50", "p95", "p99"));
  for (const TopLatency& latency : view.latencies) {
    const Quantiles& of = latency.quantiles;
    if (of.count <= 0) continue;
    lines.push_back(fmt::format("{:<12} {:>10} {:>10} {:>10}{}", latency.name, Time(of.p50),
                                Time(of.p95), Time(of.p99),
                                latency.of_interval ? "" : "   since the start"));
  }
  lines.emplace_back();
  head(fmt::format("{:<20} {:<8} {:<10} {:>7} {:>7} {:>6}  {:<14}  {}", "worker", "role", "state",
                   "running", "waiting", "moving", "busy", "KV held"));
  const size_t room = rows > lines.size() ? rows - lines.size() : 0;
  const bool all = view.workers.size() <= room;
  const size_t shown = all ? view.workers.size() : std::max<size_t>(room, 1) - 1;
  for (size_t i = 0; i < shown; ++i) lines.push_back(WorkerLine(view.workers[i]));
  if (!all) lines.push_back(fmt::format("and {} more workers", view.workers.size() - shown));
  if (lines.size() > rows) lines.resize(rows);
  for (size_t i = 0; i < lines.size(); ++i) {
    lines[i] = Plain(lines[i].substr(0, columns));
    const bool is_head = std::ranges::find(bold, i) != bold.end();
    if (colors && is_head) lines[i] = "\033[1m" + lines[i] + "\033[0m";
  }
  return lines;
}

std::string TopJson(const TopView& view) {
  json::object latency;
  for (const TopLatency& one : view.latencies) {
    std::string name(one.name);
    std::ranges::replace(name, ' ', '_');
    latency[name] = json::object{{"count", one.quantiles.count},
                                 {"p50_s", one.quantiles.p50},
                                 {"p95_s", one.quantiles.p95},
                                 {"p99_s", one.quantiles.p99},
                                 {"since_start", !one.of_interval}};
  }
  json::array workers;
  for (const TopWorker& worker : view.workers) {
    workers.push_back(json::object{{"name", worker.name},
                                   {"role", worker.role},
                                   {"state", worker.state},
                                   {"suspect", worker.suspect},
                                   {"running", worker.running},
                                   {"waiting", worker.waiting},
                                   {"transfers", worker.transfers},
                                   {"busy", worker.busy},
                                   {"blocks_held", worker.blocks_held},
                                   {"blocks_cached", worker.blocks_cached},
                                   {"blocks_total", worker.blocks_total}});
  }
  return json::serialize(json::object{{"interval_s", view.interval_s},
                                      {"model", view.model},
                                      {"running", view.running},
                                      {"waiting", view.waiting},
                                      {"queued_prompt_tokens", view.queued_tokens},
                                      {"requests_per_s", view.requests_per_s},
                                      {"errors_per_s", view.errors_per_s},
                                      {"placed_again_per_s", view.moved_per_s},
                                      {"prompt_tokens_per_s", view.prompt_tokens_per_s},
                                      {"output_tokens_per_s", view.output_tokens_per_s},
                                      {"cached_share", view.cached_share},
                                      {"latency", std::move(latency)},
                                      {"prefill", RoleJson(view.prefill)},
                                      {"decode", RoleJson(view.decode)},
                                      {"advice", view.advice},
                                      {"workers", std::move(workers)}});
}

}  // namespace baton::cli
