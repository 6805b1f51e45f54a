#include "router/fleet_metrics.h"

#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include <map>
#include <utility>

namespace baton::router {
namespace {

using prometheus::MetricFamily;
using Labels = std::vector<prometheus::ClientMetric::Label>;

MetricFamily Gauges(std::string name, std::string help) {
  return {std::move(name), std::move(help), prometheus::MetricType::Gauge, {}};
}

MetricFamily Counters(std::string name, std::string help) {
  return {std::move(name), std::move(help), prometheus::MetricType::Counter, {}};
}

void AddSeries(MetricFamily& family, Labels labels, double value) {
  prometheus::ClientMetric metric;
  metric.label = std::move(labels);
  (family.type == prometheus::MetricType::Counter ? metric.counter.value : metric.gauge.value) =
      value;
  family.metric.push_back(std::move(metric));
}

Labels LabelsOf(const WorkerView& worker, Labels more = {}) {
  Labels labels{{"worker", worker.name}, {"role", worker.role}};
  labels.insert(labels.end(), more.begin(), more.end());
  return labels;
}

void AddLoad(const std::string& model_name, const std::vector<WorkerView>& fleet,
             std::vector<MetricFamily>& families) {
  MetricFamily workers = Gauges("baton_workers", "Workers known, by role and state.");
  MetricFamily usage =
      Gauges("vllm:kv_cache_usage_perc", "Share of a worker's KV blocks held by requests, 0 to 1.");
  MetricFamily blocks = Gauges("baton_kv_blocks", "KV blocks of a worker, by state.");
  MetricFamily requests = Gauges("baton_worker_requests", "Requests at a worker, by state.");
  MetricFamily transfers = Gauges("baton_handoffs_active", "KV handoffs under way.");
  MetricFamily busy =
      Counters("baton_worker_busy_seconds_total",
               "Time that a worker has spent computing steps since it has its role.");
  MetricFamily preemptions =
      Counters("vllm:num_preemptions_total",
               "Sequences that gave their KV blocks to older ones, to be computed again.");
  std::map<std::pair<std::string, std::string>, int> counts;
  for (const WorkerView& worker : fleet) {
    ++counts[{worker.role.empty() ? "unknown" : worker.role, worker.state}];
    if (worker.blocks_total == 0) continue;
    const auto in_state = [&worker](const char* state) {
      return LabelsOf(worker, {{"state", state}});
    };
    AddSeries(blocks, in_state("free"), worker.blocks_free);
    AddSeries(blocks, in_state("held"), worker.blocks_held);
    AddSeries(blocks, in_state("cached"), worker.blocks_cached);
    AddSeries(blocks, in_state("total"), worker.blocks_total);
    AddSeries(requests, in_state("running"), worker.running);
    AddSeries(requests, in_state("waiting"), worker.waiting);
    AddSeries(transfers, LabelsOf(worker), worker.transfers);
    AddSeries(busy, LabelsOf(worker), worker.steps.seconds);
    AddSeries(usage, {{"model_name", model_name}, {"engine", worker.name}},
              static_cast<double>(worker.blocks_held) / worker.blocks_total);
    AddSeries(preemptions, {{"model_name", model_name}, {"engine", worker.name}},
              static_cast<double>(worker.preemptions));
  }
  for (const auto& [key, count] : counts) {
    AddSeries(workers, {{"role", key.first}, {"state", key.second}}, count);
  }
  for (MetricFamily* family :
       {&workers, &usage, &blocks, &requests, &transfers, &busy, &preemptions}) {
    families.push_back(std::move(*family));
  }
}

void AddPaths(const std::vector<WorkerView>& fleet, std::vector<MetricFamily>& families) {
  MetricFamily measured =
      Gauges("baton_kv_path_bytes_per_second",
             "How fast KV came from source to target by a transport, measured once.");
  MetricFamily expected = Gauges("baton_kv_path_expected_bytes_per_second",
                                 "What a transport of this kind should give there.");
  MetricFamily in_use =
      Gauges("baton_kv_path_in_use", "1 for the transport that handoffs of the pair take, else 0.");
  for (const WorkerView& target : fleet) {
    for (const worker_link::KvPath& path : target.paths) {
      const Labels labels{
          {"source", path.source}, {"target", target.name}, {"transport", path.transport}};
      AddSeries(measured, labels, path.bytes_per_s);
      AddSeries(expected, labels, path.expected_bytes_per_s);
      AddSeries(in_use, labels, path.in_use ? 1 : 0);
    }
  }
  for (MetricFamily* family : {&measured, &expected, &in_use}) {
    families.push_back(std::move(*family));
  }
}

void AddKvCounters(const std::vector<WorkerView>& fleet, std::vector<MetricFamily>& families) {
  MetricFamily handoffs = Counters("baton_worker_handoffs_total",
                                   "Prompts whose KV a decode worker granted, by result.");
  MetricFamily converted = Counters("baton_kv_conversions_total",
                                    "Handoffs whose KV was converted from another layout.");
  MetricFamily mismatches =
      Counters("baton_kv_checksum_mismatches_total",
               "Transfers that ended because a block was not what its source had announced.");
  MetricFamily fetches = Counters("baton_prefix_fetches_total",
                                  "Cached prefixes asked of another prefill worker, by result.");
  MetricFamily tokens =
      Counters("baton_prefix_fetched_tokens_total", "Prompt tokens whose KV was fetched.");
  MetricFamily bytes = Counters("baton_prefix_fetched_bytes_total", "KV bytes fetched.");
  for (const WorkerView& worker : fleet) {
    if (worker.blocks_total == 0) continue;
    const worker_link::KvCounters& kv = worker.kv;
    const auto add = [&worker](MetricFamily& family, const char* result, int64_t count) {
      AddSeries(family, LabelsOf(worker, {{"result", result}}), static_cast<double>(count));
    };
    AddSeries(mismatches, LabelsOf(worker), static_cast<double>(kv.checksum_mismatches));
    if (worker.role == worker_link::RoleName(worker_link::Role::kDecode)) {
      add(handoffs, "ok", kv.handoffs);
      add(handoffs, "failed", kv.handoffs_failed);
      AddSeries(converted, LabelsOf(worker), static_cast<double>(kv.handoffs_converted));
    } else {
      add(fetches, "ok", kv.prefixes_fetched);
      add(fetches, "not_offered", kv.prefixes_not_offered);
      add(fetches, "refused", kv.prefixes_refused);
      add(fetches, "failed", kv.prefixes_failed);
      AddSeries(tokens, LabelsOf(worker), static_cast<double>(kv.prefix_tokens_fetched));
      AddSeries(bytes, LabelsOf(worker), static_cast<double>(kv.prefix_bytes_fetched));
    }
  }
  for (MetricFamily* family : {&handoffs, &converted, &mismatches, &fetches, &tokens, &bytes}) {
    families.push_back(std::move(*family));
  }
}

void AddDiskCaches(const std::vector<WorkerView>& fleet, std::vector<MetricFamily>& families) {
  MetricFamily on =
      Gauges("baton_kv_disk_on", "1 while a worker's KV disk cache works, 0 when it failed.");
  MetricFamily held = Gauges("baton_kv_disk_blocks", "KV blocks of a disk cache, by state.");
  MetricFamily events =
      Counters("baton_kv_disk_events_total",
               "KV blocks since the worker's start, by what the disk cache did with them.");
  for (const WorkerView& worker : fleet) {
    const worker_link::DiskCacheStatus& disk = worker.disk;
    if (disk.blocks_total == 0) continue;
    AddSeries(on, {{"worker", worker.name}}, disk.on ? 1 : 0);
    AddSeries(held, {{"worker", worker.name}, {"state", "cached"}}, disk.blocks);
    AddSeries(held, {{"worker", worker.name}, {"state", "total"}}, disk.blocks_total);
    const auto count = [&](const char* event, int64_t blocks) {
      AddSeries(events, {{"worker", worker.name}, {"event", event}}, static_cast<double>(blocks));
    };
    count("hit", disk.blocks_hit);
    count("missed", disk.blocks_missed);
    count("read", disk.blocks_read);
    count("written", disk.blocks_written);
    count("dropped", disk.blocks_dropped);
    count("evicted", disk.blocks_evicted);
    count("damaged", disk.blocks_damaged);
  }
  for (MetricFamily* family : {&on, &held, &events}) {
    if (!family->metric.empty()) families.push_back(std::move(*family));
  }
}

}  // namespace

void AddRequests(const std::string& model_name, int32_t running, int32_t waiting,
                 std::vector<MetricFamily>& families) {
  families.push_back(
      Gauges("vllm:num_requests_running", "Requests that this router has at workers."));
  AddSeries(families.back(), {{"model_name", model_name}}, running);
  families.push_back(Gauges("vllm:num_requests_waiting", "Requests that wait here for a worker."));
  AddSeries(families.back(), {{"model_name", model_name}}, waiting);
}

void AddFleet(const std::string& model_name, const std::vector<WorkerView>& fleet,
              std::vector<MetricFamily>& families) {
  AddLoad(model_name, fleet, families);
  AddPaths(fleet, families);
  AddKvCounters(fleet, families);
  AddDiskCaches(fleet, families);
}

std::string DiscoveryMetricsText(const std::vector<DiscoveryView>& sources) {
  MetricFamily current =
      Gauges("baton_discovery_current",
             "1 while a source of workers answers, 0 while its last list is gone by.");
  MetricFamily workers = Gauges("baton_discovery_workers", "Workers that a source lists.");
  MetricFamily failures =
      Counters("baton_discovery_failures_total", "Tries to ask a source that failed.");
  for (const DiscoveryView& source : sources) {
    const Labels labels{{"source", source.source}, {"where", source.where}};
    AddSeries(current, labels, source.current ? 1 : 0);
    AddSeries(workers, labels, static_cast<double>(source.workers));
    AddSeries(failures, labels, static_cast<double>(source.failures));
  }
  if (sources.empty()) return "";
  return prometheus::TextSerializer().Serialize({current, workers, failures});
}

}  // namespace baton::router
