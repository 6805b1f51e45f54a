#include "bench/router_bench.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "bench/arrivals.h"
#include "bench/load_prompt.h"
#include "bench/load_run.h"
#include "bench/process_stat.h"
#include "common/status_macros.h"

namespace baton::bench {
namespace {

constexpr Duration kStep = std::chrono::milliseconds(10);
constexpr Duration kIdleStep = std::chrono::seconds(5);
constexpr double kMiB = 1 << 20;
constexpr Duration kSpin = std::chrono::microseconds(100);

absl::Status CheckAnswer(int64_t number, const LoadAnswer& answer) {
  if (answer.end == LoadEnd::kOk) return absl::OkStatus();
  return absl::UnavailableError(fmt::format("request {} ended with {} (HTTP {}): {}", number,
                                            LoadEndName(answer.end), answer.facts.status,
                                            answer.facts.error));
}

}  // namespace

// What a load took, and what it took of the router.
struct RouterBench::Measured {
  int64_t requests = 0;
  double wall_s = 0;
  double cpu_s = 0;
  std::vector<double> ttft_s;

  double CpuMs() const { return cpu_s * 1e3 / static_cast<double>(requests); }
};

absl::StatusOr<RouterBench> RouterBench::Connect(const RouterBenchOptions& options,
                                                 const LoadUrl& url, pid_t pid,
                                                 SimulatedWorkers* workers) {
  RouterBench bench(options, url, pid, workers);
  BATON_RETURN_IF_ERROR(bench.CountPromptWords());
  return bench;
}

// The chat template adds tokens of its own: asks how many, so that a prompt has as many as wanted.
absl::Status RouterBench::CountPromptWords() {
  workers_->SetStep(Duration::zero());
  BATON_ASSIGN_OR_RETURN(const auto client, LoadClient::Create({.url = url_}));
  absl::Status status;
  int64_t tokens = 0;
  prompt_words_ = options_.prompt_tokens;
  const LoadSource source{[&](int64_t) { return Chat(next_seed_++, 1, /*stream=*/false); },
                          [&](int64_t number, const LoadAnswer& answer) {
                            status = CheckAnswer(number, answer);
                            tokens = answer.facts.prompt_tokens;
                          },
                          nullptr};
  RunClosedLoad(client.get(), 1, 1, source);
  prompt_words_ = std::max<int64_t>(1, 2 * prompt_words_ - tokens);
  return status;
}

std::string RouterBench::Chat(uint64_t seed, int32_t output_tokens, bool stream) const {
  const BodyOptions body{.output_tokens = output_tokens, .stream = stream, .ignore_eos = true};
  return PostRequest(url_, "/v1/chat/completions", ChatBody(WordText(seed, prompt_words_), body));
}

absl::StatusOr<RouterBench::Measured> RouterBench::Measure(
    const char* what, int64_t requests, int32_t output_tokens, bool stream,
    const std::function<void(LoadClient*, LoadSource)>& run) {
  Progress(what);
  BATON_ASSIGN_OR_RETURN(const auto client,
                         LoadClient::Create({.url = url_, .keep_gaps = false, .spin = kSpin}));
  Measured measured;
  absl::Status failed;
  measured.ttft_s.reserve(static_cast<size_t>(requests));
  LoadSource source;
  source.request = [&](int64_t) { return Chat(next_seed_++, output_tokens, stream); };
  source.on_answer = [&](int64_t number, const LoadAnswer& answer) {
    failed.Update(CheckAnswer(number, answer));
    measured.ttft_s.push_back(Seconds(answer.first_piece - answer.due));
    if (++measured.requests % 1024 != 0) return;
    Progress(fmt::format("{}: {} of {} requests", what, measured.requests, requests));
  };
  source.stop = [&] { return !failed.ok() || (options_.stop && options_.stop()); };
  BATON_ASSIGN_OR_RETURN(const ProcessStat before, ReadProcessStat(pid_));
  const TimePoint begin = SystemClock().Now();
  run(client.get(), source);
  measured.wall_s = Seconds(SystemClock().Now() - begin);
  BATON_ASSIGN_OR_RETURN(const ProcessStat after, ReadProcessStat(pid_));
  BATON_RETURN_IF_ERROR(failed);
  BATON_RETURN_IF_ERROR(CheckStop(options_.stop));
  measured.cpu_s = after.cpu_s - before.cpu_s;
  return measured;
}

absl::StatusOr<RouterBench::Measured> RouterBench::Closed(const char* what, int64_t requests,
                                                          int64_t concurrency,
                                                          int32_t output_tokens, bool stream) {
  return Measure(what, requests, output_tokens, stream,
                 [&](LoadClient* client, const LoadSource& source) {
                   RunClosedLoad(client, requests, concurrency, source);
                 });
}

absl::StatusOr<std::vector<RouterRow>> RouterBench::Streams() {
  workers_->SetStep(kStep);
  const int32_t tokens = options_.output_tokens;
  BATON_RETURN_IF_ERROR(Closed("warming up", std::max<int64_t>(options_.requests / 10, 1),
                               options_.concurrency, tokens, true)
                            .status());
  BATON_ASSIGN_OR_RETURN(const Measured measured,
                         Closed("streams", options_.requests, options_.concurrency, tokens, true));
  const auto requests = static_cast<double>(measured.requests);
  return std::vector<RouterRow>{
      {"requests_per_s", requests / measured.wall_s, "requests/s"},
      {"requests_per_s_per_core", requests / measured.cpu_s, "requests/s"},
      {"cpu_share_busy", measured.cpu_s / measured.wall_s, "cores"},
  };
}

absl::StatusOr<std::vector<RouterRow>> RouterBench::HalfLoad(double rate_per_s) {
  workers_->SetStep(kStep);
  BATON_ASSIGN_OR_RETURN(
      const std::vector<double> due_s,
      ArrivalTimes({.rate_per_s = rate_per_s, .seed = next_seed_}, options_.requests));
  BATON_ASSIGN_OR_RETURN(Measured measured,
                         Measure("half load", options_.requests, options_.output_tokens, true,
                                 [&](LoadClient* client, const LoadSource& source) {
                                   RunOpenLoad(client, due_s, source);
                                 }));
  return std::vector<RouterRow>{
      {"cpu_ms_per_request", measured.CpuMs(), "ms"},
      {"added_ttft_p50_ms", Percentile(measured.ttft_s, 0.5) * 1e3, "ms"},
      {"added_ttft_p99_ms", Percentile(measured.ttft_s, 0.99) * 1e3, "ms"},
      {"half_load", rate_per_s, "requests/s"},
  };
}

absl::StatusOr<std::vector<RouterRow>> RouterBench::Unary() {
  workers_->SetStep(kStep);
  const int32_t tokens = options_.output_tokens;
  const int32_t concurrency = options_.unary_concurrency;
  BATON_RETURN_IF_ERROR(
      Closed("warming up", std::max<int64_t>(options_.requests / 10, 1), concurrency, tokens, false)
          .status());
  BATON_ASSIGN_OR_RETURN(const Measured measured,
                         Closed("unary", options_.requests, concurrency, tokens, false));
  return std::vector<RouterRow>{
      {"cpu_ms_per_request_unary", measured.CpuMs(), "ms"},
      {"requests_per_s_unary", static_cast<double>(measured.requests) / measured.wall_s,
       "requests/s"}};
}

absl::StatusOr<double> RouterBench::LongPromptMs(bool ids) {
  workers_->SetStep(Duration::zero());
  BATON_ASSIGN_OR_RETURN(const auto client,
                         LoadClient::Create({.url = url_, .keep_gaps = false, .spin = kSpin}));
  const BodyOptions body{.output_tokens = 1, .stream = false, .ignore_eos = true};
  std::vector<std::string> requests;
  for (int32_t i = 0; i <= options_.long_prompts; ++i) {  // one to warm up
    std::string text;
    if (ids) {
      // Ids of five digits and less, no two prompts with the same first block.
      std::vector<TokenId> prompt(static_cast<size_t>(options_.long_prompt_tokens));
      for (size_t at = 0; at < prompt.size(); ++at) {
        prompt[at] = static_cast<TokenId>((next_seed_ * 7919 + at * 31) % 32000);
      }
      ++next_seed_;
      text = CompletionBody(prompt, body);
    } else {
      text = CompletionBody(WordText(next_seed_++, options_.long_prompt_tokens), body);
    }
    requests.push_back(PostRequest(url_, "/v1/completions", text));
  }
  absl::Status failed;
  std::vector<double> ms;
  const LoadSource source{[&](int64_t number) { return requests[static_cast<size_t>(number)]; },
                          [&](int64_t number, const LoadAnswer& answer) {
                            failed.Update(CheckAnswer(number, answer));
                            if (number > 0) ms.push_back(Seconds(answer.ended - answer.due) * 1e3);
                          },
                          [&] { return !failed.ok() || (options_.stop && options_.stop()); }};
  RunClosedLoad(client.get(), static_cast<int64_t>(requests.size()), 1, source);
  BATON_RETURN_IF_ERROR(failed);
  BATON_RETURN_IF_ERROR(CheckStop(options_.stop));
  return Median(std::move(ms));
}

absl::StatusOr<std::vector<RouterRow>> RouterBench::LongPrompts() {
  Progress("long prompts");
  BATON_ASSIGN_OR_RETURN(const double text_ms, LongPromptMs(/*ids=*/false));
  BATON_ASSIGN_OR_RETURN(const double ids_ms, LongPromptMs(/*ids=*/true));
  return std::vector<RouterRow>{{"prompt_100k_text_ms", text_ms, "ms"},
                                {"prompt_100k_ids_ms", ids_ms, "ms"}};
}

absl::StatusOr<std::vector<RouterRow>> RouterBench::IdleStreams() {
  workers_->SetStep(kIdleStep);
  BATON_ASSIGN_OR_RETURN(const auto client,
                         LoadClient::Create({.url = url_, .timeout = std::chrono::hours(1)}));
  BATON_ASSIGN_OR_RETURN(const ProcessStat before, ReadProcessStat(pid_));
  absl::Status failed;
  int64_t sent = 0;
  int64_t streaming = 0;
  std::function<void()> send = [&] {
    if (sent >= options_.idle_streams) return;
    if (options_.stop && options_.stop()) return client->Stop();
    const int64_t number = sent++;
    client->Send(
        Chat(next_seed_++, 4096, /*stream=*/true), SystemClock().Now(),
        [&, number](const LoadAnswer& answer) {
          failed.Update(CheckAnswer(number, answer));
          failed.Update(absl::InternalError("a stream that was to stay open has ended"));
          client->Stop();
        },
        [&] {
          if (++streaming % 512 == 0) Progress(fmt::format("{} open streams", streaming));
          if (streaming == options_.idle_streams) return client->Stop();
          send();
        });
  };
  for (int i = 0; i < 64; ++i) send();
  client->Run();
  BATON_RETURN_IF_ERROR(failed);
  BATON_RETURN_IF_ERROR(CheckStop(options_.stop));
  BATON_ASSIGN_OR_RETURN(const ProcessStat after, ReadProcessStat(pid_));
  const auto grown = static_cast<double>(after.resident_bytes - before.resident_bytes);
  return std::vector<RouterRow>{
      {"idle_streams", static_cast<double>(streaming), "streams"},
      {"idle_streams_mib", static_cast<double>(after.resident_bytes) / kMiB, "MiB"},
      {"idle_streams_bytes_each", grown / static_cast<double>(streaming), "bytes"}};
}

absl::StatusOr<std::vector<RouterRow>> RouterBench::MemoryGrowth() {
  workers_->SetStep(Duration::zero());
  const int64_t words = std::exchange(prompt_words_, 20);
  const int64_t count = options_.growth_requests;
  const auto run = [&](const char* what, int64_t requests) {
    return Closed(what, requests, options_.unary_concurrency, 8, /*stream=*/false).status();
  };
  BATON_RETURN_IF_ERROR(run("memory, warming up", std::max<int64_t>(count / 4, 1)));
  BATON_ASSIGN_OR_RETURN(const ProcessStat before, ReadProcessStat(pid_));
  BATON_RETURN_IF_ERROR(run("memory", count));
  BATON_ASSIGN_OR_RETURN(const ProcessStat after, ReadProcessStat(pid_));
  prompt_words_ = words;
  const auto first = static_cast<double>(before.resident_bytes);
  const auto last = static_cast<double>(after.resident_bytes);
  return std::vector<RouterRow>{{"memory_growth_percent", (last - first) / first * 100, "%"},
                                {"memory_mib", last / kMiB, "MiB"},
                                {"memory_requests", static_cast<double>(count), "requests"}};
}

}  // namespace baton::bench
