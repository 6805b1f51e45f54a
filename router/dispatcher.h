#pragma once

// The router's heart: front ends give it requests; it tokenizes, places, tells the workers, and
// turns their events into one ordered answer.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/clock.h"
#include "discovery/etcd_options.h"
#include "router/duty.h"
#include "router/request.h"
#include "router/tool_calls.h"
#include "worker_link/client.h"
#include "worker_link/commands.h"

namespace baton::router {

struct ModelInfo {
  std::string name;
  int32_t context_tokens = 0;
  int32_t vocab_size = 0;
  ToolFormat tool_format = ToolFormat::kHermes;
};

class Telemetry;
struct RequestRecord;

struct WorkerView {  // GetFleet
  std::string name, role, address, state;
  int32_t running = 0, waiting = 0;
  int32_t blocks_free = 0, blocks_held = 0, blocks_cached = 0, blocks_total = 0;
  int32_t transfers = 0;
  bool suspect = false;  // fails what it is given, or says nothing: others are preferred
  int64_t preemptions = 0;
  int32_t block_tokens = 0, max_sequences = 0;
  worker_link::StepTotals steps;
  worker_link::DiskCacheStatus disk;
  worker_link::KvCounters kv;
  std::vector<worker_link::KvPath> paths;  // that KV comes to it by
};

struct FleetControlOptions;

struct DispatcherOptions {
  Telemetry* telemetry = nullptr;  // where requests that have ended go; outlives the dispatcher
  std::string router_name = "router";
  std::string model_path;  // for tokenizer and chat template (metadata only)
  std::string model_name;  // "": the file's stem
  // Where the workers are (router/worker_sources.h): addresses, dns:NAME:PORT, a file with one
  // address a line, watched; etcd. Roles are told by the workers themselves.
  std::vector<std::string> workers;
  std::string workers_file;
  discovery::EtcdOptions etcd;
  worker_link::ClientSecurity link_security;  // of the links to the workers
  bool only_safe_links = false;               // without TLS: to workers of this machine only
  RequestLimits limits;
  int32_t max_concurrent = 4096;  // requests in the router; more are ResourceExhausted
  int32_t max_waiting = 0;        // of these, waiting for the fleet; 0: no limit of their own
  Duration request_timeout = std::chrono::minutes(10);
  Duration worker_wait = std::chrono::seconds(5);  // how long a request waits for a decode worker
  // Workers that fail.
  Duration stall_timeout = std::chrono::seconds(5);  // silent for so long: streams move elsewhere
  int32_t max_migrations = 3;                        // of one request, because of failures
  double retry_share = 1;            // of recent requests, that may be placed again: retry_budget.h
  int32_t local_prefill_tokens = 0;  // up to this many the decode worker prefills the prompt itself
  int32_t local_uncached_tokens = 256;  // likewise, of what it does not hold, where that is faster
  size_t prefix_index_entries = size_t{1} << 24;       // prefix_index.h; 0: workers are not asked
  std::shared_ptr<const FleetControlOptions> control;  // null: no live control
};

// Thread-safe. Nothing blocks on workers.
class Dispatcher {
 public:
  static absl::StatusOr<std::unique_ptr<Dispatcher>> Create(const DispatcherOptions& options);
  virtual ~Dispatcher() = default;

  using Handle = uint64_t;

  // Checks, renders, tokenizes and places, on the caller's thread. An error is the request's only
  // answer (InvalidArgument with numbers, NotFound for the model, ResourceExhausted for overload,
  // Unavailable for no worker); with a Handle the answer comes through `sink`, on other threads,
  // perhaps before Submit returns. A request whose worker has not come yet waits up to worker_wait,
  // then on_error(Unavailable). All three functions of the sink are set.
  virtual absl::StatusOr<Handle> Submit(GenerateInput input, ResponseSink sink) = 0;
  // Whether Submit would most likely take a request now: Unavailable while draining,
  // ResourceExhausted with Retry-After for overload. Takes microseconds, so that front ends can
  // refuse before any work.
  virtual absl::Status CheckRoom() const = 0;
  // The client went away: workers are told at once. Unknown or ended handles are ignored.
  virtual void Cancel(Handle handle) = 0;

  virtual absl::StatusOr<std::vector<TokenId>> Tokenize(const GenerateInput& input) const = 0;
  virtual absl::StatusOr<std::string> Detokenize(const std::string& model,
                                                 const std::vector<TokenId>& tokens) const = 0;
  virtual std::vector<ModelInfo> Models() const = 0;
  virtual std::vector<WorkerView> Fleet() const = 0;
  virtual std::vector<DiscoveryView> Discovery() const = 0;
  virtual std::vector<RequestRecord> LiveRequests() const = 0;  // the oldest first
  // At least one decode worker is connected and not draining, and neither is the router.
  virtual bool Ready() const = 0;
  virtual std::string MetricsText() const = 0;  // Prometheus text format

  // Ready() is false from now on; requests are still taken, until Drain: those who send them have
  // time to learn of it.
  virtual void AnnounceDrain() = 0;
  // No new requests (Unavailable), running ones go on; true once none is left, false at `timeout`.
  virtual bool Drain(Duration timeout) = 0;
  virtual int32_t running() const = 0;

  // Tells a worker what it is to be; Fleet() shows what becomes of it. NotFound, InvalidArgument
  // for a name that several have, Unavailable when it cannot be told, FailedPrecondition when it is
  // the last that decodes.
  virtual absl::Status SetDuty(const DutyChange& change) = 0;
  // What the live controller sees, has done and why (fleet_control.h), as JSON; "" without one.
  virtual std::string ControlJson() const { return ""; }
};

}  // namespace baton::router
