#include "router/placement.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace baton::router {
namespace {

using testing::HasSubstr;
using worker_link::Role;

WorkerSnapshot Worker(WorkerId id, Role role) {
  WorkerSnapshot worker;
  worker.id = id;
  worker.role = role;
  worker.fingerprint = "model-a";
  worker.connected = true;
  worker.blocks_available = 100;
  worker.blocks_total = 100;
  worker.block_tokens = 16;
  return worker;
}
WorkerSnapshot Decode(WorkerId id) { return Worker(id, Role::kDecode); }
WorkerSnapshot Prefill(WorkerId id) { return Worker(id, Role::kPrefill); }

struct Case {
  const char* what;
  std::vector<WorkerSnapshot> workers;
  PlacementRequest request;
  WorkerId decode;
  std::optional<WorkerId> prefill;
  std::vector<HeldPrefix> held = {};
};

// What workers 0, 1, ... hold in memory.
std::vector<HeldPrefix> Held(std::vector<int32_t> tokens) {
  std::vector<HeldPrefix> held;
  for (const int32_t each : tokens) held.push_back({.memory_tokens = each});
  return held;
}

template <typename Change>
WorkerSnapshot With(WorkerSnapshot worker, Change change) {
  change(worker);
  return worker;
}

PlacementRequest Tokens(int32_t tokens) {
  PlacementRequest request;
  request.prompt_tokens = tokens;
  return request;
}

template <typename Change>
PlacementRequest TokensWith(int32_t tokens, Change change) {
  PlacementRequest request = Tokens(tokens);
  change(request);
  return request;
}

std::vector<Case> DecodeCases() {
  const auto suspect = [](WorkerSnapshot& w) { w.suspect = true; };
  const auto requests = [](int32_t n) { return [n](WorkerSnapshot& w) { w.requests = n; }; };
  const auto available = [](int64_t n) {
    return [n](WorkerSnapshot& w) { w.blocks_available = n; };
  };
  return {
      {"lowest id when all is equal", {Decode(3), Decode(5)}, Tokens(100), 3, {}},
      {"fewest requests",
       {With(Decode(0), requests(2)), With(Decode(1), requests(1))},
       Tokens(100),
       1,
       {}},
      {"most blocks when requests are equal",
       {With(Decode(0), available(50)), With(Decode(1), available(60))},
       Tokens(100),
       1,
       {}},
      {"a shorter step goes before fewer requests",
       {With(With(Decode(0), requests(1)), [](WorkerSnapshot& w) { w.slowness = 2; }),
        With(Decode(1), requests(4))},
       TokensWith(
           100, [](PlacementRequest& r) { r.decode_step = {.step_s = 8e-3, .sequence_s = 1e-3}; }),
       1,
       {}},
      {"long contexts make steps longer than more requests do",
       {With(With(Decode(0), requests(2)), [](WorkerSnapshot& w) { w.context_tokens = 60000; }),
        With(Decode(1), requests(4))},
       TokensWith(100,
                  [](PlacementRequest& r) {
                    r.decode_step = {.step_s = 8e-3, .sequence_s = 1e-3, .context_token_s = 1e-7};
                  }),
       1,
       {}},
      {"steps that hardly differ: fewest requests",
       {With(With(Decode(0), requests(3)), [](WorkerSnapshot& w) { w.context_tokens = 100; }),
        With(Decode(1), requests(2))},
       TokensWith(
           100, [](PlacementRequest& r) { r.decode_step = {.step_s = 8e-3, .sequence_s = 1e-5}; }),
       1,
       {}},
      {"a held prefix is not worth a step twice as long",
       {With(Decode(0), [](WorkerSnapshot& w) { w.slowness = 2; }), Decode(1)},
       TokensWith(100, [](PlacementRequest& r) { r.decode_step = {.step_s = 8e-3}; }),
       1,
       {},
       Held({64, 0})},
      {"it is worth one that is an eighth longer",
       {Decode(0), With(Decode(1), [](WorkerSnapshot& w) { w.slowness = 1.13; })},
       TokensWith(100, [](PlacementRequest& r) { r.decode_step = {.step_s = 8e-3}; }),
       1,
       {},
       Held({0, 64})},
      {"room now goes before fewest requests",
       {With(Decode(0), available(2)), With(Decode(1), requests(9))},
       Tokens(100),
       1,
       {}},
      {"no room anywhere: fewest requests",
       {With(With(Decode(0), available(2)), requests(3)),
        With(With(Decode(1), available(1)), requests(2))},
       Tokens(100),
       1,
       {}},
      {"a pool that can never hold the prompt is left out",
       {With(Decode(0), [](WorkerSnapshot& w) { w.blocks_total = 6; }),
        With(Decode(1), requests(9))},
       Tokens(100),
       1,
       {}},
      {"exactly the prompt and one token fit",
       {With(Decode(0), [](WorkerSnapshot& w) { w.blocks_total = w.blocks_available = 7; }),
        With(Decode(1), requests(9))},
       Tokens(111),
       0,
       {}},
      {"not connected",
       {With(Decode(0), [](WorkerSnapshot& w) { w.connected = false; }),
        With(Decode(1), requests(9))},
       Tokens(100),
       1,
       {}},
      {"draining",
       {With(Decode(0), [](WorkerSnapshot& w) { w.draining = true; }),
        With(Decode(1), requests(9))},
       Tokens(100),
       1,
       {}},
      {"the session breaks a tie",
       {Decode(0), Decode(1)},
       TokensWith(100, [](PlacementRequest& r) { r.session.decode = 1; }),
       1,
       {}},
      {"the session does not outweigh load",
       {Decode(0), With(Decode(1), requests(1))},
       TokensWith(100, [](PlacementRequest& r) { r.session.decode = 1; }),
       0,
       {}},
      {"a longer held prefix is worth one request",
       {Decode(0), With(Decode(1), requests(1))},
       Tokens(100),
       1,
       {},
       Held({16, 32})},
      {"but not two",
       {Decode(0), With(Decode(1), requests(2))},
       Tokens(100),
       0,
       {},
       Held({16, 32})},
      {"and an eighth of many",
       {With(Decode(0), requests(16)), With(Decode(1), requests(19))},
       Tokens(100),
       1,
       {},
       Held({16, 32})},
      {"but no more than that",
       {With(Decode(0), requests(16)), With(Decode(1), requests(20))},
       Tokens(100),
       0,
       {},
       Held({16, 32})},
      {"among those that hold as much, fewest requests",
       {With(Decode(0), requests(1)), With(Decode(1), requests(1)), Decode(2)},
       Tokens(100),
       2,
       {},
       Held({32, 32, 32})},
      {"a held prefix does not make room",
       {Decode(0), With(Decode(1), available(2))},
       Tokens(100),
       0,
       {},
       Held({0, 96})},
      {"a full step is no room",
       {With(Decode(0),
             [](WorkerSnapshot& w) {
               w.max_sequences = 2;
               w.requests = 2;
             }),
        With(Decode(1), requests(9))},
       Tokens(100),
       1,
       {}},
      {"the worker to avoid comes last",
       {Decode(0), With(Decode(1), requests(9))},
       TokensWith(100, [](PlacementRequest& r) { r.avoid = {0}; }),
       1,
       {}},
      {"but before none",
       {Decode(0)},
       TokensWith(100, [](PlacementRequest& r) { r.avoid = {0}; }),
       0,
       {}},
      {"so do several",
       {Decode(0), Decode(1), With(Decode(2), requests(9))},
       TokensWith(100,
                  [](PlacementRequest& r) {
                    r.avoid = {0, 1};
                  }),
       2,
       {}},
      {"a suspect comes last, too",
       {With(Decode(0), suspect), With(Decode(1), requests(9))},
       Tokens(100),
       1,
       {}},
      {"and is better than none",
       {With(Decode(0), suspect), With(Decode(1), suspect)},
       Tokens(100),
       0,
       {}},
  };
}

std::vector<Case> PrefillCases() {
  const auto suspect = [](WorkerSnapshot& w) { w.suspect = true; };
  const auto queued = [](int64_t n) {
    return [n](WorkerSnapshot& w) { w.prompt_tokens_queued = n; };
  };
  const auto chosen = [](uint64_t n) { return [n](WorkerSnapshot& w) { w.chosen = n; }; };
  const auto speed = [](double n) {
    return [n](WorkerSnapshot& w) { w.prefill_tokens_per_s = n; };
  };
  return {
      {"lowest id when all is equal", {Decode(0), Prefill(1), Prefill(2)}, Tokens(100), 0, 1},
      {"fewest queued tokens",
       {Decode(0), With(Prefill(1), queued(500)), With(Prefill(2), queued(400))},
       Tokens(100),
       0,
       2},
      {"another model's prefill worker is no help",
       {Decode(0), With(Prefill(1), [](WorkerSnapshot& w) { w.fingerprint = "model-b"; })},
       Tokens(100),
       0,
       std::nullopt},
      {"another KV layout is converted",
       {Decode(0), With(Prefill(1), [](WorkerSnapshot& w) { w.kv_layout = "blocks of 8"; })},
       Tokens(100),
       0,
       1},
      {"but the same layout is better, whatever the id",
       {Decode(0), With(Prefill(1), [](WorkerSnapshot& w) { w.kv_layout = "blocks of 8"; }),
        With(Prefill(2), [](WorkerSnapshot& w) { w.requests = 3; })},
       Tokens(100),
       0,
       2},
      {"though not if it waits longer",
       {Decode(0), With(Prefill(1), [](WorkerSnapshot& w) { w.kv_layout = "blocks of 8"; }),
        With(Prefill(2), queued(1))},
       Tokens(100),
       0,
       1},
      {"a short prompt stays local",
       {Decode(0), Prefill(1)},
       TokensWith(32, [](PlacementRequest& r) { r.local_prefill_tokens = 32; }),
       0,
       std::nullopt},
      {"one token more does not",
       {Decode(0), Prefill(1)},
       TokensWith(33, [](PlacementRequest& r) { r.local_prefill_tokens = 32; }),
       0,
       1},
      {"not connected or draining: local",
       {Decode(0), With(Prefill(1), [](WorkerSnapshot& w) { w.connected = false; }),
        With(Prefill(2), [](WorkerSnapshot& w) { w.draining = true; })},
       Tokens(100),
       0,
       std::nullopt},
      {"a pool too small for the prompt is left out",
       {Decode(0), With(Prefill(1), [](WorkerSnapshot& w) { w.blocks_total = 6; })},
       Tokens(100),
       0,
       std::nullopt},
      {"a held prefix is worth its tokens",
       {Decode(0), With(Prefill(1), queued(0)), With(Prefill(2), queued(63))},
       Tokens(100),
       0,
       2,
       Held({0, 0, 64})},
      {"and no more",
       {Decode(0), With(Prefill(1), queued(0)), With(Prefill(2), queued(65))},
       Tokens(100),
       0,
       1,
       Held({0, 0, 64})},
      {"the longest of several",
       {Decode(0), Prefill(1), Prefill(2), Prefill(3)},
       Tokens(100),
       0,
       2,
       Held({0, 32, 96, 64})},
      {"one that will be there is worth as much",
       {Decode(0), Prefill(1), With(Prefill(2), queued(63))},
       TokensWith(100,
                  [](PlacementRequest& r) {
                    r.expected_at = 2;
                    r.expected_tokens = 64;
                  }),
       0,
       2},
      {"time counts, not tokens",
       {Decode(0), With(Prefill(1), speed(1000)), With(With(Prefill(2), speed(4000)), queued(290))},
       Tokens(100),
       0,
       2},
      {"and at 4 times the speed 4 times as many may wait",
       {Decode(0), With(Prefill(1), speed(1000)), With(With(Prefill(2), speed(4000)), queued(310))},
       Tokens(100),
       0,
       1},
      {"least recently chosen, when all else is equal",
       {Decode(0), With(Prefill(1), chosen(9)), With(Prefill(2), chosen(7)),
        With(Prefill(3), chosen(8))},
       Tokens(100),
       0,
       2},
      {"fewest requests go before that",
       {Decode(0), With(Prefill(1), chosen(9)),
        With(Prefill(2), [](WorkerSnapshot& w) { w.requests = 1; })},
       Tokens(100),
       0,
       1},
      {"one that was not measured is as fast as the others",
       {Decode(0), With(With(Prefill(1), speed(1000)), queued(10)), Prefill(2)},
       Tokens(100),
       0,
       2},
      {"the session breaks a tie",
       {Decode(0), Prefill(1), Prefill(2)},
       TokensWith(100, [](PlacementRequest& r) { r.session.prefill = 2; }),
       0,
       2},
      {"and no more than that",
       {Decode(0), Prefill(1), With(Prefill(2), queued(1))},
       TokensWith(100, [](PlacementRequest& r) { r.session.prefill = 2; }),
       0,
       1},
      {"the prefill worker to avoid comes last",
       {Decode(0), Prefill(1), With(Prefill(2), queued(9999))},
       TokensWith(100, [](PlacementRequest& r) { r.avoid = {1}; }),
       0,
       2},
      {"a suspect prefill worker comes last",
       {Decode(0), With(Prefill(1), suspect), With(Prefill(2), queued(9999))},
       Tokens(100),
       0,
       2},
      {"where only suspects are left the decode worker prefills",
       {Decode(0), With(Prefill(1), suspect)},
       Tokens(100),
       0,
       std::nullopt},
      {"where only it is left the decode worker prefills",
       {Decode(0), Prefill(1)},
       TokensWith(100, [](PlacementRequest& r) { r.avoid = {1}; }),
       0,
       std::nullopt},
  };
}

TEST(PlacementTest, OnlyOthersMeansThatNobodyMayBeLeft) {
  PlacementRequest request = Tokens(100);
  request.avoid = {0};
  request.only_others = true;
  const std::vector<WorkerSnapshot> one = {Decode(0)};
  EXPECT_TRUE(std::holds_alternative<Refusal>(Place(one, request)));
  const std::vector<WorkerSnapshot> two = {Decode(0), Decode(1)};
  const Placement placed = Place(two, request);
  ASSERT_TRUE(std::holds_alternative<Placed>(placed));
  EXPECT_EQ(std::get<Placed>(placed).decode, 1u);
}

struct DonorCase {
  const char* what;
  std::vector<WorkerSnapshot> workers;
  std::vector<WorkerId> avoid;
  std::optional<WorkerId> prefill;
  std::optional<WorkerId> donor;
};

// 1,000 tokens, of which 512 are cached at prefill worker 2.
std::vector<DonorCase> DonorCases() {
  const auto measured = [](double tokens_per_s, double bytes_per_s, int64_t queued = 0) {
    return [=](WorkerSnapshot& w) {
      w.kv_bytes_per_token = 1'000'000;
      w.prefill_tokens_per_s = tokens_per_s;
      w.kv_bytes_per_s = bytes_per_s;
      w.prompt_tokens_queued = queued;
    };
  };
  const auto fast = measured(1'000, 10e9);  // 512 tokens are fetched while 52 are computed
  return {
      {"where it is cached, when nothing waits there",
       {Decode(0), With(Prefill(1), fast), With(Prefill(2), fast)},
       {},
       2,
       {}},
      {"fetched, when less waits elsewhere",
       {Decode(0), With(Prefill(1), fast), With(Prefill(2), measured(1'000, 10e9, 53))},
       {},
       1,
       2},
      {"but not for less than fetching takes",
       {Decode(0), With(Prefill(1), fast), With(Prefill(2), measured(1'000, 10e9, 51))},
       {},
       2,
       {}},
      {"computed, where that is faster than a slow link",
       {Decode(0), With(Prefill(1), measured(1'000, 0.9e9)),
        With(Prefill(2), measured(1'000, 0.9e9, 600))},
       {},
       1,
       {}},
      {"computed, while nothing is known of either's speed",
       {Decode(0), With(Prefill(1), measured(0, 0)), With(Prefill(2), measured(0, 0, 600))},
       {},
       1,
       {}},
      {"fetched at the assumed rate before a transfer was measured",
       {Decode(0), With(Prefill(1), measured(500, 0)), With(Prefill(2), measured(500, 0, 600))},
       {},
       1,
       2},
      {"not from a worker that has just failed it",
       {Decode(0), With(Prefill(1), fast), With(Prefill(2), fast)},
       {2},
       1,
       {}},
      {"not from one that drains",
       {Decode(0), With(Prefill(1), fast),
        With(With(Prefill(2), fast), [](WorkerSnapshot& w) { w.draining = true; })},
       {},
       1,
       {}},
      {"not from another layout's",
       {Decode(0), With(Prefill(1), fast),
        With(With(Prefill(2), measured(1'000, 10e9, 600)),
             [](WorkerSnapshot& w) { w.kv_layout = "int8"; })},
       {},
       1,
       {}},
      {"not from another model's",
       {Decode(0), With(Prefill(1), fast),
        With(With(Prefill(2), fast), [](WorkerSnapshot& w) { w.fingerprint = "model-b"; })},
       {},
       1,
       {}},
  };
}

TEST(PlacementTest, FetchesACachedPrefixWhereThatIsFaster) {
  for (const DonorCase& one : DonorCases()) {
    SCOPED_TRACE(one.what);
    PlacementRequest request = Tokens(1'000);
    const std::vector<HeldPrefix> held = Held({0, 0, 512});
    request.held = held;
    request.avoid = one.avoid;
    const Placement placement = Place(one.workers, request);
    ASSERT_TRUE(std::holds_alternative<Placed>(placement));
    const Placed& placed = std::get<Placed>(placement);
    EXPECT_EQ(placed.prefill, one.prefill);
    EXPECT_EQ(placed.donor ? std::optional(placed.donor->worker) : std::nullopt, one.donor);
    if (placed.donor) {
      EXPECT_EQ(placed.donor->tokens, 512);
    }
  }
}

void ExpectPlaced(const std::vector<Case>& cases) {
  for (const Case& one : cases) {
    SCOPED_TRACE(one.what);
    PlacementRequest request = one.request;
    request.held = one.held;
    const Placement placement = Place(one.workers, request);
    ASSERT_TRUE(std::holds_alternative<Placed>(placement));
    EXPECT_EQ(std::get<Placed>(placement).decode, one.decode);
    EXPECT_EQ(std::get<Placed>(placement).prefill, one.prefill);
  }
}

// 1,000 tokens. Worker 0 decodes; 1 and 2 prefill.
struct LocalCase {
  const char* what;
  int32_t held_at_decode;
  int32_t held_at_prefill;
  int64_t queued_at_prefill;
  double decode_speed;  // 0: not measured
  int32_t most_uncached;
  bool local;
};

TEST(PlacementTest, TheDecodeWorkerPrefillsWhatItHoldsNearlyAllOfWhereThatIsFaster) {
  const LocalCase cases[] = {
      {"held there and nowhere else", 900, 0, 0, 1000, 100, true},
      {"one token too many is not", 899, 0, 0, 1000, 100, false},
      {"not when it is not allowed", 999, 0, 0, 1000, 0, false},
      {"nothing held is never nearly all", 0, 0, 0, 1e9, 1000, false},
      {"equal on both sides: the prefill worker", 900, 900, 0, 1000, 100, false},
      {"held on both sides, but the prefill worker has work", 900, 900, 1, 1000, 100, true},
      {"a slow decode worker: not yet", 900, 0, 0, 99, 100, false},
      {"half as fast as the prefill worker while it is not measured", 900, 899, 98, 0, 100, false},
      {"so with more work there", 900, 899, 100, 0, 100, true},
  };
  for (const LocalCase& one : cases) {
    SCOPED_TRACE(one.what);
    std::vector<WorkerSnapshot> workers = {Decode(0), Prefill(1), Prefill(2)};
    workers[0].prefill_tokens_per_s = one.decode_speed;
    for (const size_t prefill : {1, 2}) {
      workers[prefill].prefill_tokens_per_s = 1000;
      workers[prefill].prompt_tokens_queued = one.queued_at_prefill;
    }
    const std::vector<HeldPrefix> held =
        Held({one.held_at_decode, one.held_at_prefill, one.held_at_prefill});
    PlacementRequest request = Tokens(1000);
    request.local_uncached_tokens = one.most_uncached;
    request.held = held;
    const Placement placement = Place(workers, request);
    ASSERT_TRUE(std::holds_alternative<Placed>(placement));
    const Placed& placed = std::get<Placed>(placement);
    EXPECT_EQ(placed.prefill.has_value(), !one.local);
    EXPECT_EQ(placed.compute_tokens, 1000 - (one.local ? one.held_at_decode : one.held_at_prefill));
    workers[0].kv_layout = "int8";
    EXPECT_TRUE(std::get<Placed>(Place(workers, request)).prefill) << "another number format";
  }
}

TEST(PlacementTest, APrefixOnDiskCostsItsReading) {
  std::vector<WorkerSnapshot> workers = {Decode(0), Prefill(1), Prefill(2)};
  for (const size_t prefill : {1, 2}) {
    workers[prefill].prefill_tokens_per_s = 1000;
    workers[prefill].kv_bytes_per_token = 1'000'000;
    workers[prefill].disk_bytes_per_s = 10e9;  // 10 tokens are read while one is computed
    workers[prefill].kv_layout = prefill == 1 ? "a" : "b";  // nothing is fetched
  }
  std::vector<HeldPrefix> held = {{}, {}, {.memory_tokens = 100, .disk_tokens = 600}};
  PlacementRequest request = Tokens(1000);
  request.held = held;
  // 400 tokens computed, 500 read as 50.
  workers[1].prompt_tokens_queued = 0;
  workers[2].prompt_tokens_queued = 549;
  EXPECT_EQ(std::get<Placed>(Place(workers, request)).prefill, 2u);
  EXPECT_EQ(std::get<Placed>(Place(workers, request)).compute_tokens, 400);
  workers[2].prompt_tokens_queued = 551;
  EXPECT_EQ(std::get<Placed>(Place(workers, request)).prefill, 1u);
  // A disk slower than computing is not read.
  workers[2].prompt_tokens_queued = 99;
  workers[2].disk_bytes_per_s = 0.9e9;
  EXPECT_EQ(std::get<Placed>(Place(workers, request)).prefill, 2u);
  EXPECT_EQ(std::get<Placed>(Place(workers, request)).compute_tokens, 900);
  workers[2].prompt_tokens_queued = 101;
  EXPECT_EQ(std::get<Placed>(Place(workers, request)).prefill, 1u);
}

TEST(PlacementTest, ChoosesTheDecodeWorker) { ExpectPlaced(DecodeCases()); }

TEST(PlacementTest, ChoosesThePrefillWorker) { ExpectPlaced(PrefillCases()); }

TEST(PlacementTest, DoesNotDependOnTheOrderOfTheSnapshot) {
  std::vector<Case> cases = DecodeCases();
  for (Case& one : cases) std::reverse(one.workers.begin(), one.workers.end());
  ExpectPlaced(cases);
  cases = PrefillCases();
  for (Case& one : cases) std::reverse(one.workers.begin(), one.workers.end());
  ExpectPlaced(cases);
}

void ExpectRefused(const std::vector<WorkerSnapshot>& workers, RefusalReason reason,
                   const char* text) {
  const Placement placement = Place(workers, Tokens(100));
  ASSERT_TRUE(std::holds_alternative<Refusal>(placement)) << text;
  EXPECT_EQ(std::get<Refusal>(placement).reason, reason) << text;
  EXPECT_THAT(std::get<Refusal>(placement).text, HasSubstr(text));
}

TEST(PlacementTest, RefusesWithTheReason) {
  WorkerSnapshot draining = Decode(0);
  draining.draining = true;
  WorkerSnapshot gone = Decode(1);
  gone.connected = false;
  WorkerSnapshot small = Decode(2);
  small.blocks_total = 6;
  ExpectRefused({}, RefusalReason::kNoDecodeWorker, "no decode worker is connected");
  ExpectRefused({Prefill(0), gone}, RefusalReason::kNoDecodeWorker, "2 workers known");
  ExpectRefused({draining, gone}, RefusalReason::kAllDraining, "all 1 connected decode workers");
  ExpectRefused({draining, small}, RefusalReason::kPromptTooLarge,
                "prompt has 100 tokens, but the largest decode worker's KV cache holds 96");
}

}  // namespace
}  // namespace baton::router
