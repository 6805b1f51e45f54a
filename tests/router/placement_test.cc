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
};

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
      {"affinity breaks a tie",
       {Decode(0), Decode(1)},
       TokensWith(100, [](PlacementRequest& r) { r.affinity.decode = 1; }),
       1,
       {}},
      {"affinity does not outweigh load",
       {Decode(0), With(Decode(1), requests(1))},
       TokensWith(100, [](PlacementRequest& r) { r.affinity.decode = 1; }),
       0,
       {}},
      {"the worker to avoid comes last",
       {Decode(0), With(Decode(1), requests(9))},
       TokensWith(100, [](PlacementRequest& r) { r.avoid = 0; }),
       1,
       {}},
      {"but before none",
       {Decode(0)},
       TokensWith(100, [](PlacementRequest& r) { r.avoid = 0; }),
       0,
       {}},
  };
}

std::vector<Case> PrefillCases() {
  const auto queued = [](int64_t n) {
    return [n](WorkerSnapshot& w) { w.prompt_tokens_queued = n; };
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
      {"a cached prefix is worth its tokens",
       {Decode(0), With(Prefill(1), queued(0)), With(Prefill(2), queued(63))},
       TokensWith(100,
                  [](PlacementRequest& r) {
                    r.affinity = {2, std::nullopt, 64};
                  }),
       0,
       2},
      {"and no more",
       {Decode(0), With(Prefill(1), queued(0)), With(Prefill(2), queued(65))},
       TokensWith(100,
                  [](PlacementRequest& r) {
                    r.affinity = {2, std::nullopt, 64};
                  }),
       0,
       1},
      {"the prefill worker to avoid comes last",
       {Decode(0), Prefill(1), With(Prefill(2), queued(9999))},
       TokensWith(100, [](PlacementRequest& r) { r.avoid = 1; }),
       0,
       2},
      {"where only it is left the decode worker prefills",
       {Decode(0), Prefill(1)},
       TokensWith(100, [](PlacementRequest& r) { r.avoid = 1; }),
       0,
       std::nullopt},
  };
}

void ExpectPlaced(const std::vector<Case>& cases) {
  for (const Case& one : cases) {
    SCOPED_TRACE(one.what);
    const Placement placement = Place(one.workers, one.request);
    ASSERT_TRUE(std::holds_alternative<Placed>(placement));
    EXPECT_EQ(std::get<Placed>(placement).decode, one.decode);
    EXPECT_EQ(std::get<Placed>(placement).prefill, one.prefill);
  }
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
