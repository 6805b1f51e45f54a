#include "engine/executor.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "common/status_macros.h"

namespace baton::engine {

Executor::Executor(Model* model, std::span<std::byte> slab, const ExecutorOptions& options)
    : model_(model),
      options_(options),
      pool_(options.layout, slab, options.block_count, options.prefix_cache),
      sampler_(model->config().vocab) {
  const auto expected =
      LayoutFor(model->config(), options.layout.block_tokens, options.layout.dtype);
  BATON_CHECK(expected.ok() && options.layout == *expected, "the layout is of this model");
  if (!model->ops().host_memory()) draws_.emplace(model->config().vocab);
  row_tokens_.reserve(static_cast<size_t>(model->max_rows()));
  rows_.reserve(static_cast<size_t>(model->max_rows()));
  logit_rows_.reserve(static_cast<size_t>(model->max_logit_rows()));
  drawn_.reserve(static_cast<size_t>(model->max_logit_rows()));
  results_.reserve(static_cast<size_t>(model->max_rows()));
}

std::string Executor::ChainName(const kernels::KvLayout& layout) const {
  return fmt::format("{} {}", model_->config().fingerprint, layout.ToString());
}

BlockHash Executor::ChainRootFor(std::string_view salt, const kernels::KvLayout& layout) const {
  return ChainRoot(ChainName(layout), salt);
}

BlockHash Executor::ConvertedChainRootFor(std::string_view salt,
                                          kernels::KvDType computed_in) const {
  return ChainRoot(fmt::format("{} {} computed in {}", model_->config().fingerprint,
                               options_.layout.ToString(), kernels::Traits(computed_in).name),
                   salt);
}

absl::StatusOr<Sequence> Executor::NewSequence(std::vector<TokenId> tokens,
                                               const SamplingParams& sampling,
                                               std::string_view salt, int32_t output_tokens) const {
  const ModelConfig& config = model_->config();
  const auto count = static_cast<int64_t>(tokens.size());
  // Output may have filled the context.
  if (count > config.context || (count == config.context && output_tokens == 0)) {
    return absl::InvalidArgumentError(
        fmt::format("prompt has {} tokens, context is {}{}", count, config.context,
                    count == config.context ? " and must hold at least one output token" : ""));
  }
  if (output_tokens < 0 || output_tokens >= std::max<int64_t>(count, 1)) {
    return absl::InvalidArgumentError(
        fmt::format("{} of {} tokens are said to be output, but a prompt has at least one",
                    output_tokens, count));
  }
  if (output_tokens > sampling.max_tokens) {
    return absl::InvalidArgumentError(fmt::format("{} output tokens are more than max_tokens of {}",
                                                  output_tokens, sampling.max_tokens));
  }
  if (tokens.empty()) return absl::InvalidArgumentError("prompt has no tokens");
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < 0 || tokens[i] >= config.vocab) {
      return absl::InvalidArgumentError(
          fmt::format("prompt token {} is {}, vocabulary is [0, {})", i, tokens[i], config.vocab));
    }
  }
  BATON_RETURN_IF_ERROR(CheckSamplingParams(sampling, config.vocab));

  Sequence sequence;
  sequence.tokens = std::move(tokens);
  // Decode steps append without allocating.
  sequence.tokens.reserve(static_cast<size_t>(
      std::min<int64_t>(count - output_tokens + sampling.max_tokens, config.context)));
  sequence.prompt_tokens = static_cast<int32_t>(count) - output_tokens;
  sequence.sampling = sampling;
  sequence.chain_root = ChainRootFor(salt);
  if (!sampling.constraint.empty()) {
    if (!options_.make_constraint) {
      return absl::InvalidArgumentError("constrained output is not possible without a tokenizer");
    }
    BATON_ASSIGN_OR_RETURN(sequence.constraint, options_.make_constraint(sampling.constraint));
    if (output_tokens > 0) sequence.ending = Sequence::Ending::kUnknown;
    sequence.constraint->Ready(sequence.output());  // begins while the prompt is prefilled
  }
  return sequence;
}

void Executor::TakeCachedPrefix(Sequence* sequence) {
  BATON_CHECK(sequence->blocks.size() == 0 && sequence->computed_tokens == 0,
              "a sequence takes its prefix before anything else");
  if (!options_.prefix_cache || sequence->wants_scores()) return;
  const int32_t block_tokens = options_.layout.block_tokens;
  const std::span<const TokenId> all_but_last(sequence->tokens.data(), sequence->tokens.size() - 1);
  sequence->hashes = ChainFullBlocks(sequence->chain_root, all_but_last, block_tokens);
  sequence->blocks = pool_.Match(sequence->hashes);
  sequence->hashes.resize(static_cast<size_t>(sequence->blocks.size()));
  sequence->computed_tokens = sequence->blocks.size() * block_tokens;
  sequence->device_tokens = sequence->computed_tokens;  // since they were published
}

absl::Status Executor::Reserve(Sequence* sequence, int32_t tokens) {
  // Fewer where the sequence begins again.
  sequence->device_tokens = std::min(sequence->device_tokens, sequence->computed_tokens);
  // Once for its whole life, so that decode steps do not allocate.
  const auto most = options_.layout.BlocksFor(static_cast<int64_t>(sequence->tokens.capacity()));
  sequence->blocks.Reserve(most);
  if (options_.prefix_cache) sequence->hashes.reserve(static_cast<size_t>(most));
  const int32_t wanted = options_.layout.BlocksFor(int64_t{sequence->computed_tokens} + tokens);
  return pool_.Extend(&sequence->blocks, std::max(0, wanted - sequence->blocks.size()));
}

// What came into the host's slab from elsewhere.
void Executor::SendToDevice(Sequence* sequence) {
  if (options_.mirror != nullptr && sequence->device_tokens < sequence->computed_tokens) {
    const int32_t first = sequence->device_tokens / options_.layout.block_tokens;
    const int32_t end = options_.layout.BlocksFor(sequence->computed_tokens);
    options_.mirror->Upload(sequence->blocks.blocks().subspan(static_cast<size_t>(first),
                                                              static_cast<size_t>(end - first)));
  }
  sequence->device_tokens = sequence->computed_tokens;
}

void Executor::AppendRange(const StepRange& range) {
  SendToDevice(range.sequence);
  const Sequence& sequence = *range.sequence;
  const int32_t block_tokens = options_.layout.block_tokens;
  const int32_t end = sequence.computed_tokens + range.tokens;
  BATON_CHECK(range.tokens >= 1 && range.tokens <= sequence.pending(), "a range is pending tokens");
  BATON_CHECK(sequence.blocks.size() >= options_.layout.BlocksFor(end), "blocks are reserved");
  for (int32_t i = sequence.computed_tokens / block_tokens; i * block_tokens < end; ++i) {
    BATON_CHECK(pool_.Writable(sequence.blocks.blocks()[i]), "nobody writes a shared block");
    if (options_.mirror != nullptr) written_blocks_.push_back(sequence.blocks.blocks()[i]);
  }
  const auto first_row = static_cast<int32_t>(row_tokens_.size());
  rows_.push_back({sequence.blocks.blocks(), sequence.computed_tokens, first_row, range.tokens});
  const auto first = sequence.tokens.begin() + sequence.computed_tokens;
  row_tokens_.insert(row_tokens_.end(), first, first + range.tokens);
  const bool samples = range.tokens == sequence.pending();
  for (int32_t row = 0; row < range.tokens; ++row) {
    const bool scores = sequence.computed_tokens + row + 1 < sequence.prompt_tokens;
    const bool last = samples && row + 1 == range.tokens;
    if (last || (scores && sequence.wants_scores())) {
      AppendLogitRow(sequence, first_row + row, last);
    }
  }
}

void Executor::AppendLogitRow(const Sequence& sequence, int32_t row, bool samples) {
  logit_rows_.push_back(row);
  if (!draws_.has_value()) return;
  if (samples && sequence.constraint == nullptr) {
    const std::span<const TokenId> tokens = sequence.tokens;
    draws_->Add(sequence.sampling, tokens.first(static_cast<size_t>(sequence.prompt_tokens)),
                sequence.output(), model_->config().end_tokens);
  } else {
    draws_->AddForHost();
  }
}

void Executor::FitLogits(std::span<StepRange> ranges) const {
  const auto others = static_cast<int32_t>(ranges.size());
  int32_t left = model_->max_logit_rows() - others;  // beyond one each
  for (StepRange& range : ranges) {
    if (!range.sequence->wants_scores()) continue;
    range.tokens = std::min(range.tokens, 1 + std::max(left, 0));
    left -= range.tokens - 1;
  }
}

// The tokens of the prompt behind each of the range's. How many rows of logits they were.
size_t Executor::ScorePrompt(const StepRange& range, std::span<const float> logits) {
  Sequence& sequence = *range.sequence;
  const auto vocab = static_cast<size_t>(model_->config().vocab);
  const int32_t end = std::min(sequence.computed_tokens + range.tokens, sequence.prompt_tokens - 1);
  for (int32_t i = sequence.computed_tokens; i < end; ++i) {
    const auto row = static_cast<size_t>(i - sequence.computed_tokens);
    sequence.scores.push_back(sampler_.Score(logits.subspan(row * vocab, vocab),
                                             sequence.tokens[static_cast<size_t>(i) + 1],
                                             sequence.sampling.prompt_logprobs));
    sequence.scores.back().position = i + 1;
  }
  if (end <= sequence.computed_tokens) return 0;
  sequence.scored_tokens = end + 1;
  return static_cast<size_t>(end - sequence.computed_tokens);
}

std::span<const std::optional<OutputToken>> Executor::Step(
    std::span<const StepRange> ranges, const std::function<void(int32_t layers)>* kv_stored) {
  row_tokens_.clear();
  rows_.clear();
  logit_rows_.clear();
  written_blocks_.clear();
  if (draws_.has_value()) draws_->Clear();
  results_.assign(ranges.size(), std::nullopt);
  if (ranges.empty()) return results_;
  for (const StepRange& range : ranges) AppendRange(range);

  std::byte* slab = pool_.slab();
  std::function<void(int32_t)> downloaded;  // then stored, as others see it
  if (KvMirror* const mirror = options_.mirror; mirror != nullptr) {
    slab = mirror->device_slab();
    if (kv_stored != nullptr) {
      downloaded = [this, mirror, kv_stored, done = 0](int32_t layers) mutable {
        mirror->Download(written_blocks_, done, layers);
        done = layers;
        (*kv_stored)(layers);
      };
    }
  }
  ForwardBatch batch{row_tokens_, rows_, logit_rows_, downloaded ? &downloaded : kv_stored};
  drawn_.assign(logit_rows_.size(), kernels::kDrawnByHost);
  if (draws_.has_value()) {
    batch.draws = draws_->draws();
    batch.edits = draws_->edits();
    batch.drawn = drawn_;
  }
  const std::span<float> logits = model_->Forward(batch, options_.layout, slab);
  const auto vocab = static_cast<size_t>(model_->config().vocab);
  size_t logit_row = 0;
  for (size_t i = 0; i < ranges.size(); ++i) {
    Sequence& sequence = *ranges[i].sequence;
    if (sequence.wants_scores()) {
      logit_row += ScorePrompt(ranges[i], logits.subspan(logit_row * vocab));
    }
    const bool reaches_end = ranges[i].tokens == sequence.pending();
    const bool samples = reaches_end && MaySample(&sequence);
    // The last token is computed again when it may sample: its logits are gone by then.
    sequence.computed_tokens += ranges[i].tokens - (reaches_end && !samples ? 1 : 0);
    sequence.device_tokens = sequence.computed_tokens;
    if (options_.mirror != nullptr && kv_stored == nullptr) {
      const size_t published = sequence.hashes.size();
      const size_t full = std::max(BlocksToPublish(sequence), published);
      options_.mirror->Download(sequence.blocks.blocks().subspan(published, full - published), 0,
                                options_.layout.layers);
    }
    PublishFullBlocks(&sequence);
    if (samples) {
      results_[i] = SampleNext(logit_row, logits.subspan(logit_row * vocab, vocab), &sequence);
    }
    if (reaches_end) ++logit_row;
  }
  return results_;
}

// How many of its first blocks others may use.
size_t Executor::BlocksToPublish(const Sequence& sequence) const {
  if (!options_.prefix_cache) return 0;
  const int32_t tokens = sequence.publish_output
                             ? sequence.computed_tokens
                             : std::min(sequence.computed_tokens, sequence.prompt_tokens);
  return static_cast<size_t>(tokens / options_.layout.block_tokens);
}

bool Executor::MaySample(Sequence* sequence) const {
  if (sequence->constraint == nullptr) return true;
  if (!sequence->constraint->Ready(sequence->output())) return false;
  SettleEnding(sequence);
  return sequence->failure.ok() && !Finished(*sequence);
}

void Executor::SettleEnding(Sequence* sequence) {
  if (sequence->constraint == nullptr) return;
  if (!sequence->constraint->Ready(sequence->output())) return;
  sequence->failure = sequence->constraint->status();
  if (!sequence->failure.ok()) return;
  sequence->ending = sequence->constraint->After(sequence->output()).must_end
                         ? Sequence::Ending::kOver
                         : Sequence::Ending::kGoesOn;
}

OutputToken Executor::SampleNext(size_t logit_row, std::span<float> logits, Sequence* sequence) {
  const std::span<const TokenId> tokens = sequence->tokens;
  const auto prompt_tokens = static_cast<size_t>(sequence->prompt_tokens);
  TokenConstraint* const constraint = sequence->constraint.get();
  OutputToken sampled;
  if (const TokenId drawn = drawn_[logit_row]; drawn != kernels::kDrawnByHost) {
    sampled.token = drawn;
    sampled.position = static_cast<int32_t>(sequence->output().size());
  } else {
    sampled =
        sampler_.Sample(logits, sequence->sampling, tokens.first(prompt_tokens),
                        tokens.subspan(prompt_tokens), model_->config().end_tokens, constraint);
  }
  if (constraint == nullptr) {
    sequence->tokens.push_back(sampled.token);
    return sampled;
  }
  const bool last = HasToken(constraint->After(sequence->output()).last, sampled.token);
  sequence->tokens.push_back(sampled.token);
  sequence->ending = last ? Sequence::Ending::kOver : Sequence::Ending::kGoesOn;
  if (!last) constraint->Ready(sequence->output());  // begins while the next step is computed
  return sampled;
}

void Executor::PublishFullBlocks(Sequence* sequence) {
  SendToDevice(sequence);
  const int32_t block_tokens = options_.layout.block_tokens;
  const size_t full = BlocksToPublish(*sequence);
  for (size_t i = sequence->hashes.size(); i < full; ++i) {
    const BlockHash& previous = i == 0 ? sequence->chain_root : sequence->hashes.back();
    sequence->hashes.push_back(
        ChainBlock(previous, std::span(sequence->tokens).subspan(i * block_tokens, block_tokens)));
    pool_.Publish(sequence->blocks, static_cast<int32_t>(i), sequence->hashes.back());
  }
}

std::optional<FinishReason> Executor::Finished(const Sequence& sequence) const {
  const auto output_tokens = static_cast<int32_t>(sequence.output().size());
  if (output_tokens == 0) return std::nullopt;
  const SamplingParams& sampling = sequence.sampling;
  const auto last_is_in = [&](const std::vector<TokenId>& tokens) {
    return std::ranges::find(tokens, sequence.tokens.back()) != tokens.end();
  };
  const bool may_stop = output_tokens > sampling.min_tokens;
  if (may_stop && (last_is_in(sampling.stop_token_ids) ||
                   (!sampling.ignore_eos && last_is_in(model_->config().end_tokens)))) {
    return FinishReason::kStop;
  }
  if (sequence.ending == Sequence::Ending::kOver) return FinishReason::kStop;
  if (sequence.ending == Sequence::Ending::kUnknown) return std::nullopt;
  const bool context_full =
      static_cast<int32_t>(sequence.tokens.size()) >= model_->config().context;
  if (output_tokens >= sampling.max_tokens || context_full) return FinishReason::kLength;
  return std::nullopt;
}

absl::StatusOr<kernels::KvLayout> LayoutFor(const ModelConfig& config, int32_t block_tokens,
                                            kernels::KvDType dtype) {
  if (block_tokens != 8 && block_tokens != 16 && block_tokens != 32) {
    return absl::InvalidArgumentError(
        fmt::format("a KV block cannot hold {} tokens, only 8, 16 or 32", block_tokens));
  }
  return kernels::KvLayout{config.layers, config.kv_heads, config.head_dim, block_tokens, dtype};
}

}  // namespace baton::engine
