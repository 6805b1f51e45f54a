#include "planner/cost_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "planner/numbers.h"

namespace baton::planner {
namespace {

// Dimensions of a query or key, and of a value, per head.
double KeyDim(const ModelFacts& model) { return D(model.head_dim + model.mla_rope_dim); }
double ValueDim(const ModelFacts& model) {
  return D(model.mla_kv_rank > 0 ? model.mla_value_dim : model.head_dim);
}

double AttentionParameters(const ModelFacts& m) {
  if (m.mla_kv_rank == 0) return 2 * D(m.embedding) * D(m.head_dim) * D(m.heads + m.kv_heads);
  const double queries = D(m.heads) * KeyDim(m);
  const double query = m.mla_query_rank > 0 ? D(m.mla_query_rank) * (D(m.embedding) + queries)
                                            : D(m.embedding) * queries;
  const double kv_down = D(m.embedding) * D(m.mla_kv_rank + m.mla_rope_dim);
  const double kv_up = D(m.mla_kv_rank) * D(m.heads) * (D(m.head_dim) + ValueDim(m));
  return query + kv_down + kv_up + D(m.heads) * ValueDim(m) * D(m.embedding);
}

int64_t ExpertLayers(const ModelFacts& model) {
  return model.experts > 0 ? model.layers - model.dense_layers : 0;
}

double ExpertParameters(const ModelFacts& model) {
  return 3 * D(model.embedding) * D(model.expert_feed_forward);
}

// Of the parameters that a step reads and multiplies, those that every token shares.
double SharedParameters(const Deployment& deployment) {
  return Parameters(deployment.model) - RoutedExpertParameters(deployment.model) -
         LookupParameters(deployment.model);
}

// Parameters as this deployment counts them.
double CountedParameters(const Deployment& deployment) {
  const bool nominal = deployment.assumptions.book && deployment.model.nominal_parameters > 0;
  return nominal ? deployment.model.nominal_parameters : Parameters(deployment.model);
}

// Read by a step that computes `tokens`, all chips together.
double StepWeightBytes(const Deployment& deployment, double tokens) {
  if (deployment.assumptions.book) return WeightBytes(deployment);
  const double routed =
      RoutedExpertParameters(deployment.model) * ExpertCoverage(deployment.model, tokens);
  return (SharedParameters(deployment) + routed) * deployment.precision.weight_bytes_each;
}

// Multiplied for each token.
double MultipliedParameters(const Deployment& deployment) {
  if (deployment.assumptions.book) {
    return CountedParameters(deployment) * ActiveParameters(deployment.model) /
           Parameters(deployment.model);
  }
  return ActiveParameters(deployment.model) - LookupParameters(deployment.model);
}

// For one pair of tokens, all layers without a window together (layers with one are counted by the
// pairs that they see). Decode multiplies latent KV as it lies, heads times the rank (DeepSeek).
double PairFlops(const ModelFacts& m, bool decode) {
  if (decode && m.mla_kv_rank > 0) {
    return 2 * D(m.heads) * D(2 * m.mla_kv_rank + m.mla_rope_dim);
  }
  return 2 * D(m.heads) * (KeyDim(m) + ValueDim(m));
}

// Pairs of `tokens` new tokens, each with all before it and itself.
double CausalPairs(double tokens, double cached) {
  return tokens * cached + tokens * (tokens + 1) / 2;
}

double AttentionPairsInPrefill(const ModelFacts& m, double tokens, double cached) {
  const double all = CausalPairs(tokens, cached);
  const double windowed = std::min(all, tokens * D(m.window_tokens));
  return D(m.layers - m.windowed_layers) * all + D(m.windowed_layers) * windowed;
}

double AttentionPairsInDecode(const ModelFacts& m, double context) {
  const double windowed = std::min(context, D(m.window_tokens));
  return D(m.layers - m.windowed_layers) * context + D(m.windowed_layers) * windowed;
}

// The chips that a step computes on at a time.
double StepChips(const Deployment& deployment) { return D(deployment.worker.tensor_parallel); }

double StepOverheadSeconds(const Deployment& deployment, double tokens) {
  if (deployment.assumptions.book) return 0;
  return deployment.assumptions.step_s + LinkSecondsPerStep(deployment, tokens);
}

}  // namespace

Assumptions Assumptions::Book() {
  return {.prefill_mfu = 0.4,
          .decode_mfu = 1,
          .decode_mbu = 1,
          .usable_hbm = 1,
          .link_share = 1,
          .collective_s = 0,
          .step_s = 0,
          .book = true};
}

double RoutedExpertParameters(const ModelFacts& model) {
  return D(ExpertLayers(model)) * D(model.experts) * ExpertParameters(model);
}

double LookupParameters(const ModelFacts& model) {
  return model.tied_embedding ? 0 : D(model.embedding) * D(model.vocab);
}

double Parameters(const ModelFacts& m) {
  if (m.stated_parameters > 0) return m.stated_parameters;
  const double dense_layers = D(m.layers - ExpertLayers(m));
  const double feed_forward = dense_layers * 3 * D(m.embedding) * D(m.feed_forward);
  const double shared = D(ExpertLayers(m)) * D(m.embedding) *
                        (3 * D(m.shared_feed_forward) + D(m.experts));  // and the router
  const double tables = (m.tied_embedding ? 1 : 2) * D(m.embedding) * D(m.vocab);
  const double norms = D(2 * m.layers + 1) * D(m.embedding);
  return D(m.layers) * AttentionParameters(m) + feed_forward + shared + RoutedExpertParameters(m) +
         tables + norms;
}

double ActiveParameters(const ModelFacts& m) {
  const double idle = D(ExpertLayers(m)) * D(m.experts - m.experts_per_token) * ExpertParameters(m);
  return Parameters(m) - idle;
}

double ExpertCoverage(const ModelFacts& model, double tokens) {
  if (model.experts == 0) return 1;
  return 1 - std::pow(1 - D(model.experts_per_token) / D(model.experts), tokens);
}

double KvBytesPerToken(const ModelFacts& model, const Precision& precision) {
  const double elements = model.mla_kv_rank > 0
                              ? D(model.layers) * D(model.mla_kv_rank + model.mla_rope_dim)
                              : 2.0 * D(model.layers) * D(model.kv_heads) * D(model.head_dim);
  return elements * precision.kv_bytes_each;
}

double KvBytes(const ModelFacts& model, const Precision& precision, double context_tokens) {
  const double tokens_of_all_layers = AttentionPairsInDecode(model, context_tokens);
  return KvBytesPerToken(model, precision) * tokens_of_all_layers / D(model.layers);
}

double WeightBytes(const Deployment& deployment) {
  return CountedParameters(deployment) * deployment.precision.weight_bytes_each;
}

double KvCapacityBytes(const Deployment& deployment) {
  const double usable = deployment.hardware.hbm_bytes * deployment.assumptions.usable_hbm;
  return D(deployment.worker.chips()) * usable - WeightBytes(deployment);
}

int64_t MaxBatch(const Deployment& deployment, double context_tokens) {
  const double sequence = KvBytes(deployment.model, deployment.precision, context_tokens);
  return static_cast<int64_t>(
      std::clamp(std::floor(KvCapacityBytes(deployment) / sequence), 0.0, 1e9));
}

int64_t MinChips(const Deployment& deployment, int64_t batch, double context_tokens) {
  const double bytes = WeightBytes(deployment) +
                       D(batch) * KvBytes(deployment.model, deployment.precision, context_tokens);
  return static_cast<int64_t>(
      std::ceil(bytes / (deployment.hardware.hbm_bytes * deployment.assumptions.usable_hbm)));
}

double FlopsPerSecond(const Deployment& deployment) {
  const HardwareFacts& hardware = deployment.hardware;
  return deployment.precision.compute_8bit && hardware.flops_8bit_per_s > 0
             ? hardware.flops_8bit_per_s
             : hardware.flops_16bit_per_s;
}

double CriticalBatch(const Deployment& deployment) {
  const double sharing = deployment.model.experts > 0
                             ? D(deployment.model.experts) / D(deployment.model.experts_per_token)
                             : 1;
  return FlopsPerSecond(deployment) / deployment.hardware.hbm_bytes_per_s *
         deployment.precision.weight_bytes_each / 2 * sharing;
}

double PrefillFlops(const Deployment& deployment, double tokens, double cached_tokens) {
  const double matrices = 2 * MultipliedParameters(deployment) * tokens;
  if (deployment.assumptions.book) return matrices;
  return matrices + PairFlops(deployment.model, false) *
                        AttentionPairsInPrefill(deployment.model, tokens, cached_tokens);
}

namespace {

// A step of a prefill worker.
double PromptStepSeconds(const Deployment& deployment, std::span<const PromptRange> prompts) {
  const Assumptions& assumed = deployment.assumptions;
  const double chips = D(deployment.worker.chips());
  const double flops_per_s = chips * FlopsPerSecond(deployment) * assumed.prefill_mfu;
  const double bytes_per_s = chips * deployment.hardware.hbm_bytes_per_s * assumed.decode_mbu;
  double tokens = 0, flops = 0, kv_bytes = 0;
  for (const PromptRange& prompt : prompts) {
    tokens += prompt.tokens;
    flops += PrefillFlops(deployment, prompt.tokens, prompt.before_tokens);
    kv_bytes += KvBytes(deployment.model, deployment.precision, prompt.before_tokens);
  }
  const double bytes = StepWeightBytes(deployment, tokens) + kv_bytes;
  return std::max(flops / flops_per_s, bytes / bytes_per_s) +
         StepOverheadSeconds(deployment, tokens) / D(deployment.worker.pipeline_parallel);
}

// A step of a decode worker, where prompts may be computed too.
double BatchStepSeconds(const Deployment& deployment, const StepLoad& load) {
  const ModelFacts& model = deployment.model;
  const Assumptions& assumed = deployment.assumptions;
  const double part = load.batch / D(deployment.worker.pipeline_parallel);
  const double context_tokens = load.batch > 0 ? load.context_tokens / load.batch : 0;
  const double bytes_per_s =
      StepChips(deployment) * deployment.hardware.hbm_bytes_per_s * assumed.decode_mbu;
  const double flops_per_s = StepChips(deployment) * FlopsPerSecond(deployment);
  const double decode_flops_per_s = flops_per_s * assumed.decode_mfu;
  const double prefill_flops_per_s = flops_per_s * assumed.prefill_mfu;

  double prompt_tokens = 0, prompt_pairs = 0;
  for (const PromptRange& prompt : load.prompts) {
    prompt_tokens += prompt.tokens;
    prompt_pairs += AttentionPairsInPrefill(model, prompt.tokens, prompt.before_tokens);
  }
  const double read_s = StepWeightBytes(deployment, part + prompt_tokens) / bytes_per_s;
  const double matrix_flops_each = 2 * MultipliedParameters(deployment);
  const double matrix_s = part * matrix_flops_each / decode_flops_per_s +
                          prompt_tokens * matrix_flops_each / prefill_flops_per_s;

  const double kv_s = part * KvBytes(model, deployment.precision, context_tokens) / bytes_per_s;
  const double pairs_s = part * PairFlops(model, true) *
                         AttentionPairsInDecode(model, context_tokens) / decode_flops_per_s;
  const double prompt_s = PairFlops(model, false) * prompt_pairs / prefill_flops_per_s;
  return std::max(read_s, matrix_s) + std::max(kv_s, pairs_s) + prompt_s +
         StepOverheadSeconds(deployment, part + prompt_tokens);
}

}  // namespace

double PrefillBusySeconds(const Deployment& deployment, double tokens, double cached_tokens) {
  const Assumptions& assumed = deployment.assumptions;
  if (assumed.book) {
    return PrefillFlops(deployment, tokens, cached_tokens) /
           (D(deployment.worker.chips()) * FlopsPerSecond(deployment) * assumed.prefill_mfu);
  }
  double seconds = 0;
  for (double done = 0; done < tokens; done += D(assumed.chunk_tokens)) {
    const PromptRange chunk{.tokens = std::min(tokens - done, D(assumed.chunk_tokens)),
                            .before_tokens = cached_tokens + done};
    seconds += PromptStepSeconds(deployment, {&chunk, 1});
  }
  return seconds;
}

double PrefillSeconds(const Deployment& deployment, double tokens, double cached_tokens) {
  const double chunks = std::max(1.0, std::ceil(tokens / D(deployment.assumptions.chunk_tokens)));
  return PrefillBusySeconds(deployment, tokens, cached_tokens) *
         (1 + D(deployment.worker.pipeline_parallel - 1) / chunks);
}

double DecodeStepSeconds(const Deployment& deployment, double batch, double context_tokens) {
  return MixedStepSeconds(deployment, batch, context_tokens, 0, 0);
}

double FullHbmStepSeconds(const HardwareFacts& hardware) {
  return hardware.hbm_bytes / hardware.hbm_bytes_per_s;
}

double MixedStepSeconds(const Deployment& deployment, double batch, double context_tokens,
                        double prompt_tokens, double prompt_context_tokens) {
  const PromptRange prompt{.tokens = prompt_tokens, .before_tokens = prompt_context_tokens};
  return BatchStepSeconds(
      deployment,
      {.prompts = {&prompt, 1}, .batch = batch, .context_tokens = batch * context_tokens});
}

double StepSeconds(const Deployment& deployment, const StepLoad& load) {
  return load.batch > 0 ? BatchStepSeconds(deployment, load)
                        : PromptStepSeconds(deployment, load.prompts);
}

double AllReduceSeconds(const HardwareFacts& hardware, int64_t chips, double bytes) {
  if (chips <= 1) return 0;
  return 2 * D(chips - 1) / D(chips) * bytes / (D(hardware.link_axes) * hardware.link_bytes_per_s);
}

double LinkSecondsPerStep(const Deployment& deployment, double tokens) {
  if (deployment.worker.tensor_parallel <= 1) return 0;
  constexpr double kActivationBytes = 2;
  const double bytes = tokens * D(deployment.model.embedding) * kActivationBytes;
  const double one =
      AllReduceSeconds(deployment.hardware, deployment.worker.tensor_parallel, bytes) /
          deployment.assumptions.link_share +
      deployment.assumptions.collective_s;
  return 2 * D(deployment.model.layers) * one;
}

double FlopsPerLinkByte(const Deployment& deployment) {
  return FlopsPerSecond(deployment) / deployment.hardware.link_bytes_per_s;
}

double MaxTensorParallel(const Deployment& deployment) {
  const int64_t width = deployment.model.experts > 0 ? deployment.model.expert_feed_forward *
                                                               deployment.model.experts_per_token +
                                                           deployment.model.shared_feed_forward
                                                     : deployment.model.feed_forward;
  return D(deployment.hardware.link_axes) * D(width) / FlopsPerLinkByte(deployment);
}

double FeedForwardLinkSeconds(const Deployment& deployment, double batch) {
  return 2 * batch * D(deployment.model.embedding) / deployment.hardware.link_bytes_per_s;
}

double FeedForwardReadSeconds(const Deployment& deployment) {
  return D(deployment.model.embedding) * D(deployment.model.feed_forward) *
         deployment.precision.weight_bytes_each /
         (D(deployment.worker.chips()) * deployment.hardware.hbm_bytes_per_s);
}

double FeedForwardMathSeconds(const Deployment& deployment, double batch) {
  return 2 * batch * D(deployment.model.embedding) * D(deployment.model.feed_forward) /
         (D(deployment.worker.chips()) * FlopsPerSecond(deployment));
}

double TransferSeconds(double kv_bytes_per_token, double tokens, double bytes_per_s) {
  return tokens * kv_bytes_per_token / bytes_per_s;
}

double KvLinkBytesPerSecond(const Deployment& deployment) {
  return D(deployment.worker.chips()) * deployment.hardware.network_bytes_per_s *
         deployment.assumptions.link_share;
}

double FinishedPerStep(double batch, double output_tokens) { return batch / output_tokens; }

double FreedTokensPerStep(double batch, double input_tokens, double output_tokens) {
  return batch * (input_tokens + output_tokens) / output_tokens;
}

double DecodeRequestsPerSecond(double batch, double step_s, double output_tokens) {
  return batch / (step_s * output_tokens);
}

absl::StatusOr<double> PrefillPerDecode(double prefill_s, double decode_step_s, double batch,
                                        double output_tokens) {
  const double ratio = prefill_s * batch / (decode_step_s * output_tokens);
  if (prefill_s > 0 && decode_step_s > 0 && batch > 0 && output_tokens > 0 &&
      std::isfinite(ratio)) {
    return ratio;
  }
  return absl::InvalidArgumentError(
      fmt::format("no ratio for a prefill of {} s, decode steps of {} s, batch {} and {} output "
                  "tokens: all must be positive and finite",
                  prefill_s, decode_step_s, batch, output_tokens));
}

}  // namespace baton::planner
