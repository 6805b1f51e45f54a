// How much of what could be found in the caches of a fleet placement finds, knowing only what
// workers tell: real placement, index, journals and block pools, with eviction, under conversations
// of several turns. The oracle is the same placement with a look into every pool.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <memory>
#include <random>
#include <span>
#include <vector>

#include "engine/block_pool.h"
#include "router/placement.h"
#include "router/prefix_index.h"

namespace baton::router {
namespace {

constexpr int32_t kBlockTokens = 16;
constexpr double kTokensPerS = 40'000;
const ChainKind kKind{"model", kBlockTokens};

struct Load {
  int workers = 8;
  int32_t blocks = 1500;    // of each pool
  int64_t told_blocks = 0;  // as if the pools had so many: fewer are told. 0: as they are
  int sessions = 120;
  int turns = 1500;
  int told_every = 3;  // requests between two news of a worker
  double arrival_s = 0.01;
};

struct Hits {
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;
  double rate() const {
    return static_cast<double>(cached_tokens) / static_cast<double>(prompt_tokens);
  }
};

class PoolWorker {
 public:
  PoolWorker(const Load& load, WorkerId id, PrefixIndex* index)
      : layout_{.layers = 1, .kv_heads = 1, .head_dim = 1, .block_tokens = kBlockTokens},
        slab_(static_cast<size_t>(layout_.block_bytes() * load.blocks)),
        pool_(layout_, slab_, load.blocks, true),
        id_(id),
        index_(index) {
    pool_.NoteIn(&journal_);
    if (load.told_blocks > 0) journal_.SetBlocks(CacheTier::kMemory, load.told_blocks);
  }

  int32_t CachedTokens(std::span<const BlockHash> chain) const {
    return pool_.CountMatch(chain) * kBlockTokens;
  }
  // As an executor does. The tokens that were cached.
  int32_t Prefill(std::span<const BlockHash> chain, int32_t tokens, uint64_t turn) {
    chosen_ = turn;
    engine::BlockTable table = pool_.Match(chain);
    const int32_t cached = table.size();
    const int32_t needed = (tokens + kBlockTokens - 1) / kBlockTokens;
    EXPECT_TRUE(pool_.Extend(&table, needed - cached).ok());
    for (auto i = static_cast<size_t>(cached); i < chain.size(); ++i) {
      pool_.Publish(table, static_cast<int32_t>(i), chain[i]);
    }
    queued_tokens_ += tokens - cached * kBlockTokens;
    return cached * kBlockTokens;
  }
  void Work(double seconds) {
    queued_tokens_ = std::max(0.0, queued_tokens_ - seconds * kTokensPerS);
  }
  void Tell() {
    BlockNews news;
    while (journal_.Read(&reader_, &news)) ASSERT_TRUE(index_->Apply(id_, news));
  }
  WorkerSnapshot Snapshot() const {
    WorkerSnapshot snapshot;
    snapshot.id = id_;
    snapshot.role = worker_link::Role::kPrefill;
    snapshot.connected = true;
    snapshot.block_tokens = kBlockTokens;
    snapshot.blocks_total = snapshot.blocks_available = pool_.counts().total;
    snapshot.prompt_tokens_queued = static_cast<int64_t>(queued_tokens_);
    snapshot.prefill_tokens_per_s = kTokensPerS;
    snapshot.kv_bytes_per_token = 1'000'000;  // nobody fetches: what is elsewhere is a miss
    snapshot.chosen = chosen_;
    return snapshot;
  }

 private:
  kernels::KvLayout layout_;
  std::vector<std::byte> slab_;
  BlockJournal journal_;
  engine::BlockPool pool_;
  BlockJournal::Reader reader_;
  WorkerId id_;
  PrefixIndex* index_;
  double queued_tokens_ = 0;
  uint64_t chosen_ = 0;
};

// A turn's prompt is one of four common beginnings, and the conversation so far.
class Conversations {
 public:
  explicit Conversations(int sessions, uint32_t seed) : random_(seed) {
    for (int i = 0; i < 4; ++i) beginnings_.push_back(Tokens(200 + 150 * i));
    for (int i = 0; i < sessions; ++i) sessions_.push_back(beginnings_[Draw(4)]);
  }
  std::vector<TokenId> NextPrompt() {
    current_ = Draw(sessions_.size());
    std::vector<TokenId>& session = sessions_[current_];
    if (session.size() > 3000) session = beginnings_[Draw(4)];
    Append(&session, Tokens(20 + static_cast<int>(Draw(180))));
    return session;
  }
  void Answer() { Append(&sessions_[current_], Tokens(20 + static_cast<int>(Draw(130)))); }

 private:
  size_t Draw(size_t below) { return random_() % below; }
  std::vector<TokenId> Tokens(int count) {
    std::vector<TokenId> tokens;
    for (int i = 0; i < count; ++i) tokens.push_back(static_cast<TokenId>(Draw(50'000)));
    return tokens;
  }
  static void Append(std::vector<TokenId>* to, const std::vector<TokenId>& tokens) {
    to->insert(to->end(), tokens.begin(), tokens.end());
  }

  std::mt19937 random_;
  std::vector<std::vector<TokenId>> beginnings_;
  std::vector<std::vector<TokenId>> sessions_;
  size_t current_ = 0;
};

enum class Knowledge { kIndex, kOracle, kNothing };

Hits Run(const Load& load, Knowledge knowledge, uint32_t seed) {
  PrefixIndex index(1'000'000);
  std::vector<std::unique_ptr<PoolWorker>> workers;
  for (int i = 0; i < load.workers; ++i) {
    workers.push_back(std::make_unique<PoolWorker>(load, static_cast<WorkerId>(i), &index));
  }
  WorkerSnapshot decode = workers[0]->Snapshot();
  decode.id = static_cast<WorkerId>(load.workers);
  decode.role = worker_link::Role::kDecode;
  decode.blocks_total = decode.blocks_available = 1'000'000;
  Conversations conversations(load.sessions, seed);
  Hits hits;
  HeldPrefixes held;
  for (int turn = 0; turn < load.turns; ++turn) {
    const std::vector<TokenId> prompt = conversations.NextPrompt();
    const auto chain = ChainFullBlocks(ChainRoot(kKind.name, ""),
                                       std::span(prompt).first(prompt.size() - 1), kBlockTokens);
    held.Clear();
    std::vector<WorkerSnapshot> fleet;
    for (WorkerId id = 0; id < workers.size(); ++id) {
      workers[id]->Work(load.arrival_s);
      fleet.push_back(workers[id]->Snapshot());
      if (knowledge == Knowledge::kOracle) held.RaiseMemory(id, workers[id]->CachedTokens(chain));
    }
    fleet.push_back(decode);
    PromptChain names(kKind, "", prompt);
    if (knowledge == Knowledge::kIndex) index.Find(names, &held);
    PlacementRequest request;
    request.prompt_tokens = static_cast<int32_t>(prompt.size());
    request.held = held.all();
    const Placement placement = Place(fleet, request);
    const auto* placed = std::get_if<Placed>(&placement);
    if (placed == nullptr || !placed->prefill) {
      ADD_FAILURE() << "no prefill worker";
      return hits;
    }
    const int32_t cached = workers[*placed->prefill]->Prefill(chain, request.prompt_tokens,
                                                              static_cast<uint64_t>(turn) + 1);
    hits.prompt_tokens += request.prompt_tokens;
    hits.cached_tokens += cached;
    conversations.Answer();
    for (size_t id = 0; id < workers.size(); ++id) {
      if ((static_cast<size_t>(turn) + id) % static_cast<size_t>(load.told_every) == 0) {
        workers[id]->Tell();
      }
    }
  }
  return hits;
}

void ExpectNearlyTheOracle(const Load& load, uint32_t seed) {
  const double oracle = Run(load, Knowledge::kOracle, seed).rate();
  const double index = Run(load, Knowledge::kIndex, seed).rate();
  const double nothing = Run(load, Knowledge::kNothing, seed).rate();
  std::printf("seed %u: hit rate %.3f, oracle %.3f (%.1f%% of it), by load alone %.3f\n", seed,
              index, oracle, 100 * index / oracle, nothing);
  EXPECT_GE(index, 0.95 * oracle) << "seed " << seed;
  EXPECT_GT(oracle, nothing + 0.1) << "knowledge must matter here, seed " << seed;
}

TEST(HitRateTest, WhatWorkersTellIsNearlyAsGoodAsLookingIntoTheirCaches) {
  for (const uint32_t seed : {1u, 2u, 3u}) ExpectNearlyTheOracle({}, seed);
}

TEST(HitRateTest, AlsoWhenCachesAreSmallAndForgetMuch) {
  for (const uint32_t seed : {4u, 5u}) ExpectNearlyTheOracle({.blocks = 700}, seed);
}

TEST(HitRateTest, AlsoWhenOnlyEveryEighthBlockIsTold) {
  for (const uint32_t seed : {6u, 7u}) ExpectNearlyTheOracle({.told_blocks = 100'000}, seed);
}

TEST(HitRateTest, AlsoWhenTheFleetIsBusy) {
  for (const uint32_t seed : {8u, 9u}) ExpectNearlyTheOracle({.arrival_s = 0.005}, seed);
}

}  // namespace
}  // namespace baton::router
