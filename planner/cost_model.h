#pragma once

// The sum behind the design: how long prefill and decode take on given hardware, and how many
// prefill workers one decode worker needs. Pure functions; every formula of the device is here,
// named, with its source (what waiting adds is in queueing.h). The one cost model of Baton:
// placement, the prefill worker's disk reads and `baton plan` use it.
//
// Sources, by the names used below:
//   Book      Austin et al., "How to Scale Your Model" (2025), chapters "All About Transformer
//             Inference" and "Serving LLaMA 3-70B on TPUs"
//   Megatron  Shoeybi et al., "Megatron-LM" (2019)
//   Sarathi   Agrawal et al., "Taming Throughput-Latency Tradeoff in LLM Inference" (2024)
//   DeepSeek  DeepSeek-AI, "DeepSeek-V2" (2024), multi-head latent attention
//   GPipe     Huang et al., "GPipe" (2019)
//
// Symbols: L layers, D embedding, F feed-forward width, N heads, K kv heads, H head dimension,
// V vocabulary, B batch, C FLOP/s of a chip, W bytes/s of its memory. Bytes and seconds; tokens and
// batches are doubles where means make sense.

#include <cstdint>
#include <functional>
#include <span>

#include "absl/status/statusor.h"
#include "planner/hardware_facts.h"
#include "planner/model_facts.h"

namespace baton::planner {

struct Precision {
  double weight_bytes_each = 2;
  double kv_bytes_each = 2;   // per element of the KV cache
  bool compute_8bit = false;  // matrix products at the chip's 8-bit rate, else at its 16-bit rate
};

// What of the makers' figures is reached. The defaults are what well-kept engines report, no
// measurement of Baton's: a plan for real money measures and sets them.
struct Assumptions {
  double prefill_mfu = 0.4;     // of C in prefill (the Book's figure)
  double decode_mfu = 0.6;      // of C in decode steps and batches large enough to be bound by it
  double decode_mbu = 0.7;      // of W in decode steps
  double usable_hbm = 0.9;      // the rest is activations, buffers, fragmentation
  double link_share = 0.8;      // of links' and networks' bytes/s
  double collective_s = 10e-6;  // start of one all-reduce
  double step_s = 0.5e-3;       // a step's launch and scheduling, which nothing hides
  int64_t chunk_tokens = 2048;  // prefill's
  // The Book's simplifications: prefill is its parameter FLOPs, KV moves and links cost nothing,
  // and parameters are counted as in the model's name.
  bool book = false;

  static Assumptions Book();
};

// One worker: tensor_parallel * pipeline_parallel chips.
struct WorkerShape {
  int64_t tensor_parallel = 1;
  int64_t pipeline_parallel = 1;
  int64_t chips() const { return tensor_parallel * pipeline_parallel; }
};

// What all questions are about: this model in these formats on a worker of this shape.
struct Deployment {
  ModelFacts model;
  Precision precision;
  HardwareFacts hardware;
  WorkerShape worker;
  Assumptions assumptions;
};

// ---- The model.

// L * (attention + feed-forward + 2D norms) + embedding tables + D. Attention is 2DH(N+K), or
// DeepSeek's low-rank projections; a feed-forward is 3DF, of every expert where there are experts
// (Book, "Transformer Math"). The model file's own count where it has one.
double Parameters(const ModelFacts& model);
// Of these, the experts that a router chooses among.
double RoutedExpertParameters(const ModelFacts& model);
// Parameters that one token goes through: of the experts the chosen ones.
double ActiveParameters(const ModelFacts& model);
// The embedding table where it is only looked up in, never multiplied or read whole: D * V.
double LookupParameters(const ModelFacts& model);
// Share of the experts that `tokens` tokens choose together, when each chooses k of E on its own:
// 1 - (1 - k/E)^tokens. 1 for dense models.
double ExpertCoverage(const ModelFacts& model, double tokens);

// 2 (K and V) * K * H * L * bytes (Book); for latent attention L * (rank + rope) * bytes
// (DeepSeek).
double KvBytesPerToken(const ModelFacts& model, const Precision& precision);
// Of a sequence of `context_tokens`: layers with a window keep no more than that.
double KvBytes(const ModelFacts& model, const Precision& precision, double context_tokens);

// ---- Memory.

// Parameters * bytes each, all of a worker's chips together.
double WeightBytes(const Deployment& deployment);
// Bytes of memory for KV: chips * usable HBM - weights. Negative when the weights do not fit.
double KvCapacityBytes(const Deployment& deployment);
// Sequences of `context_tokens` whose KV fits beside the weights; 0 when not even the weights do.
int64_t MaxBatch(const Deployment& deployment, double context_tokens);
// Chips that hold the weights and `batch` sequences: ceil(bytes / usable HBM) (Book).
int64_t MinChips(const Deployment& deployment, int64_t batch, double context_tokens);

// ---- Time.

// FLOP/s of one chip in the format that is multiplied.
double FlopsPerSecond(const Deployment& deployment);
// Batch at which a decode step's matrix products take as long as reading their weights:
// C / W * bytes each / 2 (Book), times E/k for experts, who share a batch out among them.
double CriticalBatch(const Deployment& deployment);

// 2 * active parameters * tokens (Book), and, but for the Book, causal attention's 2N(Hq + Hv)
// FLOPs for each pair of a new token and one at or before it, `cached` ones included.
double PrefillFlops(const Deployment& deployment, double tokens, double cached_tokens);
// Chunk by chunk (Sarathi): the larger of FLOPs / (chips * C * MFU) and reading the weights and the
// prefix's KV, plus the all-reduces and a step's overhead. With a pipeline, the first chunk waits
// for the stages before it: (stages - 1) / chunks more (GPipe). Seconds from start to first token.
double PrefillSeconds(const Deployment& deployment, double tokens, double cached_tokens = 0);
// Of these, seconds in which the worker can begin nothing else: without the pipeline's bubble.
double PrefillBusySeconds(const Deployment& deployment, double tokens, double cached_tokens = 0);

// One step of `batch` sequences with `context_tokens` each (Book): matrices, the larger of reading
// the weights (of experts: those covered) and 2 B * active parameters of FLOPs; then attention, the
// larger of reading all KV and its FLOPs; plus all-reduces and overhead. Below the critical batch
// that is (weights + B * context * KV bytes) / (chips * W). A pipeline works on `stages` parts of
// the batch at a time, each of which passes all layers on tensor_parallel chips.
double DecodeStepSeconds(const Deployment& deployment, double batch, double context_tokens);
// A step that reads the whole memory once: HBM bytes / W. The Book's rule of thumb for a full
// worker.
double FullHbmStepSeconds(const HardwareFacts& hardware);
// A decode step that computes `prompt_tokens` of a prompt too, after `prompt_context_tokens` of it
// (chunked prefill in a mixed worker, Sarathi): the matrices of both at once, weights read once;
// then the attention of one and of the other.
double MixedStepSeconds(const Deployment& deployment, double batch, double context_tokens,
                        double prompt_tokens, double prompt_context_tokens);

// What one step of a worker computes: ranges of prompts, and one token for each sequence of a
// batch.
struct PromptRange {
  double tokens = 0;
  double before_tokens = 0;  // of the same prompt, with KV
};
struct StepLoad {
  std::span<const PromptRange> prompts;
  double batch = 0;
  double context_tokens = 0;  // of all of the batch together
};
// Prompts alone as in PrefillBusySeconds, a batch alone as in DecodeStepSeconds, both as in
// MixedStepSeconds.
double StepSeconds(const Deployment& deployment, const StepLoad& load);
// The same by facts or as measured: what simulation and control go by. Pure.
using StepCost = std::function<double(const StepLoad&)>;

// ---- Links.

// A ring all-reduce of `bytes` over n chips: 2 (n-1)/n * bytes / (axes * link bytes/s).
double AllReduceSeconds(const HardwareFacts& hardware, int64_t chips, double bytes);
// Two all-reduces of B * D activations in each layer (Megatron), and their starts.
double LinkSecondsPerStep(const Deployment& deployment, double tokens);
// C / link bytes/s along one axis: FLOPs that must hide each byte (Book's alpha).
double FlopsPerLinkByte(const Deployment& deployment);
// Chips over which a feed-forward may be split before links bind: axes * F / alpha (Book). Beyond
// that, more chips save memory, not time.
double MaxTensorParallel(const Deployment& deployment);
// One D x F matrix of a feed-forward, split over the worker: moving activations 2BD / link; reading
// the weights; multiplying 2BDF / (chips * C) (Book).
double FeedForwardLinkSeconds(const Deployment& deployment, double batch);
double FeedForwardReadSeconds(const Deployment& deployment);
double FeedForwardMathSeconds(const Deployment& deployment, double batch);

// What moving `tokens` of KV takes: tokens * kv_bytes_per_token / bytes_per_s. Infinite without a
// rate.
double TransferSeconds(double kv_bytes_per_token, double tokens, double bytes_per_s);
// Bytes/s of KV between two workers: all chips' networks.
double KvLinkBytesPerSecond(const Deployment& deployment);

// ---- The ratio.

// Sequences that finish in a step, B / output; tokens of KV freed by them, B (input + output) /
// output; requests a second of a decode worker, B / (step * output) (Book).
double FinishedPerStep(double batch, double output_tokens);
double FreedTokensPerStep(double batch, double input_tokens, double output_tokens);
double DecodeRequestsPerSecond(double batch, double step_s, double output_tokens);

// Prefill workers that keep one decode worker of `batch` sequences busy:
// prefill_s * batch / (decode_step_s * output_tokens), each finished sequence being replaced by a
// prefilled one (Book). InvalidArgument when a number is not positive and finite.
absl::StatusOr<double> PrefillPerDecode(double prefill_s, double decode_step_s, double batch,
                                        double output_tokens);

}  // namespace baton::planner
