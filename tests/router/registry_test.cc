#include "router/registry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <climits>
#include <filesystem>
#include <fstream>
#include <thread>

#include "tests/common/temp_dir.h"
#include "tests/router/cluster.h"
#include "tests/router/demo_tokenizer.h"
#include "tests/router/scripted_worker.h"

namespace baton::router {
namespace {

using testing::HasSubstr;
using worker_link::CancelCommand;
using worker_link::Role;

struct Heard {
  std::atomic<int> usable{0};
  std::atomic<int> lost{0};
  std::atomic<int> events{0};
  std::atomic<int> stalled{0};
  std::atomic<int> leaving{0};
};

std::unique_ptr<Registry> MakeRegistry(RegistryOptions options, Heard& heard) {
  options.router_name = "router";
  options.vocab_size = DemoTokenizer().vocab_size();
  options.file_poll = std::chrono::milliseconds(20);
  RegistryEvents events;
  events.on_usable = [&heard] { ++heard.usable; };
  events.on_lost = [&heard](WorkerId, const absl::Status&) { ++heard.lost; };
  events.on_events = [&heard](WorkerId, std::vector<worker_link::Event> all) {
    heard.events += static_cast<int>(all.size());
  };
  events.on_stalled = [&heard](WorkerId, const absl::Status&) { ++heard.stalled; };
  events.on_leaving = [&heard](WorkerId) { ++heard.leaving; };
  auto registry = Registry::Create(options, std::move(events));
  BATON_CHECK(registry.ok(), registry.status().ToString());
  return *std::move(registry);
}

RegistryOptions At(std::vector<std::string> workers) {
  RegistryOptions options;
  options.workers = std::move(workers);
  return options;
}

std::string State(const Registry& registry, size_t index) {
  const std::vector<WorkerView> fleet = registry.Fleet();
  return index < fleet.size() ? fleet[index].state : "not there";
}

Registry::Assignment Assign(Registry& registry) {
  PlacementRequest request;
  request.prompt_tokens = 100;
  auto assigned = registry.Assign(request, {});
  if (const auto* refusal = std::get_if<Refusal>(&assigned)) {
    ADD_FAILURE() << refusal->text;
    return {};
  }
  return std::get<Registry::Assignment>(std::move(assigned));
}

TEST(RegistryTest, KnowsAWorkerFromItsOwnWords) {
  ScriptedWorker decode(Role::kDecode, "d0");
  Heard heard;
  const auto registry = MakeRegistry(At({decode.address()}), heard);
  ASSERT_TRUE(Eventually([&] { return registry->Ready(); }));
  EXPECT_EQ(heard.usable, 1);
  const WorkerView view = registry->Fleet().at(0);
  EXPECT_EQ(view.name, "d0");
  EXPECT_EQ(view.role, "decode");
  EXPECT_EQ(view.address, decode.address());
  EXPECT_EQ(view.state, "ready");
  EXPECT_EQ(view.blocks_total, 64);
  EXPECT_EQ(registry->MinContextTokens(), 1024);
}

TEST(RegistryTest, AWorkerMayComeLateGoAndComeBack) {
  auto decode = std::make_unique<ScriptedWorker>(Role::kDecode, "d0");
  const std::string address = decode->address();
  decode.reset();
  Heard heard;
  const auto registry = MakeRegistry(At({address}), heard);
  EXPECT_EQ(State(*registry, 0), "connecting");
  decode = std::make_unique<ScriptedWorker>(Role::kDecode, "d0", address);
  ASSERT_TRUE(Eventually([&] { return registry->Ready(); }));
  decode.reset();
  ASSERT_TRUE(Eventually([&] { return heard.lost == 1; }));
  EXPECT_EQ(State(*registry, 0), "lost");
  EXPECT_FALSE(registry->Ready());
  decode = std::make_unique<ScriptedWorker>(Role::kDecode, "d0", address);
  ASSERT_TRUE(Eventually([&] { return registry->Ready(); }));
  EXPECT_EQ(heard.usable, 2);
}

TEST(RegistryTest, PathsAndCountersAreThoseOfTheLastStatusUntilTheWorkerIsLost) {
  ScriptedWorker decode(Role::kDecode, "d0");
  worker_link::WorkerStatus status = ScriptedWorker::IdleStatus();
  status.kv.handoffs = 3;
  status.paths = {{"p0", "shm", 6e9, 12e9, true}};
  decode.SetStatus(status);
  Heard heard;
  const auto registry = MakeRegistry(At({decode.address()}), heard);
  ASSERT_TRUE(Eventually([&] { return !registry->Fleet().at(0).paths.empty(); }));
  EXPECT_EQ(registry->Fleet().at(0).paths, status.paths);
  EXPECT_EQ(registry->Fleet().at(0).kv, status.kv);
  status.paths.clear();  // the prefill worker is gone
  decode.SetStatus(status);
  EXPECT_TRUE(Eventually([&] { return registry->Fleet().at(0).paths.empty(); }));
  status.paths = {{"p1", "ucx tcp", 1e9, 1e9, true}};
  decode.SetStatus(status);
  ASSERT_TRUE(Eventually([&] { return !registry->Fleet().at(0).paths.empty(); }));
  decode.Stop();
  EXPECT_TRUE(Eventually([&] { return registry->Fleet().at(0).paths.empty(); }));
  EXPECT_EQ(registry->Fleet().at(0).kv, worker_link::KvCounters{});
}

TEST(RegistryTest, WorkersThatCannotHandOverAreToldWithBothValues) {
  ScriptedWorker decode(Role::kDecode, "d0");
  Heard heard;
  testing::internal::CaptureStderr();
  {
    const auto registry = MakeRegistry(At({decode.address()}), heard);
    ASSERT_TRUE(Eventually([&] { return heard.usable == 1; }));
    ScriptedWorker alike(Role::kPrefill, "alike");
    ScriptedWorker unlike(Role::kPrefill, "unlike", "127.0.0.1:0", nullptr, "other-kv");
    Heard heard_of_all;
    const auto all =
        MakeRegistry(At({decode.address(), alike.address(), unlike.address()}), heard_of_all);
    ASSERT_TRUE(Eventually([&] { return heard_of_all.usable == 3; }));
  }
  const std::string log = testing::internal::GetCapturedStderr();
  EXPECT_THAT(log, HasSubstr("cannot hand KV over"));
  EXPECT_THAT(log, testing::ContainsRegex("'scripted-kv'.*'other-kv'|'other-kv'.*'scripted-kv'"));
  EXPECT_THAT(log, testing::Not(testing::ContainsRegex("'alike' and|and 'alike'")));
}

TEST(RegistryTest, ADrainingWorkerGetsNoWork) {
  ScriptedWorker decode(Role::kDecode, "d0");
  Heard heard;
  const auto registry = MakeRegistry(At({decode.address()}), heard);
  ASSERT_TRUE(Eventually([&] { return registry->Ready(); }));
  worker_link::WorkerStatus status = ScriptedWorker::IdleStatus();
  status.draining = true;
  decode.SetStatus(status);
  ASSERT_TRUE(Eventually([&] { return State(*registry, 0) == "drained"; }));
  EXPECT_FALSE(registry->Ready());
  PlacementRequest request;
  request.prompt_tokens = 5;
  const auto assigned = registry->Assign(request, {});
  ASSERT_TRUE(std::holds_alternative<Refusal>(assigned));
  EXPECT_EQ(std::get<Refusal>(assigned).reason, RefusalReason::kAllDraining);
}

TEST(RegistryTest, PlacementSeesWhatWasSentBeforeAnyStatusSaysSo) {
  ScriptedWorker first(Role::kDecode, "d0");
  ScriptedWorker second(Role::kDecode, "d1");
  Heard heard;
  const auto registry = MakeRegistry(At({first.address(), second.address()}), heard);
  ASSERT_TRUE(Eventually([&] { return heard.usable == 2; }));
  std::vector<Registry::Assignment> open;
  for (int i = 0; i < 6; ++i) open.push_back(Assign(*registry));
  int at_first = 0;
  for (const auto& assignment : open) at_first += assignment.decode_name == "d0" ? 1 : 0;
  EXPECT_EQ(at_first, 3);
  for (const auto& assignment : open) {
    if (assignment.decode_name == "d1") registry->Release(assignment.decode);
  }
  for (int i = 0; i < 3; ++i) EXPECT_EQ(Assign(*registry).decode_name, "d1");
}

TEST(RegistryTest, SharesOfALostConnectionAreVoid) {
  auto decode = std::make_unique<ScriptedWorker>(Role::kDecode, "d0");
  ScriptedWorker other(Role::kDecode, "d1");
  Heard heard;
  const auto registry = MakeRegistry(At({decode->address(), other.address()}), heard);
  ASSERT_TRUE(Eventually([&] { return heard.usable == 2; }));
  const Share old = Assign(*registry).decode;
  const std::string address = decode->address();
  decode.reset();
  ASSERT_TRUE(Eventually([&] { return heard.lost == 1; }));
  decode = std::make_unique<ScriptedWorker>(Role::kDecode, "d0", address);
  ASSERT_TRUE(Eventually([&] { return heard.usable == 3; }));
  EXPECT_EQ(Assign(*registry).decode_name, "d0");
  registry->Release(old);  // must not make d0, which has one request, look idle
  EXPECT_EQ(Assign(*registry).decode_name, "d1");
}

TEST(RegistryTest, AssignsAPrefillWorkerWithTheDecodeWorkersHandoffAddress) {
  ScriptedWorker decode(Role::kDecode, "d0");
  ScriptedWorker prefill(Role::kPrefill, "p0");
  Heard heard;
  const auto registry = MakeRegistry(At({decode.address(), prefill.address()}), heard);
  ASSERT_TRUE(Eventually([&] { return heard.usable == 2; }));
  const Registry::Assignment assignment = Assign(*registry);
  ASSERT_TRUE(assignment.prefill);
  EXPECT_EQ(assignment.prefill->name, "p0");
  EXPECT_EQ(assignment.prefill->target_address, "handoff:d0");
}

TEST(RegistryTest, SendsAndHears) {
  ScriptedWorker decode(Role::kDecode, "d0");
  Heard heard;
  const auto registry = MakeRegistry(At({decode.address()}), heard);
  ASSERT_TRUE(Eventually([&] { return registry->Ready(); }));
  const Attempt attempt{{1, 2}, 3};
  EXPECT_TRUE(registry->Send(0, CancelCommand{attempt}));
  EXPECT_FALSE(registry->Send(1, CancelCommand{attempt}));
  EXPECT_EQ(decode.Await<CancelCommand>().attempt, attempt);
  decode.SendFinished(attempt, 1);
  EXPECT_TRUE(Eventually([&] { return heard.events == 1; }));
}

TEST(RegistryTest, OfTwoWorkersWithOneNameTheSecondGetsNoWorkUntilTheFirstIsGone) {
  auto first = std::make_unique<ScriptedWorker>(Role::kDecode, "d0");
  Heard heard;
  ScriptedWorker second(Role::kDecode, "d0");
  second.SetStatus(ScriptedWorker::IdleStatus());
  const test::TempDir directory;
  const std::string file = directory.File("workers");
  std::ofstream(file) << first->address() << '\n';
  RegistryOptions options;
  options.workers_file = file;
  const auto registry = MakeRegistry(options, heard);
  ASSERT_TRUE(Eventually([&] { return registry->Ready(); }));
  std::ofstream(file, std::ios::app) << second.address() << '\n';
  ASSERT_TRUE(Eventually([&] { return State(*registry, 1) == "refused"; }));
  EXPECT_EQ(registry->Fleet().at(1).blocks_total, 0) << "its series would be the first one's";
  for (int i = 0; i < 3; ++i) EXPECT_EQ(Assign(*registry).decode.worker, 0u);
  first.reset();
  ASSERT_TRUE(Eventually([&] { return State(*registry, 1) == "ready"; }));
  EXPECT_TRUE(Eventually([&] { return heard.usable == 2; })) << "what waits may be placed";
  EXPECT_EQ(Assign(*registry).decode.worker, 1u);
}

TEST(RegistryTest, RefusesAWorkerOfAnotherVocabulary) {
  ScriptedWorker decode(Role::kDecode, "d0");
  Heard heard;
  RegistryEvents events;
  events.on_usable = [&heard] { ++heard.usable; };
  events.on_lost = [](WorkerId, const absl::Status&) {};
  events.on_events = [](WorkerId, std::vector<worker_link::Event>) {};
  RegistryOptions options = At({decode.address()});
  options.vocab_size = DemoTokenizer().vocab_size() + 1;
  const auto registry = Registry::Create(options, std::move(events));
  ASSERT_TRUE(registry.ok());
  EXPECT_TRUE(Eventually([&] { return State(**registry, 0) == "refused"; }));
  EXPECT_FALSE((*registry)->Ready());
  EXPECT_EQ((*registry)->MinContextTokens(), INT32_MAX);
}

class WorkersFileRegistryTest : public testing::Test {
 protected:
  void Write(const std::string& content) {
    const std::filesystem::path next = path_.string() + ".next";
    std::ofstream(next) << content;
    std::filesystem::rename(next, path_);
  }
  RegistryOptions Options() const {
    RegistryOptions options;
    options.workers_file = path_;
    return options;
  }

  const test::TempDir directory_;
  const std::filesystem::path path_ = directory_.File("workers");
};

TEST_F(WorkersFileRegistryTest, FollowsTheFile) {
  ScriptedWorker first(Role::kDecode, "d0");
  ScriptedWorker second(Role::kDecode, "d1");
  Write(first.address() + "\n");
  Heard heard;
  const auto registry = MakeRegistry(Options(), heard);
  ASSERT_TRUE(Eventually([&] { return registry->Ready(); }));
  Write(first.address() + "\n" + second.address() + "\n");
  ASSERT_TRUE(Eventually([&] { return heard.usable == 2; }));
  EXPECT_EQ(registry->Fleet().size(), 2u);
  Write(second.address() + "\n");
  ASSERT_TRUE(Eventually([&] { return registry->Fleet().size() == 1; }));
  EXPECT_EQ(registry->Fleet().at(0).name, "d1");
  std::filesystem::remove(path_);
  std::this_thread::sleep_for(std::chrono::milliseconds(100));  // several polls without a file
  EXPECT_EQ(registry->Fleet().size(), 1u);
}

TEST_F(WorkersFileRegistryTest, AWorkerThatLeavesKeepsItsRequests) {
  ScriptedWorker decode(Role::kDecode, "d0");
  Write(decode.address());
  Heard heard;
  const auto registry = MakeRegistry(Options(), heard);
  ASSERT_TRUE(Eventually([&] { return registry->Ready(); }));
  const Registry::Assignment open = Assign(*registry);
  Write("# nobody\n");
  ASSERT_TRUE(Eventually([&] { return State(*registry, 0) == "draining"; }));
  EXPECT_FALSE(registry->Ready());
  EXPECT_TRUE(registry->Send(open.decode.worker, CancelCommand{}));
  registry->Release(open.decode);
  EXPECT_TRUE(Eventually([&] { return registry->Fleet().empty(); }));
  EXPECT_EQ(heard.lost, 0);
}

// DNS and etcd may have lost what they knew: a worker whose link is up needs neither.
TEST(RegistryTest, AWorkerOfDnsLeavesWhenItIsNotListedAndNotLinked) {
  ScriptedWorker first(Role::kDecode, "d0"), second(Role::kDecode, "d1");
  // Outlives the thread that looks it up.
  static std::mutex mutex;
  static std::vector<std::string> named;
  const auto name = [](std::vector<std::string> addresses) {
    const std::lock_guard lock(mutex);
    named = std::move(addresses);
  };
  name({first.address(), second.address()});
  RegistryOptions options = At({"dns:pods.svc:7000"});
  options.dns_period = std::chrono::milliseconds(5);
  options.look_up = [](const HostPort&) -> absl::StatusOr<std::vector<std::string>> {
    const std::lock_guard lock(mutex);
    return named;
  };
  Heard heard;
  const auto registry = MakeRegistry(options, heard);
  ASSERT_TRUE(Eventually([&] { return heard.usable == 2; }));
  name({second.address()});
  ASSERT_TRUE(Eventually([&] { return registry->Discovery().at(0).workers == 1; }));
  std::this_thread::sleep_for(std::chrono::milliseconds(100));  // several polls
  EXPECT_EQ(State(*registry, 0), "ready");
  EXPECT_EQ(Assign(*registry).decode_name, "d0");
  second.Stop();  // listed: it is dialled again and again
  first.Stop();   // not listed: gone with its link
  ASSERT_TRUE(Eventually([&] { return registry->Fleet().size() == 1; }));
  EXPECT_EQ(registry->Fleet().at(0).name, "d1");
  EXPECT_EQ(State(*registry, 0), "lost");
}

TEST_F(WorkersFileRegistryTest, AMissingFileIsAnErrorAtTheStart) {
  RegistryOptions options = Options();
  const absl::Status status = Registry::Create(options, {}).status();
  EXPECT_TRUE(absl::IsNotFound(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr(path_.string()));
}

TEST(RegistryTest, ASilentDecodeWorkerIsToldOfWhileAnotherSpeaks) {
  ScriptedWorker first(Role::kDecode, "d0"), second(Role::kDecode, "d1");
  Heard heard;
  RegistryOptions options = At({first.address(), second.address()});
  options.stall_timeout = std::chrono::milliseconds(300);
  const auto registry = MakeRegistry(options, heard);
  ASSERT_TRUE(Eventually([&] { return heard.usable == 2; }));
  const Registry::Assignment assigned = Assign(*registry);
  ASSERT_EQ(assigned.decode_name, "d0");
  worker_link::WorkerStatus status = ScriptedWorker::IdleStatus();
  const bool told = Eventually([&] {
    ++status.blocks_cached;
    second.SetStatus(status);
    registry->CheckSilence(SystemClock().Now());
    return heard.stalled > 0;
  });
  EXPECT_TRUE(told);
  EXPECT_EQ(Assign(*registry).decode_name, "d1") << "new work goes elsewhere, too";
}

// The time is what the test says it is from here on, so nothing waits for silence.
TEST(RegistryTest, SilenceOfThisProcessItselfIsNobodysFault) {
  ScriptedWorker prefill(Role::kPrefill, "p0"), decode(Role::kDecode, "d0");
  Heard heard;
  RegistryOptions options = At({prefill.address(), decode.address()});
  options.stall_timeout = std::chrono::minutes(10);
  const auto registry = MakeRegistry(options, heard);
  ASSERT_TRUE(Eventually([&] { return heard.usable == 2; }));
  const Registry::Assignment assigned = Assign(*registry);
  ASSERT_TRUE(assigned.prefill);
  const TimePoint start = SystemClock().Now();
  const auto check = [&](int minute) {
    registry->CheckSilence(start + std::chrono::minutes(minute));
    return heard.stalled.load();
  };
  check(0);
  EXPECT_EQ(check(60), 0) << "it was stopped for an hour";
  EXPECT_EQ(check(64), 0);
  EXPECT_EQ(check(68), 0);
  EXPECT_EQ(check(72), 1) << "the prefill worker: the decode worker has no other";
  EXPECT_EQ(check(76), 1);
  EXPECT_EQ(check(80), 1);
  EXPECT_EQ(check(84), 2) << "what was placed there since is told of, too";
  registry->Release(assigned.decode);
  registry->Release(assigned.prefill->share);
}

TEST(RegistryTest, StreamsMoveFromALeavingWorkerWhileThereIsAnother) {
  ScriptedWorker first(Role::kDecode, "d0");
  Heard heard;
  auto second = std::make_unique<ScriptedWorker>(Role::kDecode, "d1");
  const auto registry = MakeRegistry(At({first.address(), second->address()}), heard);
  ASSERT_TRUE(Eventually([&] { return heard.usable == 2; }));
  worker_link::WorkerStatus status = ScriptedWorker::IdleStatus();
  status.draining = true;
  first.SetStatus(status);
  ASSERT_TRUE(Eventually([&] { return State(*registry, 0) == "drained"; }));
  EXPECT_EQ(heard.leaving, 0);
  status.leaving = true;
  first.SetStatus(status);
  ASSERT_TRUE(Eventually([&] { return heard.leaving == 1; }));
  second->Stop();
  ASSERT_TRUE(Eventually([&] { return heard.lost == 1; }));
  status.running = 1;
  first.SetStatus(status);
  ASSERT_TRUE(Eventually([&] { return State(*registry, 0) == "draining"; }));
  EXPECT_EQ(heard.leaving, 1) << "nobody else is there";
}

TEST(RegistryTest, AWorkersRoleIsWhatItsStatusSays) {
  ScriptedWorker first(Role::kDecode, "d0"), second(Role::kDecode, "d1");
  Heard heard;
  const auto registry = MakeRegistry(At({first.address(), second.address()}), heard);
  ASSERT_TRUE(Eventually([&] { return heard.usable == 2; }));
  worker_link::WorkerStatus status = ScriptedWorker::IdleStatus();
  status.role = Role::kPrefill;
  first.SetStatus(status);
  ASSERT_TRUE(Eventually([&] { return registry->Fleet()[0].role == "prefill"; }));
  const Registry::Assignment assigned = Assign(*registry);
  EXPECT_EQ(assigned.decode_name, "d1");
  ASSERT_TRUE(assigned.prefill);
  EXPECT_EQ(assigned.prefill->name, "d0");
}

// One of two that fails three times in a row gets nothing while the other is there; the other's
// circuit stays closed however often it fails.
TEST(RegistryTest, WorkIsKeptFromAWorkerThatFailsButNotFromAll) {
  ScriptedWorker first(Role::kDecode, "d0"), second(Role::kDecode, "d1");
  Heard heard;
  const auto registry = MakeRegistry(At({first.address(), second.address()}), heard);
  ASSERT_TRUE(Eventually([&] { return heard.usable == 2; }));
  const auto fail = [&](ScriptedWorker& worker, int times) {
    const int before = heard.events;
    for (int i = 0; i < times; ++i) {
      worker.SendFailed({{1, static_cast<uint64_t>(i)}, 0}, absl::InternalError("broken"));
    }
    ASSERT_TRUE(Eventually([&] { return heard.events == before + times; }));
  };
  EXPECT_EQ(Assign(*registry).decode_name, "d0");
  EXPECT_EQ(Assign(*registry).decode_name, "d1");
  fail(first, 3);
  // Less loaded after this, d0 would be next.
  for (int i = 0; i < 3; ++i) EXPECT_EQ(Assign(*registry).decode_name, "d1");
  fail(second, 9);
  EXPECT_EQ(Assign(*registry).decode_name, "d1") << "half of them is the most";
  worker_link::FinishedEvent finished;
  finished.attempt = {{1, 1}, 0};
  const int before = heard.events;
  first.Send({finished});
  ASSERT_TRUE(Eventually([&] { return heard.events == before + 1; }));
  EXPECT_EQ(Assign(*registry).decode_name, "d0") << "it works again";
}

TEST(RegistryTest, AWorkerThatComesAnewIsNotBlamedForWhatItWasBefore) {
  auto first = std::make_unique<ScriptedWorker>(Role::kDecode, "d0");
  ScriptedWorker second(Role::kDecode, "d1");
  const std::string address = first->address();
  Heard heard;
  const auto registry = MakeRegistry(At({address, second.address()}), heard);
  ASSERT_TRUE(Eventually([&] { return heard.usable == 2; }));
  for (int i = 0; i < 8; ++i) {  // so many that the pause would outlast this test
    first->SendFailed({{1, static_cast<uint64_t>(i)}, 0}, absl::InternalError("broken"));
  }
  ASSERT_TRUE(Eventually([&] { return heard.events == 8; }));
  EXPECT_EQ(Assign(*registry).decode_name, "d1");
  first.reset();
  ASSERT_TRUE(Eventually([&] { return heard.lost == 1; }));
  first = std::make_unique<ScriptedWorker>(Role::kDecode, "d0", address);
  ASSERT_TRUE(Eventually([&] { return heard.usable == 3; }));
  EXPECT_EQ(Assign(*registry).decode_name, "d0");
}

TEST(RegistryTest, TellsAWorkerItsDuty) {
  ScriptedWorker decode(Role::kDecode, "d0"), prefill(Role::kPrefill, "p0");
  Heard heard;
  const auto registry = MakeRegistry(At({decode.address(), prefill.address()}), heard);
  ASSERT_TRUE(Eventually([&] { return heard.usable == 2; }));
  EXPECT_TRUE(registry->SetDuty({.worker = "p0", .takes_work = false}).ok());
  auto duty = prefill.Await<worker_link::DutyCommand>();
  EXPECT_EQ(duty.role, Role::kPrefill);
  EXPECT_FALSE(duty.takes_work);
  EXPECT_TRUE(registry
                  ->SetDuty({.worker = prefill.address(),
                             .role = Role::kDecode,
                             .grace = std::chrono::seconds(7)})
                  .ok());
  duty = prefill.Await<worker_link::DutyCommand>();
  EXPECT_EQ(duty.role, Role::kDecode);
  EXPECT_TRUE(duty.takes_work);
  EXPECT_EQ(duty.grace, std::chrono::seconds(7));

  EXPECT_EQ(registry->SetDuty({.worker = "d1"}).ToString(),
            "NOT_FOUND: there is no worker 'd1'; did you mean 'd0'?");
  const absl::Status last = registry->SetDuty({.worker = "d0", .takes_work = false});
  EXPECT_TRUE(absl::IsFailedPrecondition(last)) << last;
  EXPECT_THAT(last.ToString(), HasSubstr("'d0' is the only decode worker that takes work"));
  EXPECT_TRUE(registry->SetDuty({.worker = "d0", .takes_work = false, .force = true}).ok());
  EXPECT_FALSE(decode.Await<worker_link::DutyCommand>().takes_work);
  prefill.Stop();
  ASSERT_TRUE(Eventually([&] { return heard.lost == 1; }));
  EXPECT_TRUE(absl::IsUnavailable(registry->SetDuty({.worker = "p0"})));
}

}  // namespace
}  // namespace baton::router
