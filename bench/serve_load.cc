#include "bench/serve_load.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "bench/load_prompt.h"
#include "common/status_macros.h"

namespace baton::bench {
namespace {

// Seeds of texts of their own, apart from those of shared ones.
constexpr uint64_t kOwnText = uint64_t{1} << 62;
constexpr uint64_t kGroupText = uint64_t{1} << 61;

int64_t Clamped(double tokens, int64_t longest) {
  return std::clamp<int64_t>(std::llround(std::min(tokens, 1e12)), 1, longest);
}

// Lognormal with the mean and the coefficient of variation that are asked for.
class Lengths {
 public:
  explicit Lengths(const LengthOptions& options)
      : options_(options),
        sigma_(std::sqrt(std::log1p(options.cv * options.cv))),
        normal_(std::log(options.mean) - sigma_ * sigma_ / 2, sigma_ > 0 ? sigma_ : 1) {}
  double Next(std::mt19937_64* random) {
    return sigma_ > 0 ? std::exp(normal_(*random)) : options_.mean;
  }

 private:
  const LengthOptions options_;
  const double sigma_;
  std::normal_distribution<double> normal_;
};

absl::Status CheckLengths(const char* what, const LengthOptions& lengths) {
  if (lengths.mean >= 1 && lengths.mean <= 1e7 && lengths.cv >= 0 && lengths.cv <= 10) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      fmt::format("{} of {} tokens with a coefficient of variation of {}; they must be in [1, 1e7] "
                  "and [0, 10]",
                  what, lengths.mean, lengths.cv));
}

}  // namespace

int64_t ServeRequest::words() const {
  int64_t sum = 0;
  for (const PromptPart& part : prompt) sum += part.words;
  return sum;
}

std::string PromptText(const ServeRequest& request) {
  std::string text;
  for (const PromptPart& part : request.prompt) {
    if (!text.empty()) text += ' ';
    text += WordText(part.seed, part.words);
  }
  return text;
}

absl::StatusOr<std::vector<ServeRequest>> MakeServeLoad(const ServeLoadOptions& options) {
  BATON_RETURN_IF_ERROR(CheckLengths("prompts", options.input));
  BATON_RETURN_IF_ERROR(CheckLengths("answers", options.output));
  if (options.shared_prefix < 0 || options.prefix_groups < 1 || options.requests < 1) {
    return absl::InvalidArgumentError(fmt::format("{} requests in {} groups that share {} tokens",
                                                  options.requests, options.prefix_groups,
                                                  options.shared_prefix));
  }
  BATON_ASSIGN_OR_RETURN(const std::vector<double> due_s,
                         ArrivalTimes(options.arrivals, options.requests));
  const uint64_t seed = options.arrivals.seed;
  std::mt19937_64 random(seed + 1);
  Lengths inputs(options.input);
  Lengths outputs(options.output);
  std::uniform_int_distribution<int64_t> groups(0, options.prefix_groups - 1);
  std::vector<ServeRequest> load;
  load.reserve(due_s.size());
  for (const double due : due_s) {
    ServeRequest request{.due_s = due};
    const int64_t words = Clamped(inputs.Next(&random), options.longest_input);
    const int64_t shared = std::min(options.shared_prefix, words);
    const auto group = static_cast<uint64_t>(groups(random));
    if (shared > 0) request.prompt.push_back({kGroupText + (seed << 20) + group, shared});
    if (words > shared) {
      request.prompt.push_back({kOwnText + (seed << 32) + load.size(), words - shared});
    }
    request.output_tokens = Clamped(outputs.Next(&random), options.longest_output);
    load.push_back(std::move(request));
  }
  return load;
}

absl::StatusOr<std::vector<ServeRequest>> MakeTraceLoad(const planner::Trace& trace,
                                                        const TraceLoadOptions& options) {
  if (!(options.speed > 0) || !(options.token_scale > 0) || options.token_scale > 1000) {
    return absl::InvalidArgumentError(fmt::format("a speed of {} and a scale of tokens of {}",
                                                  options.speed, options.token_scale));
  }
  if (trace.requests.empty()) return absl::InvalidArgumentError("the trace has no requests");
  size_t count = trace.requests.size();
  if (options.requests > 0) count = std::min(count, static_cast<size_t>(options.requests));
  double begin = trace.requests.front().arrival_s;
  for (size_t i = 0; i < count; ++i) begin = std::min(begin, trace.requests[i].arrival_s);
  const double block_words = static_cast<double>(trace.block_tokens) * options.token_scale;
  std::vector<ServeRequest> load;
  load.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    const planner::TraceRequest& from = trace.requests[i];
    ServeRequest request{.due_s = (from.arrival_s - begin) / options.speed};
    int64_t left = Clamped(static_cast<double>(from.input_tokens) * options.token_scale,
                           options.longest_input);
    for (size_t block = 0; block < from.prefix_blocks.size() && left > 0; ++block) {
      const int64_t words = std::min(left, std::max<int64_t>(1, std::llround(block_words)));
      request.prompt.push_back(
          {(options.seed << 40) + static_cast<uint64_t>(from.prefix_blocks[block]), words});
      left -= words;
    }
    if (left > 0) request.prompt.push_back({kOwnText + (options.seed << 32) + i, left});
    request.output_tokens = Clamped(static_cast<double>(from.output_tokens) * options.token_scale,
                                    options.longest_output);
    load.push_back(std::move(request));
  }
  std::ranges::stable_sort(load, {}, &ServeRequest::due_s);
  return load;
}

}  // namespace baton::bench
