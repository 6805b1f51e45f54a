// `baton run`: prompts to answers in this process, without a network. What it prints is what every
// cluster's answer is compared with.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <memory>

#include "cli/command_line.h"
#include "cli/engine_flags.h"
#include "cli/request_json.h"
#include "common/status_macros.h"
#include "grammar/constraint.h"
#include "text/bad_words.h"
#include "text/detokenizer.h"

namespace baton::cli {
namespace {

struct RunFlags {
  EngineFlags engine;
  std::string prompt, chat, tokens, requests;
  std::string json_schema, regex;
  SamplingParams sampling;
  bool has_max_tokens = false;
  bool json = false;
};

class Runner {
 public:
  static absl::StatusOr<Runner> Create(const RunFlags& flags) {
    BATON_ASSIGN_OR_RETURN(LoadedModel loaded, LoadModel(flags.engine));
    std::unique_ptr<const text::ChatTemplate> chat_template;
    if (loaded.file->Has("tokenizer.chat_template")) {
      BATON_ASSIGN_OR_RETURN(chat_template,
                             text::ChatTemplate::FromFile(*loaded.file, *loaded.tokenizer));
    }
    return Runner(flags, std::move(loaded), std::move(chat_template));
  }

  absl::Status Answer(RunRequest request, bool stream) {
    const text::Tokenizer& tokenizer = *loaded_.tokenizer;
    BATON_ASSIGN_OR_RETURN(const std::vector<TokenId> prompt,
                           PromptTokens(request.prompt, tokenizer, chat_template_.get()));
    SamplingParams& sampling = request.sampling;
    if (!request.has_max_tokens) sampling.max_tokens = loaded_.engine->model().config().context;
    sampling.bad_words = text::BadWordTokens(tokenizer, request.bad_words);
    BATON_RETURN_IF_ERROR(CheckSamplingParams(sampling, tokenizer.vocab_size()));
    engine::GenerateOptions options;
    options.chunk_tokens = chunk_tokens_;
    text::Detokenizer detokenizer(&tokenizer);
    if (stream) {
      options.on_token = [&detokenizer](const OutputToken& token) {
        const std::string text = detokenizer.Push(token.token);
        std::fwrite(text.data(), 1, text.size(), stdout);
        std::fflush(stdout);
        return true;
      };
    }
    BATON_ASSIGN_OR_RETURN(
        const engine::GenerateResult result,
        engine::Generate(&loaded_.engine->executor(), prompt, sampling, options));
    if (!stream) {
      std::puts(RunResultJson(prompt, result, sampling, tokenizer).c_str());
      std::fflush(stdout);
      return absl::OkStatus();
    }
    std::puts(detokenizer.Flush().c_str());
    std::fprintf(stderr, "%zu prompt tokens in %.3f s, %zu output tokens in %.3f s\n",
                 prompt.size(), result.prefill_s, result.output.size(), result.decode_s);
    return absl::OkStatus();
  }

 private:
  Runner(const RunFlags& flags, LoadedModel loaded,
         std::unique_ptr<const text::ChatTemplate> chat_template)
      : chunk_tokens_(flags.engine.chunk_tokens),
        loaded_(std::move(loaded)),
        chat_template_(std::move(chat_template)) {}

  int32_t chunk_tokens_;
  LoadedModel loaded_;
  std::unique_ptr<const text::ChatTemplate> chat_template_;
};

// One request a line; the first that fails ends the run and is named by its number.
absl::Status RunFile(Runner* runner, const RunFlags& flags) {
  std::ifstream file(flags.requests);
  if (!file) return absl::NotFoundError(fmt::format("cannot read {}", flags.requests));
  std::string line;
  for (int number = 1; std::getline(file, line); ++number) {
    if (line.empty()) continue;
    absl::StatusOr<RunRequest> request = ParseRunRequest(line, flags.sampling);
    absl::Status status = request.status();
    if (status.ok()) {
      request->has_max_tokens |= flags.has_max_tokens;
      status = runner->Answer(*std::move(request), /*stream=*/false);
    }
    if (!status.ok()) {
      return absl::Status(status.code(), fmt::format("{}:{}: {}", flags.requests, number,
                                                     std::string(status.message())));
    }
  }
  return absl::OkStatus();
}

// --json-schema and --regex to the sampler's constraint.
absl::StatusOr<std::string> ReadConstraint(const RunFlags& flags) {
  if (!flags.regex.empty()) return grammar::RegexConstraint(flags.regex);
  if (flags.json_schema.empty()) return "";
  std::ifstream file(flags.json_schema);
  std::string schema(std::istreambuf_iterator<char>(file), {});
  if (!file) return absl::NotFoundError(fmt::format("cannot read {}", flags.json_schema));
  return grammar::JsonSchemaConstraint(schema);
}

absl::Status RunModel(RunFlags flags) {
  BATON_ASSIGN_OR_RETURN(flags.sampling.constraint, ReadConstraint(flags));
  RunRequest request{.sampling = flags.sampling, .has_max_tokens = flags.has_max_tokens};
  request.prompt.text = flags.prompt;
  if (!flags.chat.empty()) request.prompt.messages = {{"user", flags.chat}};
  if (!flags.tokens.empty()) {
    BATON_ASSIGN_OR_RETURN(request.prompt.tokens, ParseTokenIds(flags.tokens));
  }
  BATON_ASSIGN_OR_RETURN(Runner runner, Runner::Create(flags));
  if (!flags.requests.empty()) return RunFile(&runner, flags);
  return runner.Answer(std::move(request), !flags.json);
}

void AddSamplingFlags(CLI::App* app, RunFlags* flags) {
  SamplingParams& s = flags->sampling;
  app->add_option_function<int32_t>(
         "-n,--max-tokens",
         [flags](int32_t value) {
           flags->sampling.max_tokens = value;
           flags->has_max_tokens = true;
         },
         "most output tokens; what the context leaves when not given")
      ->type_name("INT");
  app->add_option("--temperature", s.temperature, "0 is greedy")->capture_default_str();
  app->add_option("--top-k", s.top_k, "0: off")->capture_default_str();
  app->add_option("--top-p", s.top_p, "1: off")->capture_default_str();
  app->add_option("--min-p", s.min_p, "0: off")->capture_default_str();
  app->add_option("--repetition-penalty", s.repetition_penalty, "1: off")->capture_default_str();
  app->add_option("--presence-penalty", s.presence_penalty, "0: off")->capture_default_str();
  app->add_option("--frequency-penalty", s.frequency_penalty, "0: off")->capture_default_str();
  app->add_option("--seed", s.seed, "of the sampler")->capture_default_str();
  app->add_option("--min-tokens", s.min_tokens, "no end before this many")->capture_default_str();
  app->add_flag("--ignore-eos", s.ignore_eos, "go on after end-of-sequence tokens");
  CLI::Option* schema = app->add_option("--json-schema", flags->json_schema,
                                        "file with a JSON schema that the answer satisfies");
  app->add_option("--regex", flags->regex, "regular expression that the whole answer matches")
      ->excludes(schema);
  app->add_option("--logprobs", s.logprobs, "-1: none; n: the chosen token's and the n best")
      ->capture_default_str();
}

}  // namespace

Action AddRun(CLI::App* app) {
  auto flags = std::make_shared<RunFlags>();
  AddEngineFlags(app, &flags->engine, "one sequence of full context");
  CLI::Option_group* prompt = app->add_option_group("prompt", "exactly one of");
  prompt->add_option("-p,--prompt", flags->prompt, "plain text");
  prompt->add_option("--chat", flags->chat, "a user's message, put into the chat template");
  prompt->add_option("--tokens", flags->tokens, "token ids: 1,2,3");
  prompt->add_option(
      "--requests", flags->requests,
      "file with a JSON request a line: {\"tokens\"|\"prompt\"|\"messages\", \"sampling\"}; "
      "prints a JSON answer a line");
  prompt->require_option(1);
  AddSamplingFlags(app, flags.get());
  app->add_flag("--json", flags->json, "print one JSON object with tokens, logprobs and timings");
  return [flags] { return RunModel(*flags); };
}

}  // namespace baton::cli
