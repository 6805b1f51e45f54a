#include "router/fleet_control.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cmath>
#include <limits>
#include <utility>

#include "common/logging.h"
#include "common/status_macros.h"
#include "router/step_pace.h"

namespace baton::router {
namespace {

namespace json = boost::json;
using planner::ControlAction;
using planner::ControlDecision;
using worker_link::Role;
using worker_link::StepTotals;

constexpr int64_t kLeastReports = 20;  // before what a step takes is believed

double NowSeconds() { return Seconds(SystemClock().Now().time_since_epoch()); }

// JSON has no infinity.
json::value Number(double value) {
  return std::isfinite(value) ? json::value(value) : json::value(nullptr);
}

json::object DecisionJson(const ControlDecision& decision) {
  json::array workers;
  for (const std::string& worker : decision.workers) workers.emplace_back(worker);
  return {{"action", planner::ControlActionName(decision.action)},
          {"prefill", decision.prefill},
          {"decode", decision.decode},
          {"new_prefill", decision.new_prefill},
          {"new_decode", decision.new_decode},
          {"workers", std::move(workers)},
          {"rate_per_s", Number(decision.rate_per_s)},
          {"urgent", decision.urgent},
          {"goodput_per_s", Number(decision.goodput_per_s)},
          {"new_goodput_per_s", Number(decision.new_goodput_per_s)},
          {"reason", decision.reason}};
}

json::object CoefficientsJson(const planner::StepCoefficients& seconds) {
  return {{"step", seconds.step},
          {"prompt_step", seconds.prompt_step},
          {"prompt_token", seconds.prompt_token},
          {"prompt_pair", seconds.prompt_pair},
          {"sequence", seconds.sequence},
          {"context_token", seconds.context_token}};
}

}  // namespace

const char* ControlModeName(ControlMode mode) {
  switch (mode) {
    case ControlMode::kOff:
      return "off";
    case ControlMode::kAdvise:
      return "advise";
    case ControlMode::kAct:
      return "act";
  }
  return "";
}

FleetControl::FleetControl(const FleetControlOptions& options, FleetHandle handle)
    : options_(options), handle_(std::move(handle)) {}

FleetControl::~FleetControl() { Stop(); }

void FleetControl::Stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void FleetControl::Start() { thread_ = std::thread(&FleetControl::Run, this); }

void FleetControl::Run() {
  TimePoint next = SystemClock().Now() + options_.every;
  std::unique_lock lock(mutex_);
  while (!changed_.wait_for(lock, std::min(kLearnEvery, options_.every),
                            [this] { return stopping_; })) {
    lock.unlock();
    Learn();
    if (SystemClock().Now() >= next) {
      DecideOnce(NowSeconds());
      next = SystemClock().Now() + options_.every;
    }
    lock.lock();
  }
}

void FleetControl::Learn() {
  const std::vector<WorkerView> fleet = handle_.fleet();
  std::map<std::string, StepTotals> seen;
  const std::lock_guard lock(mutex_);
  for (const WorkerView& worker : fleet) {
    if (worker.steps.steps <= 0) continue;
    const auto before = seen_.find(worker.address);
    // Fewer than before: it is a new process, or has another role.
    const bool goes_on = before != seen_.end() && before->second.steps <= worker.steps.steps &&
                         before->second.seconds <= worker.steps.seconds;
    learner_.Add(SumsOf(worker.steps) - SumsOf(goes_on ? before->second : StepTotals{}));
    seen[worker.address] = worker.steps;
  }
  seen_ = std::move(seen);
}

planner::ControlSnapshot FleetControl::Snapshot(double now_s) const {
  const planner::RecentTraffic::Waiting waiting = watch_.WaitingAt(now_s);
  planner::ControlSnapshot snapshot{
      .now_s = now_s,
      .traffic = watch_.Window(now_s, options_.least_requests, traffic_since_s_),
      .newest = watch_.Newest(now_s, options_.least_requests),
      .waiting = waiting.requests,
      .longest_wait_s = waiting.longest_s};
  planner::MeasuredWorker& measured = snapshot.worker;
  measured.kv_tokens = std::numeric_limits<double>::infinity();
  measured.max_batch = INT32_MAX;
  double sequences = 0, decode_workers = 0;
  for (const WorkerView& view : handle_.fleet()) {
    const bool prefill = view.role == RoleName(Role::kPrefill);
    snapshot.workers.push_back({.name = view.address,
                                .prefill = prefill,
                                .usable = view.state == "ready" && !view.suspect,
                                .changing = view.state == "draining",
                                .requests = view.running + view.waiting});
    if (view.state != "ready") continue;
    measured.kv_tokens =
        std::min(measured.kv_tokens, static_cast<double>(view.blocks_total) * view.block_tokens);
    if (view.max_sequences > 0) {
      measured.max_batch = std::min<int64_t>(measured.max_batch, view.max_sequences);
    }
    if (view.steps.chunk_tokens > 0) measured.chunk_tokens = view.steps.chunk_tokens;
    if (!prefill) {
      sequences += view.running;
      decode_workers += 1;
    }
  }
  measured.max_batch = std::min<int64_t>(measured.max_batch, 8192);
  const std::lock_guard lock(mutex_);
  measured.step_s = [learned = learner_.coefficients()](const planner::StepLoad& load) {
    return learned.Seconds(load);
  };
  snapshot.uncertainty = std::numeric_limits<double>::infinity();
  if (learner_.reports() < kLeastReports || !snapshot.traffic.ok()) return snapshot;
  const double batch = std::max(1.0, decode_workers > 0 ? sequences / decode_workers : 1);
  const double context = planner::MeanContextTokens(*snapshot.traffic);
  const planner::PromptRange chunk{.tokens = std::min(static_cast<double>(measured.chunk_tokens),
                                                      snapshot.traffic->MeanInput())};
  const planner::StepLoad decode{.batch = batch, .context_tokens = batch * context};
  const planner::StepLoad prompt{.prompts = {&chunk, 1}};
  snapshot.uncertainty = std::max(learner_.MeanInterval(decode) / learner_.Seconds(decode),
                                  learner_.MeanInterval(prompt) / learner_.Seconds(prompt));
  return snapshot;
}

ControlDecision FleetControl::DecideOnce(double now_s) {
  ControlDecision decision = Decide(Snapshot(now_s), options_.control, &state_);
  traffic_since_s_ = state_.traffic_since_s;
  const bool changes = decision.action != ControlAction::kHold;
  std::string outcome;
  if (changes) {
    LogInfo(fmt::format("control: {} to {}:{} ({})", planner::ControlActionName(decision.action),
                        decision.new_prefill, decision.new_decode, decision.reason));
    outcome = Outcome(decision);
  }
  const std::lock_guard lock(mutex_);
  if (!changes && decision.reason != last_.reason) {
    LogDebug(fmt::format("control: hold ({})", decision.reason));
  }
  last_ = decision;
  if (changes) {
    remembered_.push_front({UnixMicroseconds(), decision, outcome});
    if (remembered_.size() > kRemembered) remembered_.pop_back();
  }
  return decision;
}

std::string FleetControl::Outcome(const ControlDecision& decision) {
  if (options_.mode != ControlMode::kAct) return "advised";
  if (options_.leadership != nullptr && !options_.leadership->Leads()) {
    const std::string leader = options_.leadership->Leader();
    const std::string outcome =
        leader.empty() ? "left: nobody is known to lead" : fmt::format("left to '{}'", leader);
    LogInfo("control: " + outcome);
    return outcome;
  }
  std::string outcome = Act(decision);
  if (outcome != "done") LogWarning(fmt::format("control: not done: {}", outcome));
  return outcome;
}

std::string FleetControl::Act(const ControlDecision& decision) {
  absl::Status status;
  if (decision.action == ControlAction::kFlip) {
    for (const std::string& worker : decision.workers) {
      status.Update(handle_.set_duty({.worker = worker,
                                      .role = decision.to_prefill ? Role::kPrefill : Role::kDecode,
                                      .grace = options_.grace}));
    }
  } else {
    status = Scale(decision);
  }
  return status.ok() ? "done" : std::string(status.message());
}

absl::Status FleetControl::Scale(const ControlDecision& decision) {
  if (options_.executor == nullptr) {
    return absl::FailedPreconditionError("nothing is configured that starts and stops workers");
  }
  const Role role = decision.to_prefill ? Role::kPrefill : Role::kDecode;
  BATON_ASSIGN_OR_RETURN(const int64_t replicas, options_.executor->Replicas(role));
  const int64_t seen = decision.to_prefill ? decision.prefill : decision.decode;
  const int64_t wanted = replicas + (decision.action == ControlAction::kGrow ? 1 : -1);
  // Workers that are asked for already, or are not there though they should be.
  if (decision.action == ControlAction::kGrow && replicas > seen) {
    return absl::FailedPreconditionError(
        fmt::format("{} {} workers are asked for, {} are here: waits for the others", replicas,
                    RoleName(role), seen));
  }
  if (wanted < 1) {
    return absl::FailedPreconditionError(
        fmt::format("{} replicas of {} workers: the last one stays", replicas, RoleName(role)));
  }
  return options_.executor->SetReplicas(role, wanted);
}

std::string FleetControl::Json() const {
  const double now_s = NowSeconds();
  const planner::ControlSnapshot snapshot = Snapshot(now_s);
  json::object model{{"uncertainty", Number(snapshot.uncertainty)},
                     {"kv_tokens", Number(snapshot.worker.kv_tokens)},
                     {"chunk_tokens", snapshot.worker.chunk_tokens},
                     {"batch_max", snapshot.worker.max_batch}};
  json::object traffic;
  if (snapshot.traffic.ok()) {
    traffic = {{"rate_per_s", snapshot.traffic->arrivals.per_s},
               {"arrival_scv", snapshot.traffic->arrivals.scv},
               {"input_tokens", snapshot.traffic->MeanInput()},
               {"output_tokens", snapshot.traffic->MeanOutput()},
               {"requests", snapshot.traffic->requests.size()}};
  } else {
    traffic = {{"unknown", std::string(snapshot.traffic.status().message())}};
  }
  const std::lock_guard lock(mutex_);
  const planner::PromptRange chunk{.tokens = static_cast<double>(snapshot.worker.chunk_tokens)};
  const planner::StepLoad prompt{.prompts = {&chunk, 1}};
  const planner::StepLoad decode{.batch = 8, .context_tokens = 8 * 1000};
  model["reports"] = learner_.reports();
  model["coefficients_s"] = CoefficientsJson(learner_.coefficients());
  for (const auto& [name, load] :
       {std::pair("chunk_step", prompt), {"decode_step_8x1000", decode}}) {
    model[std::string(name) + "_s"] = learner_.Seconds(load);
    model[std::string(name) + "_interval_s"] = Number(learner_.Interval(load));
  }
  json::array history;
  for (const Remembered& one : remembered_) {
    json::object entry = DecisionJson(one.decision);
    entry["at_us"] = one.at_us;
    entry["outcome"] = one.outcome;
    history.push_back(std::move(entry));
  }
  json::object plan{{"mode", ControlModeName(options_.mode)},
                    {"last", DecisionJson(last_)},
                    {"changes", std::move(history)},
                    {"traffic", std::move(traffic)},
                    {"model", std::move(model)}};
  if (options_.leadership != nullptr) {
    plan["leads"] = options_.leadership->Leads();
    plan["leader"] = options_.leadership->Leader();
  }
  return json::serialize(plan);
}

}  // namespace baton::router
