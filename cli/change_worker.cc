#include "cli/change_worker.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <boost/json.hpp>
#include <boost/url.hpp>
#include <cstdio>
#include <thread>

#include "cli/http_client.h"
#include "common/clock.h"
#include "common/status_macros.h"

namespace baton::cli {
namespace {

namespace json = boost::json;

constexpr Duration kPoll = std::chrono::milliseconds(100);
constexpr Duration kSilence = std::chrono::seconds(10);

int64_t Number(const json::object& object, const char* field) {
  const json::value* value = object.if_contains(field);
  return value != nullptr && value->is_int64() ? value->get_int64() : 0;
}

std::string Text(const json::object& object, const char* field) {
  const json::value* value = object.if_contains(field);
  return value != nullptr && value->is_string() ? std::string(value->get_string()) : "";
}

absl::StatusOr<WorkerNow> ParseWorker(const std::string& body) {
  boost::system::error_code error;
  const json::value value = json::parse(body, error);
  if (error || !value.is_object()) {
    return absl::InternalError("the router's answer is not a JSON object");
  }
  const json::object& object = value.get_object();
  return WorkerNow{.role = Text(object, "role"),
                   .state = Text(object, "state"),
                   .running = Number(object, "running"),
                   .waiting = Number(object, "waiting"),
                   .transfers = Number(object, "transfers")};
}

std::string Describe(const WorkerNow& now) {
  return fmt::format("{} {}, {} running, {} waiting, {} transfers", now.role, now.state,
                     now.running, now.waiting, now.transfers);
}

void PrintResult(const ChangeFlags& flags, const WorkerNow& now, const std::string& result,
                 double seconds) {
  if (flags.json) {
    fmt::print("{}\n", json::serialize(json::object{{"worker", flags.worker},
                                                    {"role", now.role},
                                                    {"state", now.state},
                                                    {"running", now.running},
                                                    {"waiting", now.waiting},
                                                    {"transfers", now.transfers},
                                                    {"seconds", seconds}}));
  } else {
    fmt::print("{} {} after {:.1f} s\n", flags.worker, result, seconds);
  }
}

}  // namespace

void AddChangeFlags(CLI::App* app, ChangeFlags* flags) {
  app->add_option("worker", flags->worker, "its name, or its address")->required();
  AddAdminClientFlags(app, &flags->admin);
  app->add_option("--grace", flags->grace_s,
                  "how long its streams may go on there before they are moved, seconds")
      ->check(CLI::Range(0.0, 86400.0))
      ->capture_default_str();
  app->add_option("--timeout", flags->timeout_s, "how long to wait for it, seconds")
      ->check(CLI::Range(0.1, 86400.0))
      ->capture_default_str();
  app->add_flag("--force", flags->force, "even if it is the last decode worker");
  app->add_flag("--no-wait", flags->no_wait, "tell it, and do not wait");
  app->add_flag("--json", flags->json, "the result as one JSON object");
}

absl::Status ChangeWorker(const ChangeFlags& flags, const std::string& verb,
                          const std::string& body,
                          const std::function<bool(const WorkerNow&)>& done,
                          const std::string& result) {
  BATON_ASSIGN_OR_RETURN(const HttpUrl url, AdminUrl(flags.admin));
  const std::string path =
      "/v1/workers/" + boost::urls::encode(flags.worker, boost::urls::unreserved_chars);
  const TimePoint begin = SystemClock().Now();
  BATON_ASSIGN_OR_RETURN(std::string answer, Fetch(url, "POST", path + "/" + verb, body, kSilence));
  std::string told;
  while (true) {
    BATON_ASSIGN_OR_RETURN(const WorkerNow now, ParseWorker(answer));
    const double seconds = Seconds(SystemClock().Now() - begin);
    const std::string description = Describe(now);
    if (flags.no_wait || done(now)) {
      PrintResult(flags, now, flags.no_wait ? "was told" : result, seconds);
      return absl::OkStatus();
    }
    if (description != told) fmt::print(stderr, "{:7.1f} s  {}\n", seconds, description);
    told = description;
    if (now.state == "lost") {
      return absl::UnavailableError(
          fmt::format("worker '{}' was lost after {:.1f} s", flags.worker, seconds));
    }
    if (seconds >= flags.timeout_s) {
      return absl::DeadlineExceededError(fmt::format("not within {:.1f} s; worker '{}' is: {}",
                                                     flags.timeout_s, flags.worker, description));
    }
    std::this_thread::sleep_for(kPoll);
    BATON_ASSIGN_OR_RETURN(answer, Fetch(url, "GET", path, "", kSilence));
  }
}

}  // namespace baton::cli
