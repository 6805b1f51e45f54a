// `baton eval --ppl FILE`: how well the model predicts a text.

#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <fstream>
#include <memory>
#include <sstream>

#include "cli/command_line.h"
#include "cli/engine_flags.h"
#include "common/status_macros.h"
#include "engine/perplexity.h"

namespace baton::cli {
namespace {

struct EvalFlags {
  EngineFlags engine;
  std::string text_path;
  int32_t window = 512;
  bool json = false;
};

absl::Status Eval(const EvalFlags& flags) {
  std::ifstream file(flags.text_path, std::ios::binary);
  if (!file) return absl::NotFoundError(fmt::format("cannot read {}", flags.text_path));
  std::ostringstream text;
  text << file.rdbuf();
  BATON_ASSIGN_OR_RETURN(const LoadedModel loaded, LoadModel(flags.engine));
  const std::vector<TokenId> tokens =
      loaded.tokenizer->Encode(text.str(), text::SpecialTokens::kPlainText);
  std::function<void(double)> progress;
  if (isatty(STDERR_FILENO) == 1) {
    progress = [](double share) {
      std::fprintf(stderr, "\rscoring: %3.0f%%%s", share * 100, share >= 1 ? "\n" : "");
    };
  }
  BATON_ASSIGN_OR_RETURN(
      const engine::PerplexityResult result,
      engine::Perplexity(&loaded.engine->model(), &loaded.engine->executor().pool(), tokens,
                         flags.window, progress));
  if (flags.json) {
    fmt::print("{{\"tokens\":{},\"mean_nll\":{:.6f}}}\n", result.scored_tokens, result.mean_nll);
  } else {
    fmt::print("{} tokens scored, mean negative log likelihood {:.4f} nats, perplexity {:.3f}\n",
               result.scored_tokens, result.mean_nll, std::exp(result.mean_nll));
  }
  return absl::OkStatus();
}

}  // namespace

Action AddEval(CLI::App* app) {
  auto flags = std::make_shared<EvalFlags>();
  AddEngineFlags(app, &flags->engine, "one sequence of full context");
  app->add_option("--ppl", flags->text_path, "text file")->required();
  app->add_option(
         "--window", flags->window,
         "tokens of a window; windows do not overlap, the first token of each is not scored")
      ->check(CLI::Range(2, 1 << 24))
      ->capture_default_str();
  app->add_flag("--json", flags->json, "print {\"tokens\",\"mean_nll\"}");
  return [flags] { return Eval(*flags); };
}

}  // namespace baton::cli
