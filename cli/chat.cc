// `baton chat [QUESTION]`: a conversation with a cluster through the OpenAI API.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <boost/json.hpp>
#include <iostream>
#include <memory>

#include "cli/command_line.h"
#include "cli/http_client.h"
#include "common/status_macros.h"

namespace baton::cli {
namespace {

namespace json = boost::json;

struct ChatFlags {
  std::string question;
  std::string url = "http://127.0.0.1:8000";
  std::string model, system;
  int32_t max_tokens = 512;
  double temperature = 0;
  bool stats = false;
  TlsFiles tls;
  std::string api_key;
  bool insecure_tls = false;
  int32_t timeout_s = 300;
};

struct Turn {
  std::string answer;
  json::value usage, stats;
  std::string error;
};

void TakeEvent(std::string_view data, Turn* turn) {
  if (data == "[DONE]") return;
  boost::system::error_code parse_error;
  const json::value event = json::parse({data.data(), data.size()}, parse_error);
  if (parse_error) {
    turn->error = "the router sent an event that is not JSON";
    return;
  }
  if (const json::value* error = event.as_object().if_contains("error")) {
    turn->error = json::serialize(*error);
    return;
  }
  const json::object& object = event.as_object();
  if (const json::value* usage = object.if_contains("usage")) turn->usage = *usage;
  if (const json::value* stats = object.if_contains("baton")) turn->stats = *stats;
  const json::value* choices = object.if_contains("choices");
  if (choices == nullptr || choices->as_array().empty()) return;
  const json::object& delta = choices->as_array()[0].at("delta").as_object();
  const json::value* content = delta.if_contains("content");
  if (content == nullptr || !content->is_string()) return;
  const std::string text(content->as_string());
  turn->answer += text;
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

double Number(const json::value& object, std::string_view field) {
  if (!object.is_object()) return 0;
  const json::value* value = object.as_object().if_contains({field.data(), field.size()});
  if (value == nullptr) return 0;
  boost::system::error_code error;
  const double number = value->to_number<double>(error);
  return error ? 0 : number;
}

std::string Text(const json::value& object, std::string_view field) {
  if (!object.is_object()) return "";
  const json::value* value = object.as_object().if_contains({field.data(), field.size()});
  return value != nullptr && value->is_string() ? std::string(value->as_string()) : "";
}

void PrintStats(const Turn& turn) {
  const double itl_s = Number(turn.stats, "mean_itl_s");
  const std::string transport = Text(turn.stats, "transport");
  fmt::print("\n  prefilled by     {}\n", Text(turn.stats, "prefill_worker"));
  fmt::print("  decoded by       {}\n", Text(turn.stats, "decode_worker"));
  fmt::print("  prompt tokens    {:.0f} ({:.0f} from the prefix cache)\n",
             Number(turn.usage, "prompt_tokens"), Number(turn.stats, "cached_prompt_tokens"));
  fmt::print("  output tokens    {:.0f}\n", Number(turn.usage, "completion_tokens"));
  fmt::print("  KV moved         {:.0f} blocks, {:.0f} bytes, by {}\n",
             Number(turn.stats, "kv_blocks_moved"), Number(turn.stats, "kv_bytes_moved"),
             transport.empty() ? "nothing" : transport);
  fmt::print("  TTFT             {:.1f} ms\n", Number(turn.stats, "ttft_s") * 1e3);
  fmt::print("  mean ITL         {:.2f} ms\n", itl_s * 1e3);
  fmt::print("  decode           {:.1f} tokens/s\n", itl_s > 0 ? 1 / itl_s : 0);
}

absl::Status Ask(const ChatFlags& flags, const HttpUrl& url, json::array* messages) {
  json::object body{{"messages", *messages},
                    {"stream", true},
                    {"temperature", flags.temperature},
                    {"stream_options", {{"include_usage", true}}},
                    {"return_stats", true}};
  if (!flags.model.empty()) body["model"] = flags.model;
  if (flags.max_tokens > 0) body["max_tokens"] = flags.max_tokens;
  Turn turn;
  EventStream events([&turn](std::string_view data) { TakeEvent(data, &turn); });
  BATON_RETURN_IF_ERROR(PostJson(url, "/v1/chat/completions", json::serialize(body),
                                 std::chrono::seconds(flags.timeout_s),
                                 [&events](std::string_view bytes) { events.Push(bytes); }));
  std::puts("");
  if (!turn.error.empty()) return absl::UnavailableError("the answer broke off: " + turn.error);
  messages->push_back({{"role", "assistant"}, {"content", turn.answer}});
  if (flags.stats) PrintStats(turn);
  return absl::OkStatus();
}

absl::Status Chat(const ChatFlags& flags) {
  BATON_ASSIGN_OR_RETURN(HttpUrl url, ParseUrl(flags.url));
  url.files = flags.tls;
  url.insecure_tls = flags.insecure_tls;
  url.api_key = flags.api_key;
  json::array messages;
  if (!flags.system.empty()) messages.push_back({{"role", "system"}, {"content", flags.system}});
  if (!flags.question.empty()) {
    messages.push_back({{"role", "user"}, {"content", flags.question}});
    return Ask(flags, url, &messages);
  }
  std::fputs("an empty line or Ctrl-D ends\n", stderr);
  std::string line;
  while (std::fputs("> ", stderr), std::getline(std::cin, line) && !line.empty()) {
    messages.push_back({{"role", "user"}, {"content", line}});
    BATON_RETURN_IF_ERROR(Ask(flags, url, &messages));
  }
  return absl::OkStatus();
}

}  // namespace

Action AddChat(CLI::App* app) {
  auto flags = std::make_shared<ChatFlags>();
  app->add_option("question", flags->question, "asked once; without it, a conversation");
  app->add_option("--url", flags->url, "the router; http or https")->capture_default_str();
  app->add_option("--ca", flags->tls.ca,
                  "PEM CA that an https router's certificate must be from; the system's when not "
                  "given");
  app->add_flag("--insecure-tls", flags->insecure_tls, "take any certificate");
  app->add_option("--cert", flags->tls.certificate,
                  "PEM certificate for a router that asks for one");
  app->add_option("--key", flags->tls.key, "its private key");
  app->add_option("--api-key", flags->api_key,
                  "API key; better by BATON_API_KEY, which others of the machine do not see");
  app->add_option("--model", flags->model, "model name; the only one when not given");
  app->add_option("--system", flags->system, "system message");
  app->add_option("--max-tokens", flags->max_tokens,
                  "most output tokens; 0: what the context leaves")
      ->check(CLI::Range(0, 1 << 24))
      ->capture_default_str();
  app->add_option("--temperature", flags->temperature, "0 is greedy")->capture_default_str();
  app->add_flag("--stats", flags->stats, "show what happened after each answer");
  app->add_option("--timeout", flags->timeout_s, "longest silence of the router, seconds")
      ->check(CLI::Range(1, 86400))
      ->capture_default_str();
  return [flags] {
    try {
      return Chat(*flags);
    } catch (const std::exception& error) {
      return absl::InternalError(
          fmt::format("the router's answer is not as expected: {}", error.what()));
    }
  };
}

}  // namespace baton::cli
