#pragma once

// The requests of a simulation, one after the other.

#include <cstdint>
#include <random>
#include <span>

#include "planner/workload.h"

namespace baton::simulator {

struct SimulatedRequest {
  double arrival_s = 0;
  int32_t input_tokens = 1;
  int32_t output_tokens = 1;
  double cached_share = 0;          // of the prompt, where `prefix` does not tell
  std::span<const int64_t> prefix;  // ids of the prompt's blocks
  int64_t prefix_round = 0;         // a trace played again has other prompts
};

// A trace's own requests, `faster` times as fast, and again from its start when more are asked for;
// or random draws of lengths with times between them that have the workload's mean and variation.
// Deterministic by the seed. `workload` outlives it.
class RequestSource {
 public:
  RequestSource(const planner::Workload& workload, double faster, uint64_t seed)
      : workload_(workload), faster_(faster), random_(seed) {}

  SimulatedRequest Take();

 private:
  double Uniform();
  double BetweenSeconds();

  const planner::Workload& workload_;
  const double faster_;
  std::mt19937_64 random_;
  size_t taken_ = 0;
  double now_s_ = 0;
};

}  // namespace baton::simulator
