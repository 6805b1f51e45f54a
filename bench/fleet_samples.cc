#include "bench/fleet_samples.h"

#include <charconv>

namespace baton::bench {
namespace {

// The value of `label` in `{a="b",c="d"}`. Baton's own names need no escapes.
std::string_view Label(std::string_view labels, std::string_view label) {
  size_t at = 0;
  while ((at = labels.find(label, at)) != std::string_view::npos) {
    const bool begins = at > 0 && (labels[at - 1] == '{' || labels[at - 1] == ',');
    at += label.size();
    if (!begins || labels.substr(at, 2) != "=\"") continue;
    const size_t end = labels.find('"', at + 2);
    return end == std::string_view::npos ? "" : labels.substr(at + 2, end - at - 2);
  }
  return "";
}

void Add(std::string_view name, std::string_view state, double value, RoleLoad* load) {
  if (name == "baton_worker_requests" && state == "running") {
    ++load->workers;
    load->busy += value > 0 ? 1 : 0;
    load->running += value;
  } else if (name == "baton_worker_requests" && state == "waiting") {
    load->waiting += value;
  } else if (name == "baton_kv_blocks" && state == "held") {
    load->blocks_held += value;
  } else if (name == "baton_kv_blocks" && state == "total") {
    load->blocks_total += value;
  }
}

}  // namespace

std::optional<FleetSample> FleetSampleOf(std::string_view metrics) {
  FleetSample sample;
  while (!metrics.empty()) {
    const size_t end = metrics.find('\n');
    const std::string_view line = metrics.substr(0, end);
    metrics.remove_prefix(end == std::string_view::npos ? metrics.size() : end + 1);
    const size_t open = line.find('{');
    const size_t close = line.rfind('}');
    if (line.starts_with('#') || open == std::string_view::npos ||
        close == std::string_view::npos || close + 2 > line.size()) {
      continue;
    }
    const std::string_view labels = line.substr(open, close - open + 1);
    double value = 0;
    const std::string_view digits = line.substr(close + 2);
    std::from_chars(digits.data(), digits.data() + digits.size(), value);
    const std::string_view role = Label(labels, "role");
    if (role == "prefill" || role == "decode") {
      Add(line.substr(0, open), Label(labels, "state"), value,
          role == "prefill" ? &sample.prefill : &sample.decode);
    }
  }
  if (sample.prefill.workers + sample.decode.workers == 0) return std::nullopt;
  return sample;
}

}  // namespace baton::bench
