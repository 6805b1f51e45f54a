#pragma once

// The router's Prometheus metrics. What vLLM has too carries vLLM's names, so that dashboards go on
// working; the rest begins with baton_.

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "common/clock.h"
#include "router/dispatcher.h"
#include "router/flow.h"
#include "router/request.h"

namespace baton::router {

// Thread-safe.
class RouterMetrics {
 public:
  explicit RouterMetrics(const std::string& model_name);
  ~RouterMetrics();
  RouterMetrics(const RouterMetrics&) = delete;
  RouterMetrics& operator=(const RouterMetrics&) = delete;

  void OnFirstToken(Duration since_arrival);
  // `tokens` tokens came together, `since_last` after the one before them.
  void OnMoreTokens(Duration since_last, size_t tokens);
  void OnLeftQueue(Duration waited);  // in the router, for its turn
  // `waited`: in the router, until it was placed.
  void OnFinish(const Finish& finish, const FlowTimes& times, Duration waited = {});
  void OnError(const absl::Status& status);
  void OnCancelled();
  // `in_stream`: after some of its tokens were delivered.
  void OnPlacedAgain(std::string_view reason, bool in_stream);

  // Text exposition format 0.0.4, with gauges of the moment from the arguments.
  std::string Text(int32_t requests_running, int32_t requests_waiting,
                   const std::vector<WorkerView>& fleet) const;

 private:
  struct Instruments;
  const std::string model_name_;
  std::unique_ptr<Instruments> instruments_;
};

}  // namespace baton::router
