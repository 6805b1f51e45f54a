#include "engine/kv_mirror.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "engine/executor.h"
#include "engine/local_engine.h"
#include "tests/engine/engine_testing.h"
#include "tests/engine/tiny_model.h"

namespace baton::engine {
namespace {

TEST(KvMirror, CopiesBlocksAndLayersAndNothingElse) {
  const auto ops = kernels::CreateReferenceOps();
  const kernels::KvLayout layout{3, 1, 8, 8, kernels::KvDType::kF16};
  const auto block = static_cast<size_t>(layout.block_bytes());
  std::vector<std::byte> host(4 * block, std::byte{1});
  auto mirror = KvMirror::Create(ops.get(), layout, host);
  ASSERT_TRUE(mirror.ok()) << mirror.status();
  std::byte* const device = (*mirror)->device_slab();
  const int32_t blocks[] = {2};
  (*mirror)->Upload(blocks);
  for (size_t i = 0; i < host.size(); ++i) {
    ASSERT_EQ(device[i], std::byte(i / block == 2 ? 1 : 0)) << i;
  }
  std::fill_n(device, host.size(), std::byte{7});
  (*mirror)->Download(blocks, 1, 2);
  const auto layer = static_cast<size_t>(layout.layer_bytes());
  for (size_t i = 0; i < host.size(); ++i) {
    ASSERT_EQ(host[i], std::byte(i / layer == 2 * 3 + 1 ? 7 : 1)) << i;
  }
}

// A prompt is computed by one executor with a mirror, its blocks go from one host's slab to
// another's as a handoff moves them, and another executor with a mirror goes on: what one executor
// over one slab gives.
TEST(KvMirror, HandsOverLikeOneSlab) {
  const auto file = OpenTiny(TinySpec{});
  const auto load = [&](std::vector<std::byte>* slab) {
    LocalEngineOptions options;
    options.reference_ops = true;
    options.kv_dtype = kernels::KvDType::kF32;
    options.block_count = 8;
    if (slab != nullptr) {
      options.mirror_slab = true;
      options.allocate_slab = [slab](int64_t bytes) -> absl::StatusOr<std::span<std::byte>> {
        slab->assign(static_cast<size_t>(bytes), std::byte{0});
        return std::span(*slab);
      };
    }
    auto engine = LocalEngine::Load(*file, options);
    BATON_CHECK(engine.ok(), "a tiny model loads");
    return *std::move(engine);
  };
  std::vector<TokenId> prompt(37);
  for (size_t i = 0; i < prompt.size(); ++i) prompt[i] = static_cast<TokenId>(i * 7 % 300);
  const auto begin = [&](LocalEngine& engine) {
    auto sequence = engine.executor().NewSequence(prompt, GreedyTokens(16), "");
    BATON_CHECK(sequence.ok(), "a prompt that fits");
    engine.executor().TakeCachedPrefix(&*sequence);
    BATON_CHECK(engine.executor().Reserve(&*sequence, sequence->pending()).ok(), "blocks are free");
    return *std::move(sequence);
  };
  const auto finish = [](LocalEngine& engine, Sequence& sequence) {
    std::vector<TokenId> tokens(sequence.output().begin(), sequence.output().end());
    while (tokens.size() < 16) {
      BATON_CHECK(engine.executor().Reserve(&sequence, 1).ok(), "blocks are free");
      const StepRange range{&sequence, sequence.pending()};
      tokens.push_back(engine.executor().Step({&range, 1})[0]->token);
    }
    return tokens;
  };

  const auto alone = load(nullptr);
  Sequence expected = begin(*alone);
  const std::vector<TokenId> expected_tokens = finish(*alone, expected);

  std::vector<std::byte> source_slab, target_slab;
  const auto source = load(&source_slab);
  const auto target = load(&target_slab);
  Sequence at_source = begin(*source);
  Sequence at_target = begin(*target);
  int32_t stored = 0;
  const std::function<void(int32_t)> kv_stored = [&](int32_t layers) { stored = layers; };
  const StepRange range{&at_source, at_source.pending()};
  const TokenId first = source->executor().Step({&range, 1}, &kv_stored)[0]->token;
  EXPECT_EQ(stored, 3);
  const auto bytes = static_cast<size_t>(source->executor().pool().layout().block_bytes());
  for (int32_t i = 0; i < at_source.blocks.size(); ++i) {
    std::memcpy(&target_slab[at_target.blocks.blocks()[i] * bytes],
                &source_slab[at_source.blocks.blocks()[i] * bytes], bytes);
  }
  at_target.computed_tokens = static_cast<int32_t>(at_target.tokens.size());
  target->executor().PublishFullBlocks(&at_target);
  at_target.tokens.push_back(first);
  EXPECT_EQ(finish(*target, at_target), expected_tokens);
  // The block that the target filled is published, and so in its host's slab too.
  ASSERT_EQ(at_target.hashes.size(), 3u);
  EXPECT_EQ(std::memcmp(&target_slab[at_target.blocks.blocks()[2] * bytes],
                        &alone->slab()[expected.blocks.blocks()[2] * bytes], bytes),
            0);
}

}  // namespace
}  // namespace baton::engine
