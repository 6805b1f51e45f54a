#include "bench/engine_bench.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <random>
#include <utility>

#include "bench/roofline.h"
#include "common/clock.h"
#include "common/status_macros.h"
#include "engine/model_tensors.h"

namespace baton::bench {
namespace {

using engine::ModelConfig;
using engine::Sequence;

constexpr int32_t kMaxBatch = 1024;

absl::Status Check(const EngineBenchOptions& options) {
  if (options.batches.empty()) return absl::InvalidArgumentError("there is no batch to measure");
  for (const int32_t batch : options.batches) {
    if (batch < 1 || batch > kMaxBatch) {
      return absl::InvalidArgumentError(
          fmt::format("a batch of {} sequences cannot be measured: 1 to {}", batch, kMaxBatch));
    }
  }
  if (options.prompt_tokens < 1 || options.generated_tokens < 1 || options.chunk_tokens < 1 ||
      options.repeat < 1) {
    return absl::InvalidArgumentError(fmt::format(
        "a prompt of {} tokens in chunks of {}, {} generated tokens and {} repeats: "
        "each must be at least 1",
        options.prompt_tokens, options.chunk_tokens, options.generated_tokens, options.repeat));
  }
  return absl::OkStatus();
}

absl::Status CheckContext(const EngineBenchOptions& options, const ModelConfig& config) {
  const int32_t most = options.engine.max_context;
  const int32_t context = most > 0 ? std::min(config.context, most) : config.context;
  const int64_t tokens = int64_t{options.prompt_tokens} + options.generated_tokens;
  if (tokens <= context) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("prompt has {} tokens and {} are generated: {} together, context is {}",
                  options.prompt_tokens, options.generated_tokens, tokens, context));
}

// The sum of the context lengths of positions [first, first + count), each its own included.
double ContextSum(double first, double count) { return count * first + count * (count + 1) / 2; }

std::string Percent(double share) { return share > 0 ? fmt::format("{:.0f}%", share * 100) : "-"; }

}  // namespace

absl::StatusOr<std::unique_ptr<EngineBench>> EngineBench::Load(const GgufFile& file,
                                                               const EngineBenchOptions& asked) {
  BATON_RETURN_IF_ERROR(Check(asked));
  BATON_ASSIGN_OR_RETURN(const ModelConfig config, ModelConfig::FromGguf(file));
  BATON_RETURN_IF_ERROR(CheckContext(asked, config));

  EngineBenchOptions options = asked;
  const int32_t largest = std::ranges::max(options.batches);
  engine::LocalEngineOptions& local = options.engine;
  if (local.threads == 0) local.threads = kernels::UsableCpus();
  BATON_ASSIGN_OR_RETURN(const kernels::KvLayout layout,
                         engine::LayoutFor(config, local.block_tokens, local.kv_dtype));
  local.block_count = int64_t{largest} *
                      layout.BlocksFor(int64_t{options.prompt_tokens} + options.generated_tokens);
  local.max_rows = std::max({local.max_rows, options.chunk_tokens, largest});
  local.max_logit_rows = largest;
  local.prefix_cache = false;

  const std::string name = std::filesystem::path(file.path()).filename().string();
  std::unique_ptr<EngineBench> bench(new EngineBench(options, name));
  const TimePoint start = SystemClock().Now();
  BATON_ASSIGN_OR_RETURN(bench->engine_, engine::LocalEngine::Load(file, local));
  bench->load_s_ = Seconds(SystemClock().Now() - start);
  BATON_RETURN_IF_ERROR(bench->CountMatrices(file));
  return bench;
}

absl::Status EngineBench::CountMatrices(const GgufFile& file) {
  BATON_ASSIGN_OR_RETURN(const engine::ModelTensors tensors,
                         engine::FindTensors(file, engine_->model().config()));
  for (const GgufTensor& tensor : file.tensors()) parameters_ += tensor.rows() * tensor.cols();
  double bytes = 0;
  const auto count = [&](const GgufTensor& tensor, bool every_token) {
    const auto weights = static_cast<double>(tensor.rows() * tensor.cols());
    matrices_.push_back({tensor.dtype, weights, every_token});
    bytes += static_cast<double>(tensor.data.size());
  };
  for (const engine::LayerTensors& layer : tensors.layers) {
    for (const GgufTensor* tensor : {layer.query, layer.key, layer.value}) {
      count(*tensor, /*every_token=*/true);
    }
    // Only rows with logits go on in the last layer.
    const bool goes_on = &layer != &tensors.layers.back();
    for (const GgufTensor* tensor : {layer.attention_output, layer.gate, layer.up, layer.down}) {
      count(*tensor, goes_on);
    }
  }
  count(tensors.output != nullptr ? *tensors.output : *tensors.embedding, /*every_token=*/false);
  // Of an embedding table of its own, a step reads a row for each token: next to nothing.
  const double unread =
      tensors.output != nullptr ? static_cast<double>(tensors.embedding->data.size()) : 0;
  read_share_ = bytes / (bytes + unread);
  return absl::OkStatus();
}

int64_t EngineBench::weight_bytes() const { return engine_->model().weight_bytes(); }

int64_t EngineBench::kv_bytes() const { return std::ssize(engine_->slab()); }

absl::StatusOr<std::vector<Sequence>> EngineBench::NewSequences(int32_t batch,
                                                                int32_t repeat) const {
  SamplingParams sampling;
  sampling.temperature = 0;
  sampling.max_tokens = options_.generated_tokens + 1;
  sampling.ignore_eos = true;
  std::vector<Sequence> sequences;
  for (int32_t i = 0; i < batch; ++i) {
    std::mt19937 random(static_cast<uint32_t>(repeat * kMaxBatch + i));
    std::vector<TokenId> prompt(static_cast<size_t>(options_.prompt_tokens));
    const auto vocab = static_cast<uint32_t>(engine_->model().config().vocab);
    for (TokenId& token : prompt) token = static_cast<TokenId>(random() % vocab);
    BATON_ASSIGN_OR_RETURN(sequences.emplace_back(), engine_->executor().NewSequence(
                                                         std::move(prompt), sampling, /*salt=*/""));
  }
  return sequences;
}

absl::Status EngineBench::Prefill(Sequence* sequence) {
  engine::Executor& executor = engine_->executor();
  while (sequence->output().empty()) {
    BATON_RETURN_IF_ERROR(CheckStop(options_.stop));
    const engine::StepRange range{sequence, std::min(sequence->pending(), options_.chunk_tokens)};
    BATON_RETURN_IF_ERROR(executor.Reserve(sequence, range.tokens));
    executor.Step({&range, 1});
  }
  return absl::OkStatus();
}

absl::Status EngineBench::DecodeStep(std::vector<Sequence>* sequences) {
  BATON_RETURN_IF_ERROR(CheckStop(options_.stop));
  std::vector<engine::StepRange> ranges;
  for (Sequence& sequence : *sequences) {
    BATON_RETURN_IF_ERROR(engine_->executor().Reserve(&sequence, 1));
    ranges.push_back({&sequence, 1});
  }
  engine_->executor().Step(ranges);
  return absl::OkStatus();
}

absl::StatusOr<EngineRow> EngineBench::Measure(int32_t batch,
                                               const std::function<void(double)>& progress) {
  const int32_t largest = std::ranges::max(options_.batches);
  if (batch < 1 || batch > largest) {
    return absl::InvalidArgumentError(
        fmt::format("a batch of {} sequences, but the engine is for 1 to {}", batch, largest));
  }
  int32_t done = 0;
  const int32_t total = options_.repeat * (batch + options_.generated_tokens);
  const auto advance = [&] {
    if (progress) progress(static_cast<double>(++done) / total);
  };
  std::vector<double> prefill_rates, decode_rates, dram_gb_s;
  const auto ask_dram = [&] {
    if (options_.dram_gb_s) dram_gb_s.push_back(options_.dram_gb_s());
  };
  for (int32_t repeat = 0; repeat < options_.repeat; ++repeat) {
    BATON_ASSIGN_OR_RETURN(std::vector<Sequence> sequences, NewSequences(batch, repeat));
    const TimePoint start = SystemClock().Now();
    for (Sequence& sequence : sequences) {
      BATON_RETURN_IF_ERROR(Prefill(&sequence));
      advance();
    }
    const double prefill_s = Seconds(SystemClock().Now() - start);
    ask_dram();
    const TimePoint first_tokens = SystemClock().Now();
    for (int32_t step = 0; step < options_.generated_tokens; ++step) {
      BATON_RETURN_IF_ERROR(DecodeStep(&sequences));
      advance();
    }
    const double decode_s = Seconds(SystemClock().Now() - first_tokens);
    ask_dram();
    prefill_rates.push_back(double{1} * batch * options_.prompt_tokens / prefill_s);
    decode_rates.push_back(double{1} * batch * options_.generated_tokens / decode_s);
  }
  return EngineRow{.model = name_,
                   .threads = options_.engine.threads,
                   .batch = batch,
                   .prompt_tokens = options_.prompt_tokens,
                   .generated_tokens = options_.generated_tokens,
                   .prefill_tokens_per_s = Median(std::move(prefill_rates)),
                   .decode_tokens_per_s = Median(std::move(decode_rates)),
                   .dram_gb_s = dram_gb_s.empty() ? 0 : Median(dram_gb_s)};
}

EngineWork EngineBench::WorkOf(int32_t batch, const Ceilings& ceilings) const {
  EngineWork work;
  bool known = true;
  const auto add = [&](double ops, Arithmetic arithmetic) {
    const std::optional<double> gop_s = GopS(arithmetic, ceilings);
    work.prefill_ops += ops;
    known = known && gop_s;
    if (gop_s) work.prefill_s += ops / *gop_s * 1e-9;
  };
  const double prompt = options_.prompt_tokens;
  for (const MatrixCount& matrix : matrices_) {
    add(2 * matrix.weights * (matrix.every_token ? prompt : 1),
        ArithmeticOf(matrix.dtype, ceilings));
  }
  const ModelConfig& config = engine_->model().config();
  const double positions = (config.layers - 1) * ContextSum(0, prompt) + prompt;  // last layer: one
  add(4.0 * config.heads * config.head_dim * positions, ArithmeticOf(layout().dtype, ceilings));
  if (!known) work.prefill_s = 0;

  const double steps = options_.generated_tokens;
  const double mean_context = ContextSum(prompt, steps) / steps;
  work.decode_bytes = read_share_ * static_cast<double>(weight_bytes()) +
                      batch * mean_context * static_cast<double>(layout().bytes_per_token());
  return work;
}

std::string CeilingsText(const Ceilings& ceilings) {
  std::string text = fmt::format("ceilings  DRAM read {:.1f} GB/s, FP32 {:.0f} GFLOP/s",
                                 ceilings.dram_read_gb_s, ceilings.fp32_gop_s);
  if (ceilings.bf16_gop_s) text += fmt::format(", BF16 {:.0f} GFLOP/s", *ceilings.bf16_gop_s);
  if (ceilings.int8_gop_s) text += fmt::format(", INT8 {:.0f} GOP/s", *ceilings.int8_gop_s);
  return text;
}

std::string EngineTableHead(const EngineBench& bench) {
  std::string head;
  head += fmt::format("model     {}, {:.0f}M parameters\n", bench.name(), bench.parameters() / 1e6);
  head += fmt::format("device    {}\n", bench.ops().Describe());
  head += fmt::format("memory    weights {:.1f} MB, KV {:.1f} MB ({}), resident {:.1f} MB\n",
                      bench.weight_bytes() / 1e6, bench.kv_bytes() / 1e6,
                      Traits(bench.layout().dtype).name, ResidentBytes() / 1e6);
  head += fmt::format("load      {:.2f} s\n\n", bench.load_s());
  head += fmt::format("{:>5} {:>7} {:>9}   {:>15} {:>9} {:>8}   {:>14} {:>7} {:>8}", "batch",
                      "prompt", "generated", "prefill tokens/s", "GOP/s", "of dot",
                      "decode tokens/s", "GB/s", "of DRAM");
  return head;
}

std::string EngineTableLine(const EngineRow& row, const EngineWork& work,
                            const Ceilings& ceilings) {
  const double prompts_per_s = row.prefill_tokens_per_s / row.prompt_tokens;
  const double dram_gb_s = row.dram_gb_s > 0 ? row.dram_gb_s : ceilings.dram_read_gb_s;
  const double gb_s = work.decode_bytes * row.decode_tokens_per_s / row.batch * 1e-9;
  return fmt::format("{:>5} {:>7} {:>9}   {:>16.1f} {:>9.1f} {:>8}   {:>15.1f} {:>7.1f} {:>8}",
                     row.batch, row.prompt_tokens, row.generated_tokens, row.prefill_tokens_per_s,
                     work.prefill_ops * prompts_per_s * 1e-9,
                     Percent(work.prefill_s * prompts_per_s), row.decode_tokens_per_s, gb_s,
                     Percent(gb_s / dram_gb_s));
}

}  // namespace baton::bench
