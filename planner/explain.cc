#include "planner/explain.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <string_view>

namespace baton::planner {
namespace {

// Digits in groups of three.
std::string Grouped(double value) {
  const std::string digits = fmt::format("{:.0f}", value);
  std::string grouped;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) grouped += ',';
    grouped += digits[i];
  }
  return grouped;
}

std::string Scientific(double value) { return fmt::format("{:.4g}", value); }

class Derivation {
 public:
  Derivation(const RatioQuestion& question, const RatioAnswer& answer)
      : question_(question), answer_(answer), d_(question.deployment) {}

  std::string Write() {
    Kv();
    Memory();
    Prefill();
    DecodeStep();
    Ratio();
    Choices();
    return std::move(text_);
  }

 private:
  template <typename... Arguments>
  void Line(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
    fmt::format_to(std::back_inserter(text_), format, std::forward<Arguments>(arguments)...);
    text_ += '\n';
  }
  void Step(std::string_view title) {
    Line("{}{}. {}", step_ == 0 ? "" : "\n", step_ + 1, title);
    ++step_;
  }

  void Kv() {
    const ModelFacts& m = d_.model;
    Step("The KV of one token.");
    if (m.mla_kv_rank > 0) {
      Line("   {} keeps one latent vector for all heads:", m.name);
      Line("   {} layers x ({} + {} rotary) x {} bytes = {} bytes.", m.layers, m.mla_kv_rank,
           m.mla_rope_dim, d_.precision.kv_bytes_each, Grouped(answer_.kv_bytes_per_token));
    } else {
      Line("   {}: K and V in {} layers, {} kv heads of {}:", m.name, m.layers, m.kv_heads,
           m.head_dim);
      Line("   2 x {} x {} x {} x {} bytes = {} bytes.", m.layers, m.kv_heads, m.head_dim,
           d_.precision.kv_bytes_each, Grouped(answer_.kv_bytes_per_token));
    }
    if (m.windowed_layers > 0) {
      Line("   {} of the layers keep the last {} tokens only.", m.windowed_layers, m.window_tokens);
    }
  }

  void Memory() {
    const double parameters = answer_.weights_bytes / d_.precision.weight_bytes_each;
    const double usable = d_.assumptions.usable_hbm;
    const double memory = static_cast<double>(d_.worker.chips()) * d_.hardware.hbm_bytes * usable;
    const double sequence = KvBytes(d_.model, d_.precision, answer_.context_tokens);
    Step("What fits.");
    Line("   Weights: {} parameters x {:.4g} bytes = {}.", Scientific(parameters),
         d_.precision.weight_bytes_each, BytesText(answer_.weights_bytes));
    Line("   {} x {} with {}{}: {}, which leaves {} for KV.", d_.worker.chips(), d_.hardware.name,
         BytesText(d_.hardware.hbm_bytes),
         usable < 1 ? fmt::format(", {:.0f}% of it usable", usable * 100) : "", BytesText(memory),
         BytesText(memory - answer_.weights_bytes));
    Line("   A sequence of {} tokens{} takes {}: {} fit.", Grouped(answer_.context_tokens),
         d_.assumptions.book ? " (the prompt, as the book counts)"
                             : " (the prompt and, on average, half of the answer)",
         BytesText(sequence), answer_.batch_max);
    Line("   Compute binds in a decode step from a batch of {:.0f} on.", CriticalBatch(d_));
  }

  void Prefill() {
    Step("Prefill of one prompt.");
    if (question_.prefill_s > 0) {
      Line("   Given: {}.", SecondsText(answer_.prefill_s));
      return;
    }
    const double tokens = question_.input_tokens;
    const double flops = PrefillFlops(d_, tokens, 0);
    const Assumptions& assumed = d_.assumptions;
    if (assumed.book) {
      Line("   2 x parameters x tokens = 2 x {} x {} = {} FLOPs (attention left out).",
           Scientific(flops / 2 / tokens), Grouped(tokens), Scientific(flops));
    } else {
      Line("   2 x parameters x tokens and causal attention: {} FLOPs.", Scientific(flops));
    }
    const double rate = static_cast<double>(d_.worker.chips()) * FlopsPerSecond(d_);
    Line("   {} chips x {} FLOP/s x {:.0f}% of peak = {} FLOP/s: {}.", d_.worker.chips(),
         Scientific(FlopsPerSecond(d_)), assumed.prefill_mfu * 100,
         Scientific(rate * assumed.prefill_mfu), SecondsText(flops / (rate * assumed.prefill_mfu)));
    if (assumed.book) return;
    Line("   In chunks of {}, with weights and KV read, {} of all-reduces a chunk and a step's",
         assumed.chunk_tokens,
         SecondsText(
             LinkSecondsPerStep(d_, std::min(tokens, static_cast<double>(assumed.chunk_tokens)))));
    Line("   overhead of {}: {}.", SecondsText(assumed.step_s), SecondsText(answer_.prefill_s));
  }

  void DecodeStep() {
    Step("One decode step.");
    const double batch = answer_.batch, steps = question_.output_tokens;
    if (question_.decode_step_s > 0) {
      Line("   Given: {} at a batch of {:.4g}.", SecondsText(answer_.decode_step_s), batch);
    } else {
      const double kv = batch * KvBytes(d_.model, d_.precision, answer_.context_tokens);
      const double rate = static_cast<double>(d_.worker.tensor_parallel) *
                          d_.hardware.hbm_bytes_per_s * d_.assumptions.decode_mbu;
      Line("   It reads {} and the KV of {:.4g} sequences once: {} + {}",
           d_.model.experts > 0 ? "the weights (of experts those chosen)" : "all weights", batch,
           BytesText(answer_.weights_bytes), BytesText(kv));
      Line("   at {} chips x {}/s{} = {}/s.", d_.worker.tensor_parallel,
           BytesText(d_.hardware.hbm_bytes_per_s),
           d_.assumptions.decode_mbu < 1
               ? fmt::format(" x {:.0f}%", d_.assumptions.decode_mbu * 100)
               : "",
           BytesText(rate));
      if (!d_.assumptions.book) {
        Line("   All-reduces take {}, launching {}.", SecondsText(LinkSecondsPerStep(d_, batch)),
             SecondsText(d_.assumptions.step_s));
      }
      Line("   So a step takes {}.", SecondsText(answer_.decode_step_s));
    }
    Line("   {} steps of an answer: {}.", Grouped(steps),
         SecondsText(steps * answer_.decode_step_s));
  }

  void Ratio() {
    Step("The ratio.");
    const double finished = answer_.requests_per_s / static_cast<double>(answer_.decode);
    Line("   A decode worker finishes {:.4g} / ({} x {}) = {:.4g} requests a second,",
         answer_.batch, SecondsText(answer_.decode_step_s), Grouped(question_.output_tokens),
         finished);
    Line("   and each needs {} of a prefill worker: {:.4g} x {} = {:.3f} prefill workers for each",
         SecondsText(answer_.ratio / finished), finished, SecondsText(answer_.ratio / finished),
         answer_.ratio);
    Line("   decode worker.");
    Line("   Rule of thumb instead, a full worker reading its whole memory in a step, {} / {}/s",
         BytesText(d_.hardware.hbm_bytes), BytesText(d_.hardware.hbm_bytes_per_s));
    Line("   = {}: {:.3f}, in whole numbers P = {:.0f}G.", SecondsText(answer_.full_hbm_step_s),
         answer_.ratio_full_hbm, std::max(1.0, std::round(answer_.ratio_full_hbm)));
    if (answer_.prefill_utilisation > 1) {
      Line(
          "   {} for {} do not keep up: they would be {:.1f}% busy. Decode workers then hold "
          "{:.1f}",
          answer_.prefill, answer_.decode, answer_.prefill_utilisation * 100, answer_.batch_kept);
      Line("   sequences each, not {:.4g}, and every prompt waits longer than the one before it.",
           answer_.batch);
    } else {
      Line("   {} for {}: prefill is {:.1f}% busy.", answer_.prefill, answer_.decode,
           answer_.prefill_utilisation * 100);
    }
  }

  void Choices() {
    Step("What the ratio leaves out: waiting. Prompts arrive at random, so a first token takes");
    Line("   prefill  busy     median      99%");
    const auto choices = PrefillChoices(answer_);
    for (const PrefillChoice& choice : choices) {
      Line("   {:>7}  {:>5.1f}%  {:>8}  {:>8}", choice.prefill, choice.utilisation * 100,
           SecondsText(choice.ttft_p50_s), SecondsText(choice.ttft_p99_s));
    }
    const PrefillChoice& last = choices.back();
    Line("   The nearer to 100%, the longer, without bound. {} is the fewest of these with 99% of",
         last.prefill);
    Line("   first tokens within {}, twice the prefill alone.", SecondsText(2 * answer_.prefill_s));
  }

  const RatioQuestion& question_;
  const RatioAnswer& answer_;
  const Deployment& d_;
  std::string text_;
  int step_ = 0;
};

}  // namespace

std::string SecondsText(double seconds) {
  if (!std::isfinite(seconds)) return "never";
  if (seconds < 1e-3) return fmt::format("{:.3g} us", seconds * 1e6);
  if (seconds < 0.5) return fmt::format("{:.3g} ms", seconds * 1e3);
  if (seconds < 600) return fmt::format("{:.3g} s", seconds);
  return fmt::format("{:.3g} min", seconds / 60);
}

std::string BytesText(double bytes) {
  if (bytes >= 1e12) return fmt::format("{:.2f} TB", bytes / 1e12);
  if (bytes >= 1e9) return fmt::format("{:.1f} GB", bytes / 1e9);
  if (bytes >= 1e6) return fmt::format("{:.1f} MB", bytes / 1e6);
  return fmt::format("{} bytes", Grouped(bytes));
}

std::string ExplainRatio(const RatioQuestion& question, const RatioAnswer& answer) {
  return Derivation(question, answer).Write();
}

}  // namespace baton::planner
