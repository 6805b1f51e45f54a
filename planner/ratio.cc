#include "planner/ratio.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "common/status_macros.h"
#include "planner/queueing.h"

namespace baton::planner {
namespace {

constexpr double kMostTokens = 1e9;
constexpr int64_t kMostWorkers = 1'000'000;

absl::Status CheckTokens(const char* name, double tokens) {
  if (tokens >= 1 && tokens <= kMostTokens) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("{} is {}, but must be 1 to {:.0f} tokens", name, tokens, kMostTokens));
}

absl::Status CheckQuestion(const RatioQuestion& question) {
  BATON_RETURN_IF_ERROR(CheckTokens("the input", question.input_tokens));
  BATON_RETURN_IF_ERROR(CheckTokens("the output", question.output_tokens));
  if (!(question.batch >= 0) || question.batch > kMostTokens) {
    return absl::InvalidArgumentError(fmt::format("a batch of {} is none", question.batch));
  }
  for (const int64_t workers : {question.prefill, question.decode}) {
    if (workers < 0 || workers > kMostWorkers) {
      return absl::InvalidArgumentError(
          fmt::format("{} workers: must be 0 to {}", workers, kMostWorkers));
    }
  }
  for (const double seconds : {question.prefill_s, question.decode_step_s}) {
    if (seconds >= 0 && std::isfinite(seconds)) continue;
    return absl::InvalidArgumentError(
        fmt::format("a measured time of {} s: must be positive and finite", seconds));
  }
  return absl::OkStatus();
}

// Batch of a decode worker that gets `requests_per_s`: n / (step(n) * output) grows with n.
double BatchAtRate(const RatioQuestion& question, const RatioAnswer& answer,
                   double requests_per_s) {
  double low = 0, high = answer.batch;
  for (int i = 0; i < 60; ++i) {
    const double middle = (low + high) / 2;
    const double step_s =
        question.decode_step_s > 0
            ? question.decode_step_s
            : DecodeStepSeconds(question.deployment, middle, answer.context_tokens);
    const bool enough =
        DecodeRequestsPerSecond(middle, step_s, question.output_tokens) >= requests_per_s;
    (enough ? high : low) = middle;
  }
  return high;
}

}  // namespace

double ContextTokens(const Deployment& deployment, double input_tokens, double output_tokens) {
  return deployment.assumptions.book ? input_tokens : input_tokens + output_tokens / 2;
}

absl::Status CheckFits(const Deployment& deployment, double context_tokens) {
  if (MaxBatch(deployment, context_tokens) >= 1) return absl::OkStatus();
  const HardwareFacts& hardware = deployment.hardware;
  const int64_t chips = deployment.worker.chips();
  return absl::InvalidArgumentError(fmt::format(
      "{} does not fit: {:.1f} GB of weights and {:.2f} GB of KV for one sequence of {:.0f} "
      "tokens, "
      "but {} {} of {} {} {:.1f} GB; at least {} chips would hold them",
      deployment.model.name, WeightBytes(deployment) / 1e9,
      KvBytes(deployment.model, deployment.precision, context_tokens) / 1e9, context_tokens, chips,
      chips == 1 ? "chip" : "chips", hardware.name, chips == 1 ? "has" : "have",
      static_cast<double>(chips) * hardware.hbm_bytes * deployment.assumptions.usable_hbm / 1e9,
      MinChips(deployment, 1, context_tokens)));
}

absl::StatusOr<RatioAnswer> AnswerRatio(const RatioQuestion& question) {
  BATON_RETURN_IF_ERROR(CheckQuestion(question));
  const Deployment& deployment = question.deployment;
  RatioAnswer answer;
  answer.context_tokens = ContextTokens(deployment, question.input_tokens, question.output_tokens);
  BATON_RETURN_IF_ERROR(CheckFits(deployment, answer.context_tokens));
  answer.kv_bytes_per_token = KvBytesPerToken(deployment.model, deployment.precision);
  answer.weights_bytes = WeightBytes(deployment);
  answer.batch_max = MaxBatch(deployment, answer.context_tokens);
  answer.batch = question.batch > 0 ? question.batch : static_cast<double>(answer.batch_max);
  if (answer.batch > static_cast<double>(answer.batch_max)) {
    return absl::InvalidArgumentError(
        fmt::format("a batch of {:.0f} does not fit: beside {:.1f} GB of weights, {} chips of {} "
                    "hold the KV of "
                    "{} sequences of {:.0f} tokens; {} chips would hold {:.0f}",
                    answer.batch, answer.weights_bytes / 1e9, deployment.worker.chips(),
                    deployment.hardware.name, answer.batch_max, answer.context_tokens,
                    MinChips(deployment, static_cast<int64_t>(answer.batch), answer.context_tokens),
                    answer.batch));
  }
  answer.prefill_s = question.prefill_s > 0 ? question.prefill_s
                                            : PrefillSeconds(deployment, question.input_tokens);
  answer.decode_step_s = question.decode_step_s > 0
                             ? question.decode_step_s
                             : DecodeStepSeconds(deployment, answer.batch, answer.context_tokens);
  answer.full_hbm_step_s = FullHbmStepSeconds(deployment.hardware);
  // A pipeline's bubble makes the first token later, not the worker busier.
  const double busy_s = question.prefill_s > 0
                            ? question.prefill_s
                            : PrefillBusySeconds(deployment, question.input_tokens);
  BATON_ASSIGN_OR_RETURN(answer.ratio, PrefillPerDecode(busy_s, answer.decode_step_s, answer.batch,
                                                        question.output_tokens));
  BATON_ASSIGN_OR_RETURN(
      answer.ratio_full_hbm,
      PrefillPerDecode(busy_s, answer.full_hbm_step_s, answer.batch, question.output_tokens));
  answer.decode = std::max<int64_t>(1, question.decode);
  const double wanted = answer.ratio * static_cast<double>(answer.decode);
  if (wanted > static_cast<double>(kMostWorkers)) {
    return absl::InvalidArgumentError(
        fmt::format("{:.0f} prefill workers would be needed: at most {}", wanted, kMostWorkers));
  }
  answer.prefill =
      question.prefill > 0 ? question.prefill : static_cast<int64_t>(std::ceil(wanted));
  answer.prefill_utilisation = wanted / static_cast<double>(answer.prefill);
  answer.requests_per_s =
      static_cast<double>(answer.decode) *
      DecodeRequestsPerSecond(answer.batch, answer.decode_step_s, question.output_tokens);
  answer.batch_kept = answer.prefill_utilisation <= 1
                          ? answer.batch
                          : BatchAtRate(question, answer,
                                        static_cast<double>(answer.prefill) / busy_s /
                                            static_cast<double>(answer.decode));
  return answer;
}

std::vector<PrefillChoice> PrefillChoices(const RatioAnswer& answer) {
  constexpr size_t kMost = 64;
  const double wanted = answer.ratio * static_cast<double>(answer.decode);
  const std::vector<double> service = {answer.prefill_s};
  std::vector<PrefillChoice> choices;
  const auto fewest = static_cast<int64_t>(std::ceil(wanted));
  int64_t prefill = std::max<int64_t>(1, std::min(answer.prefill, fewest - 1));
  while (choices.size() < kMost) {
    const Wait wait = WaitFor({.per_s = wanted / answer.prefill_s}, ServiceOf(service), prefill);
    choices.push_back({.prefill = prefill,
                       .utilisation = wait.utilisation,
                       .ttft_p50_s = ResponsePercentile(wait, service, 0.5),
                       .ttft_p99_s = ResponsePercentile(wait, service, 0.99)});
    if (prefill >= answer.prefill && choices.back().ttft_p99_s <= 2 * answer.prefill_s) break;
    ++prefill;
  }
  return choices;
}

}  // namespace baton::planner
