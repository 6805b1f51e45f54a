// What the registry knows of prefixes, from workers that speak the real link.

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "router/registry.h"
#include "tests/router/cluster.h"
#include "tests/router/counting_prompt.h"
#include "tests/router/demo_tokenizer.h"
#include "tests/router/scripted_worker.h"

namespace baton::router {
namespace {

using worker_link::Role;

std::unique_ptr<Registry> RegistryOf(std::vector<std::string> workers,
                                     size_t entries = PrefixIndex::kDefaultEntries) {
  RegistryOptions options;
  options.router_name = "router";
  options.workers = std::move(workers);
  options.stall_timeout = std::chrono::hours(1);
  options.vocab_size = DemoTokenizer().vocab_size();
  options.prefix_index_entries = entries;
  RegistryEvents events;
  events.on_usable = [] {};
  events.on_lost = [](WorkerId, const absl::Status&) {};
  events.on_events = [](WorkerId, std::vector<worker_link::Event>) {};
  events.on_stalled = [](WorkerId, const absl::Status&) {};
  events.on_leaving = [](WorkerId) {};
  auto registry = Registry::Create(options, std::move(events));
  BATON_CHECK(registry.ok(), registry.status().ToString());
  const bool ready = Eventually([&] {
    return std::ranges::all_of((*registry)->Fleet(),
                               [](const WorkerView& worker) { return worker.state == "ready"; });
  });
  BATON_CHECK(ready, "the scripted workers must connect");
  return *std::move(registry);
}

Registry::Assignment Assign(Registry& registry, const std::vector<TokenId>& prompt,
                            std::optional<uint64_t> session = std::nullopt) {
  PlacementRequest request;
  request.prompt_tokens = static_cast<int32_t>(prompt.size());
  const std::vector<uint64_t> keys = PrefixKeys("", prompt);
  auto assigned = registry.Assign(request, {prompt, "", keys, session});
  if (const auto* refusal = std::get_if<Refusal>(&assigned)) {
    ADD_FAILURE() << refusal->text;
    return {};
  }
  return std::get<Registry::Assignment>(std::move(assigned));
}

// Assigns, and gives back at once. The prefill worker's name.
std::string PrefillFor(Registry& registry, const std::vector<TokenId>& prompt,
                       std::optional<uint64_t> session = std::nullopt) {
  const Registry::Assignment assignment = Assign(registry, prompt, session);
  registry.Release(assignment.decode);
  if (!assignment.prefill) return "none";
  registry.Release(assignment.prefill->share);
  return assignment.prefill->name;
}

// Where all is equal they take turns; a worker that holds the prompt gets it each time.
bool GoesTo(Registry& registry, const std::vector<TokenId>& prompt, const std::string& name) {
  return Eventually(
      [&] { return PrefillFor(registry, prompt) == name && PrefillFor(registry, prompt) == name; });
}

TEST(RegistryPrefixTest, APromptGoesToTheWorkerThatSaysItHoldsItsPrefix) {
  ScriptedWorker decode(Role::kDecode, "d0");
  ScriptedWorker first(Role::kPrefill, "p0");
  auto second = std::make_unique<ScriptedWorker>(Role::kPrefill, "p1");
  const std::string address = second->address();
  const auto registry = RegistryOf({decode.address(), first.address(), address});
  const std::vector<TokenId> prompt = CountingPrompt(100);
  EXPECT_EQ(PrefillFor(*registry, prompt), "p0");
  second->HoldBlocks(prompt, 5);
  EXPECT_TRUE(GoesTo(*registry, prompt, "p1"));
  EXPECT_EQ(PrefillFor(*registry, CountingPrompt(16)), "p0")
      << "its last token is computed in any case";
  first.HoldBlocks(prompt, 6);
  EXPECT_TRUE(GoesTo(*registry, prompt, "p0"));
  second->HoldBlocks(prompt, 6);
  second->Stop();
  EXPECT_TRUE(Eventually([&] {
    return registry->MetricsText().find("baton_prefix_index_workers 2") != std::string::npos;
  })) << registry->MetricsText();
  // A worker that comes back tells what it holds now.
  const std::vector<TokenId> unlike = CountingPrompt(1000, 7);
  second = std::make_unique<ScriptedWorker>(Role::kPrefill, "p1", address);
  second->HoldBlocks(unlike, 60);
  EXPECT_TRUE(GoesTo(*registry, unlike, "p1"));
}

TEST(RegistryPrefixTest, ItCountsWhatIsHeldAndGivesLoadBack) {
  ScriptedWorker decode(Role::kDecode, "d0");
  ScriptedWorker prefill(Role::kPrefill, "p0");
  const auto registry = RegistryOf({decode.address(), prefill.address()});
  const std::vector<TokenId> prompt = CountingPrompt(100);
  prefill.HoldBlocks(prompt, 6);
  ASSERT_TRUE(Eventually([&] {
    const Registry::Assignment assignment = Assign(*registry, prompt);
    registry->Release(assignment.decode);
    registry->Release(assignment.prefill->share);
    return assignment.prefill->share.prompt_tokens == 4;
  }));
}

TEST(RegistryPrefixTest, APromptThatBeginsLikeOneUnderWayFollowsIt) {
  ScriptedWorker decode(Role::kDecode, "d0");
  ScriptedWorker first(Role::kPrefill, "p0");
  ScriptedWorker second(Role::kPrefill, "p1");
  const auto registry = RegistryOf({decode.address(), first.address(), second.address()});
  const std::vector<TokenId> unlike = CountingPrompt(650, 7);
  const Registry::Assignment other = Assign(*registry, unlike);
  ASSERT_EQ(other.prefill->name, "p0");
  const Registry::Assignment begun = Assign(*registry, CountingPrompt(655));
  ASSERT_EQ(begun.prefill->name, "p1");
  // Less waits at p0, but p1 will have 512 tokens of it.
  EXPECT_EQ(PrefillFor(*registry, CountingPrompt(1000)), "p1");
  registry->Release(other.prefill->share);
  registry->Release(begun.prefill->share);
  EXPECT_EQ(PrefillFor(*registry, CountingPrompt(1000)), "p0") << "nobody says that it is held";
}

TEST(RegistryPrefixTest, ASessionIsServedWhereItWasWhenNothingElseDecides) {
  ScriptedWorker decode(Role::kDecode, "d0");
  ScriptedWorker first(Role::kPrefill, "p0");
  ScriptedWorker second(Role::kPrefill, "p1");
  const auto registry = RegistryOf({decode.address(), first.address(), second.address()});
  const Registry::Assignment other = Assign(*registry, CountingPrompt(30));
  ASSERT_EQ(other.prefill->name, "p0");
  EXPECT_EQ(PrefillFor(*registry, CountingPrompt(20), 77), "p1");
  registry->Release(other.prefill->share);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(PrefillFor(*registry, CountingPrompt(20), 77), "p1");
  EXPECT_EQ(PrefillFor(*registry, CountingPrompt(20), 78), "p0");
}

TEST(RegistryPrefixTest, WithoutAnIndexNobodyIsAsked) {
  ScriptedWorker decode(Role::kDecode, "d0");
  ScriptedWorker prefill(Role::kPrefill, "p0");
  const auto registry = RegistryOf({decode.address(), prefill.address()}, 0);
  prefill.HoldBlocks(CountingPrompt(100), 6);
  EXPECT_EQ(PrefillFor(*registry, CountingPrompt(100)), "p0");
  EXPECT_NE(registry->MetricsText().find("baton_prefix_index_workers 0"), std::string::npos);
}

}  // namespace
}  // namespace baton::router
