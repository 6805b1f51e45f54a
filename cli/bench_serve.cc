// `baton bench serve`: a load on any OpenAI endpoint, and what its users would have seen.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <boost/json.hpp>
#include <fstream>
#include <iterator>
#include <memory>

#include "bench/load_client.h"
#include "bench/load_prompt.h"
#include "bench/load_run.h"
#include "bench/serve_load.h"
#include "bench/serve_stats.h"
#include "cli/command_line.h"
#include "cli/print_line.h"
#include "cli/progress_line.h"
#include "cli/serve_html.h"
#include "cli/signals.h"
#include "cli/trace_file.h"
#include "common/file_limit.h"
#include "common/status_macros.h"

namespace baton::cli {
namespace {

constexpr Duration kSampleEvery = std::chrono::milliseconds(500);
constexpr Duration kProgressEvery = std::chrono::milliseconds(200);

struct ServeFlags {
  std::string url = "http://127.0.0.1:8000";
  std::string trace, arrivals = "poisson", endpoint = "chat", model, api_key, html;
  TlsFiles tls;
  bool insecure_tls = false;
  std::vector<double> rates;
  std::vector<int64_t> concurrency;
  bench::ServeLoadOptions load;
  bench::TraceLoadOptions replay;
  int64_t warmup = 1;
  double slo_ttft_ms = 0, slo_itl_ms = 0;
  int32_t timeout_s = 600;
  bool ignore_eos = true, usage = true, json = false;
};

absl::StatusOr<std::string> ReadText(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return absl::NotFoundError(fmt::format("cannot read {}", path));
  return std::string(std::istreambuf_iterator<char>(file), {});
}

// A load to send: at its own times, or so many at a time.
struct Load {
  std::vector<bench::ServeRequest> requests;
  double rate_per_s = 0;
  int64_t concurrency = 0;
};

// The trace's requests at its own times; or, for each rate, in random arrivals.
absl::StatusOr<std::vector<Load>> TraceLoads(const ServeFlags& flags) {
  BATON_ASSIGN_OR_RETURN(const std::string text, ReadText(flags.trace));
  BATON_ASSIGN_OR_RETURN(const planner::Trace trace, ParseTrace(text));
  bench::TraceLoadOptions options = flags.replay;
  options.longest_input = flags.load.longest_input;
  options.longest_output = flags.load.longest_output;
  options.seed = flags.load.arrivals.seed;
  std::vector<Load> loads;
  if (flags.rates.empty()) {
    Load load;
    BATON_ASSIGN_OR_RETURN(load.requests, bench::MakeTraceLoad(trace, options));
    const double last_s = load.requests.back().due_s;
    if (last_s > 0) load.rate_per_s = static_cast<double>(load.requests.size()) / last_s;
    loads.push_back(std::move(load));
  }
  bench::ArrivalOptions arrivals = flags.load.arrivals;
  BATON_ASSIGN_OR_RETURN(arrivals.kind, bench::ArrivalKindFromName(flags.arrivals));
  for (const double rate : flags.rates) {
    Load load{.rate_per_s = rate};
    BATON_ASSIGN_OR_RETURN(load.requests, bench::MakeTraceLoad(trace, options));
    arrivals.rate_per_s = rate;
    BATON_ASSIGN_OR_RETURN(const std::vector<double> due_s,
                           bench::ArrivalTimes(arrivals, std::ssize(load.requests)));
    for (size_t i = 0; i < due_s.size(); ++i) load.requests[i].due_s = due_s[i];
    loads.push_back(std::move(load));
    ++arrivals.seed;
    ++options.seed;  // no run finds the prompts of another one cached
  }
  return loads;
}

absl::StatusOr<std::vector<Load>> MakeLoads(const ServeFlags& flags) {
  const bool open = !flags.trace.empty() || !flags.rates.empty();
  if (open == !flags.concurrency.empty()) {
    return absl::InvalidArgumentError(
        "--rate, --trace or both say how the requests come, or --concurrency does");
  }
  if (!flags.trace.empty()) return TraceLoads(flags);
  bench::ServeLoadOptions options = flags.load;
  BATON_ASSIGN_OR_RETURN(options.arrivals.kind, bench::ArrivalKindFromName(flags.arrivals));
  std::vector<Load> loads;
  for (const double rate : flags.rates) {
    options.arrivals.rate_per_s = rate;
    Load load{.rate_per_s = rate};
    BATON_ASSIGN_OR_RETURN(load.requests, bench::MakeServeLoad(options));
    loads.push_back(std::move(load));
    ++options.arrivals.seed;  // no run finds the prompts of another one cached
  }
  for (const int64_t concurrency : flags.concurrency) {
    Load load{.concurrency = concurrency};
    BATON_ASSIGN_OR_RETURN(load.requests, bench::MakeServeLoad(options));
    loads.push_back(std::move(load));
    ++options.arrivals.seed;
  }
  return loads;
}

// Sends loads to one endpoint.
class Sender {
 public:
  static absl::StatusOr<std::unique_ptr<Sender>> Connect(const ServeFlags& flags) {
    BATON_ASSIGN_OR_RETURN(const bench::LoadUrl url, bench::ParseLoadUrl(flags.url));
    std::unique_ptr<Sender> sender(new Sender(flags, url));
    bench::LoadClientOptions options{.url = url, .timeout = std::chrono::seconds(flags.timeout_s)};
    if (!flags.api_key.empty()) {
      if (flags.api_key.find_first_of("\r\n") != std::string::npos) {
        return absl::InvalidArgumentError("the API key has a line break");
      }
      sender->headers_ = fmt::format("Authorization: Bearer {}\r\n", flags.api_key);
    }
    options.headers = sender->headers_;
    options.tls = flags.tls;
    options.insecure_tls = flags.insecure_tls;
    BATON_ASSIGN_OR_RETURN(sender->client_, bench::LoadClient::Create(options));
    sender->FindModel();
    return sender;
  }

  // Cancelled when it was interrupted.
  absl::StatusOr<ServeRun> Run(const Load& load) {
    ServeRun run;
    bench::ServeCollector collector(slo_);
    const bench::LoadSource source{
        [&](int64_t number) { return RequestOf(load.requests[static_cast<size_t>(number)]); },
        [&](int64_t number, const bench::LoadAnswer& answer) {
          collector.Add(answer, load.requests[static_cast<size_t>(number)].words());
          if (collector.done() == static_cast<int64_t>(load.requests.size())) watching_ = false;
        },
        StopAsked};
    begin_ = SystemClock().Now();
    watching_ = true;
    Watch(&run, &collector, load.requests.size());
    SampleFleet(&run);
    if (load.concurrency > 0) {
      bench::RunClosedLoad(client_.get(), static_cast<int64_t>(load.requests.size()),
                           load.concurrency, source);
    } else {
      std::vector<double> due_s;
      for (const bench::ServeRequest& request : load.requests) due_s.push_back(request.due_s);
      bench::RunOpenLoad(client_.get(), due_s, source);
    }
    progress_.Clear();
    if (StopAsked()) return absl::CancelledError("interrupted");
    run.stats = collector.Finish();
    run.stats.offered_per_s = load.rate_per_s;
    run.stats.concurrency = load.concurrency;
    run.ttft_over_time = collector.TtftOverTime();
    run.ttft_shares = collector.TtftShares();
    run.itl_shares = collector.ItlShares();
    return run;
  }

  // Not measured: the first requests find connections, caches and code cold.
  absl::Status WarmUp(const bench::ServeRequest& like) {
    if (flags_.warmup == 0) return absl::OkStatus();
    progress_.Show("warming up");
    bench::ServeRequest request{.prompt = {{~uint64_t{0}, like.words()}}, .output_tokens = 4};
    absl::Status status;
    const bench::LoadSource source{
        [&](int64_t) { return RequestOf(request); },
        [&](int64_t, const bench::LoadAnswer& answer) {
          if (answer.end == bench::LoadEnd::kOk) return;
          status.Update(absl::UnavailableError(fmt::format(
              "the first request to {} failed: {} (HTTP {}): {}", flags_.url,
              bench::LoadEndName(answer.end), answer.facts.status, answer.facts.error)));
        },
        StopAsked};
    bench::RunClosedLoad(client_.get(), flags_.warmup, 1, source);
    progress_.Clear();
    return status;
  }

  const bench::ServeSlo& slo() const { return slo_; }

 private:
  Sender(const ServeFlags& flags, bench::LoadUrl url)
      : flags_(flags), url_(std::move(url)), model_(flags.model) {
    slo_ = {flags.slo_ttft_ms / 1e3, flags.slo_itl_ms / 1e3};
  }

  // The first one that the endpoint lists, unless one was given: most want its name.
  void FindModel() {
    if (!model_.empty()) return;
    client_->Get("/v1/models", [this](absl::StatusOr<std::string> body) {
      if (!body.ok()) return;
      boost::system::error_code error;
      const boost::json::value list = boost::json::parse(*body, error);
      if (error) return;
      const boost::json::value* id = list.find_pointer("/data/0/id", error);
      if (id != nullptr && id->is_string()) model_ = std::string(id->get_string());
    });
    client_->Run();
  }

  std::string RequestOf(const bench::ServeRequest& request) const {
    const bench::BodyOptions options{.model = model_,
                                     .output_tokens = request.output_tokens,
                                     .stream = true,
                                     .usage = flags_.usage,
                                     .ignore_eos = flags_.ignore_eos};
    const std::string text = bench::PromptText(request);
    return flags_.endpoint == "chat"
               ? bench::PostRequest(url_, "/v1/chat/completions", bench::ChatBody(text, options),
                                    headers_)
               : bench::PostRequest(url_, "/v1/completions", bench::CompletionBody(text, options),
                                    headers_);
  }

  double Elapsed() const { return Seconds(SystemClock().Now() - begin_); }

  void Watch(ServeRun* run, bench::ServeCollector* collector, size_t requests) {
    progress_.Show(fmt::format("{:.1f} s: {} of {} done, {} failed, {} open, recent TTFT {:.0f} ms",
                               Elapsed(), collector->done(), requests, collector->failed(),
                               client_->open(), collector->RecentTtft() * 1e3));
    if (!watching_ || StopAsked()) return;
    client_->At(SystemClock().Now() + kProgressEvery,
                [=, this] { Watch(run, collector, requests); });
  }

  // Until the run ends, or the endpoint turns out to be no router of Baton's.
  void SampleFleet(ServeRun* run) {
    client_->Get("/metrics", [=, this](absl::StatusOr<std::string> body) {
      if (!body.ok()) return;
      const std::optional<bench::FleetSample> sample = bench::FleetSampleOf(*body);
      if (!sample) return;
      run->fleet.emplace_back(Elapsed(), *sample);
      if (!watching_ || StopAsked()) return;
      client_->At(SystemClock().Now() + kSampleEvery, [=, this] {
        if (watching_) SampleFleet(run);
      });
    });
  }

  const ServeFlags& flags_;
  const bench::LoadUrl url_;
  std::string model_;
  std::string headers_;
  bench::ServeSlo slo_;
  std::unique_ptr<bench::LoadClient> client_;
  ProgressLine progress_;
  TimePoint begin_;
  bool watching_ = false;
};

absl::Status BenchServe(const ServeFlags& flags) {
  RaiseFileLimit();
  BATON_ASSIGN_OR_RETURN(const std::vector<Load> loads, MakeLoads(flags));
  BATON_ASSIGN_OR_RETURN(const std::unique_ptr<Sender> sender, Sender::Connect(flags));
  CatchStopSignals();
  BATON_RETURN_IF_ERROR(sender->WarmUp(loads.front().requests.front()));
  std::vector<ServeRun> runs;
  int64_t ok = 0;
  for (const Load& load : loads) {
    BATON_ASSIGN_OR_RETURN(runs.emplace_back(), sender->Run(load));
    const bench::ServeStats& stats = runs.back().stats;
    ok += stats.ok;
    PrintLine(flags.json ? bench::ServeStatsJson(stats, sender->slo())
                         : bench::ServeStatsText(stats, sender->slo()));
  }
  if (!flags.html.empty()) {
    std::ofstream out(flags.html, std::ios::binary);
    out << ServeHtml(flags.url, sender->slo(), runs);
    out.close();
    if (!out) return absl::InternalError(fmt::format("cannot write {}", flags.html));
  }
  if (ok == 0) return absl::UnavailableError("no request was answered well");
  return absl::OkStatus();
}

void AddLoadFlags(CLI::App* app, ServeFlags* flags) {
  const auto tokens = CLI::Range(int64_t{1}, int64_t{10'000'000});
  const auto positive = CLI::Range(1e-6, 1e6);
  app->add_option("--rate", flags->rates, "requests a second; several make a run each: 1,2,4")
      ->delimiter(',')
      ->check(positive);
  app->add_option("--concurrency", flags->concurrency,
                  "instead of a rate: so many at a time, the next when one ends; several: 1,8,64")
      ->delimiter(',')
      ->check(CLI::Range(1, 100'000));
  app->add_option(
      "--trace", flags->trace,
      "the lengths of a trace, and without --rate its times: Azure's CSV, or Mooncake's "
      "JSON lines with their shared prefixes");
  app->add_option("--requests", flags->load.requests, "requests of each run")
      ->check(CLI::Range(1, 100'000'000))
      ->capture_default_str();
  app->add_option("--arrivals", flags->arrivals, "with --rate: poisson, gamma, on-off, constant")
      ->capture_default_str();
  app->add_option("--arrival-cv", flags->load.arrivals.cv,
                  "gamma: standard deviation of the gaps over their mean; above 1: bursts")
      ->capture_default_str();
  app->add_option("--on", flags->load.arrivals.on_s, "on-off: mean seconds of a burst")
      ->capture_default_str();
  app->add_option("--off", flags->load.arrivals.off_s, "on-off: mean seconds of silence after it")
      ->capture_default_str();
  app->add_option("--input", flags->load.input.mean, "mean tokens of a prompt, a common word each")
      ->capture_default_str();
  app->add_option("--input-cv", flags->load.input.cv,
                  "standard deviation over the mean, lognormal; 0: all equal")
      ->capture_default_str();
  app->add_option("--output", flags->load.output.mean, "mean tokens of an answer")
      ->capture_default_str();
  app->add_option("--output-cv", flags->load.output.cv, "likewise")->capture_default_str();
  app->add_option("--max-input", flags->load.longest_input, "longer prompts are cut")
      ->check(tokens)
      ->capture_default_str();
  app->add_option("--max-output", flags->load.longest_output, "longer answers are cut")
      ->check(tokens)
      ->capture_default_str();
  app->add_option("--shared-prefix", flags->load.shared_prefix,
                  "tokens that all prompts of a group begin with")
      ->capture_default_str();
  app->add_option("--prefix-groups", flags->load.prefix_groups, "groups that share a prefix each")
      ->capture_default_str();
  app->add_option("--trace-requests", flags->replay.requests, "the trace's first so many; 0: all")
      ->capture_default_str();
  app->add_option("--speed", flags->replay.speed, "of the trace's time; 2: twice as fast")
      ->check(positive)
      ->capture_default_str();
  app->add_option("--token-scale", flags->replay.token_scale, "of the trace's lengths")
      ->check(positive)
      ->capture_default_str();
  app->add_option("--seed", flags->load.arrivals.seed, "of times, lengths and texts")
      ->capture_default_str();
}

}  // namespace

Action AddBenchServe(CLI::App* app) {
  auto flags = std::make_shared<ServeFlags>();
  app->add_option("--url", flags->url, "the endpoint, http or https, without /v1")
      ->capture_default_str();
  AddLoadFlags(app, flags.get());
  app->add_option("--endpoint", flags->endpoint, "chat or completions")
      ->check(CLI::IsMember({"chat", "completions"}))
      ->capture_default_str();
  app->add_option("--model", flags->model, "its name there; the first one listed when not given");
  app->add_option("--api-key", flags->api_key, "sent as a bearer token");
  app->add_option("--cert", flags->tls.certificate,
                  "PEM certificate for an endpoint that asks for one");
  app->add_option("--key", flags->tls.key, "its private key");
  app->add_option("--ca", flags->tls.ca,
                  "PEM CA that an https endpoint's certificate must be from; the system's when not "
                  "given");
  app->add_flag("--insecure-tls", flags->insecure_tls, "take any certificate");
  app->add_option("--ignore-eos", flags->ignore_eos,
                  "ask for answers of full length, a field that vLLM, llama.cpp and Baton know")
      ->capture_default_str();
  app->add_option("--usage", flags->usage, "ask streams for the server's own count of tokens")
      ->capture_default_str();
  app->add_option("--warmup", flags->warmup, "requests before the first run, not measured")
      ->check(CLI::Range(0, 1'000'000))
      ->capture_default_str();
  app->add_option("--timeout", flags->timeout_s, "of one request, seconds")
      ->check(CLI::Range(1, 86400))
      ->capture_default_str();
  app->add_option("--slo-ttft-ms", flags->slo_ttft_ms,
                  "objective for the first token; goodput counts requests that meet all; 0: none")
      ->check(CLI::Range(0.0, 1e9))
      ->capture_default_str();
  app->add_option("--slo-itl-ms", flags->slo_itl_ms,
                  "objective for a request's mean time between tokens; 0: none")
      ->check(CLI::Range(0.0, 1e9))
      ->capture_default_str();
  app->add_option("--html", flags->html, "write a report with plots to this file");
  app->add_flag("--json", flags->json,
                "print a JSON object a run: counts, errors by kind, throughput, goodput, and "
                "ttft_ms, itl_ms, e2e_ms with mean, p50, p90, p95, p99, max");
  return [flags] { return BenchServe(*flags); };
}

}  // namespace baton::cli
