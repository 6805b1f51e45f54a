#pragma once

// Sequences, and the step that moves them on: what `baton run` and both kinds of worker share, so
// that the cluster computes exactly what one process computes.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "common/block_hash.h"
#include "common/sampling.h"
#include "common/token_constraint.h"
#include "engine/block_pool.h"
#include "engine/device_draw.h"
#include "engine/kv_mirror.h"
#include "engine/model.h"
#include "engine/sampler.h"

namespace baton::engine {

// One request on one worker. Owned by the device thread's loop.
struct Sequence {
  std::vector<TokenId> tokens;  // prompt, then output
  int32_t prompt_tokens = 0;
  int32_t computed_tokens = 0;  // tokens [0, computed) have their KV in `blocks`
  int32_t device_tokens = 0;    // of them those whose KV is in the device's slab, for Executor
  SamplingParams sampling;
  BlockHash chain_root{};  // of the prefix cache: fingerprint and tenant salt
  BlockTable blocks;
  std::vector<BlockHash> hashes;  // of the full blocks of tokens[0, computed) published so far
  std::unique_ptr<TokenConstraint> constraint;  // of sampling.constraint; null: none
  // Whether the constraint lets anything follow the output, as far as that is known.
  enum class Ending { kGoesOn, kOver, kUnknown };
  Ending ending = Ending::kGoesOn;
  absl::Status failure;  // of the constraint: the sequence cannot go on
  // Where sampling.prompt_logprobs asks for them: tokens of the prompt below this have been scored.
  // Those of the last steps, for whoever owns the sequence to take.
  int32_t scored_tokens = 1;
  std::vector<PromptScore> scores;
  // False: its output's KV is not what a prefill of the same tokens would have given; only blocks
  // of the prompt are published.
  bool publish_output = true;

  int32_t pending() const { return static_cast<int32_t>(tokens.size()) - computed_tokens; }
  bool decoding() const {
    return pending() == 1 && static_cast<int32_t>(tokens.size()) > prompt_tokens;
  }
  // Whether tokens of the prompt are still to be scored.
  bool wants_scores() const {
    return sampling.prompt_logprobs >= 0 && scored_tokens < prompt_tokens;
  }
  std::span<const TokenId> output() const {
    return std::span(tokens).subspan(static_cast<size_t>(prompt_tokens));
  }
  // Output that another worker has sampled.
  void AppendOutput(TokenId token) {
    tokens.push_back(token);
    if (constraint != nullptr) ending = Ending::kUnknown;
  }
};

struct StepRange {
  Sequence* sequence = nullptr;
  int32_t tokens = 0;  // how many of its pending tokens
};

// Makes what a sequence obeys of SamplingParams::constraint.
using ConstraintMaker =
    std::function<absl::StatusOr<std::unique_ptr<TokenConstraint>>(const std::string& constraint)>;

struct ExecutorOptions {
  kernels::KvLayout layout;  // of LayoutFor
  int32_t block_count = 0;
  bool prefix_cache = true;
  ConstraintMaker make_constraint = nullptr;  // null: sequences with a constraint are refused
  // Of a device with memory of its own, where `slab` is the host's that transports know; outlives
  // the executor. Null: `slab` is the device's.
  KvMirror* mirror = nullptr;
};

class Executor {
 public:
  // `model` and `slab` outlive the executor. slab: block_count * layout.block_bytes() bytes.
  Executor(Model* model, std::span<std::byte> slab, const ExecutorOptions& options);

  BlockPool& pool() { return pool_; }
  const Model& model() const { return *model_; }

  // What the chain roots of this model and KV layout are made of, beside the tenant.
  std::string ChainName() const { return ChainName(options_.layout); }
  // The chain root of this model, KV layout and tenant. "" is the common tenant.
  BlockHash ChainRootFor(std::string_view salt) const {
    return ChainRootFor(salt, options_.layout);
  }
  // What a worker of this model whose KV has another layout takes as its root.
  BlockHash ChainRootFor(std::string_view salt, const kernels::KvLayout& layout) const;
  // Of KV in this layout that was computed in another number format and converted: rounded there,
  // it is not the KV that this executor would compute, and never shared with it.
  BlockHash ConvertedChainRootFor(std::string_view salt, kernels::KvDType computed_in) const;

  // A sequence of `tokens` (each in the vocabulary, and fewer than the context, for there must be
  // room for one more: InvalidArgument with the numbers otherwise) that holds no blocks yet.
  // The last `output_tokens` of them are output of an earlier attempt (a migration): sampling and
  // max_tokens go on from there. They may be all of the output already: see Finished.
  // InvalidArgument, too, for a constraint that cannot be made, where that is known at once.
  absl::StatusOr<Sequence> NewSequence(std::vector<TokenId> tokens, const SamplingParams& sampling,
                                       std::string_view salt, int32_t output_tokens = 0) const;

  // Takes the cached prefix of a sequence without blocks: sets blocks and computed_tokens. At least
  // one token stays pending, since its logits are needed; where the prompt is to be scored, all.
  void TakeCachedPrefix(Sequence* sequence);

  // Blocks for the next `tokens` tokens to compute. ResourceExhausted changes nothing.
  absl::Status Reserve(Sequence* sequence, int32_t tokens);

  // Makes ranges shorter, at their ends, until those whose prompts are scored have logits for every
  // token. Each keeps one token.
  void FitLogits(std::span<StepRange> ranges) const;

  // Computes each range (blocks are reserved; each sequence comes once; the ranges fit the model's
  // max_rows, and FitLogits them: those that sample its max_logit_rows), and publishes the blocks
  // that became full. A range that reaches the end of its sequence's tokens samples: result[i] is
  // that token, appended to sequence->tokens (its KV still pending); else empty. It is empty, too,
  // and the last token pending again, where the sequence's constraint is not ready, has failed
  // (`failure`) or ends the sequence (Finished). The result is valid until the next Step.
  // `kv_stored` is called once so many layers of the ranges' KV, the lowest, are in the slab, after
  // each layer: what comes after that does not change them any more. With a mirror, the host's slab
  // gets them in steps with kv_stored, and in others the blocks that are published; what others put
  // into it goes to the device with the next step or PublishFullBlocks.
  std::span<const std::optional<OutputToken>> Step(
      std::span<const StepRange> ranges,
      const std::function<void(int32_t layers)>* kv_stored = nullptr);

  // Publishes blocks of tokens[0, computed_tokens) that are full and not yet published (Step does
  // this itself; a decode worker calls it after a handoff filled the blocks). Nothing without a
  // prefix cache.
  void PublishFullBlocks(Sequence* sequence);

  // Whether the last output token ends the sequence: an end or stop token gives kStop, which goes
  // before kLength, of max_tokens or a full context. So does a constraint that can only end; until
  // that is known of output from elsewhere, it is not said to be finished.
  std::optional<FinishReason> Finished(const Sequence& sequence) const;

  // Finds out whether the constraint ends the sequence where it is, once the constraint is ready.
  // Step does this before it samples.
  static void SettleEnding(Sequence* sequence);

 private:
  std::string ChainName(const kernels::KvLayout& layout) const;
  void AppendRange(const StepRange& range);
  void SendToDevice(Sequence* sequence);
  size_t BlocksToPublish(const Sequence& sequence) const;
  size_t ScorePrompt(const StepRange& range, std::span<const float> logits);
  bool MaySample(Sequence* sequence) const;
  void AppendLogitRow(const Sequence& sequence, int32_t row, bool samples);
  OutputToken SampleNext(size_t logit_row, std::span<float> logits, Sequence* sequence);

  Model* model_;
  ExecutorOptions options_;
  BlockPool pool_;
  Sampler sampler_;
  std::optional<DeviceDraws> draws_;  // of a device with memory of its own
  std::vector<TokenId> drawn_;        // per logit row
  std::vector<TokenId> row_tokens_;
  std::vector<kernels::SequenceRows> rows_;
  std::vector<int32_t> logit_rows_;
  std::vector<int32_t> written_blocks_;  // of a step, with a mirror
  std::vector<std::optional<OutputToken>> results_;
};

// The KV layout of a model. InvalidArgument for block_tokens other than 8, 16 or 32.
absl::StatusOr<kernels::KvLayout> LayoutFor(const ModelConfig& config, int32_t block_tokens,
                                            kernels::KvDType dtype);

}  // namespace baton::engine
