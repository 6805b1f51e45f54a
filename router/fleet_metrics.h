#pragma once

// Metrics of the moment: what the router has, and what the workers last said of themselves. Made
// anew for each scrape, so that the series of a worker that is gone go with it; their number is
// bounded by the fleet's size and worker_link::kMaxKvPaths.

#include <cstdint>
#include <string>
#include <vector>

#include "router/dispatcher.h"

namespace prometheus {
struct MetricFamily;
}

namespace baton::router {

// Both append.
void AddRequests(const std::string& model_name, int32_t running, int32_t waiting,
                 std::vector<prometheus::MetricFamily>& families);
void AddFleet(const std::string& model_name, const std::vector<WorkerView>& fleet,
              std::vector<prometheus::MetricFamily>& families);

// Of where workers are learned of; "" where they are only listed.
std::string DiscoveryMetricsText(const std::vector<DiscoveryView>& sources);

}  // namespace baton::router
