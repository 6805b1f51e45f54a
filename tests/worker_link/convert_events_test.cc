#include "worker_link/convert.h"

#include <gtest/gtest.h>

#include <cmath>

namespace baton::worker_link {
namespace {

using std::chrono::milliseconds;

constexpr Attempt kAttempt{.request = {.high = 0xfedcba9876543210, .low = 7}, .epoch = 3};

TEST(ConvertInfo, KeepsEveryFieldAndChecksProtocolAndRole) {
  const WorkerInfo sent{.name = "prefill-1",
                        .role = Role::kPrefill,
                        .model = "m",
                        .fingerprint = "f",
                        .kv_layout = "blocks of 8",
                        .vocab_size = 10,
                        .context_tokens = 20,
                        .block_tokens = 16,
                        .handoff_address = std::string("\xff\x00", 2),
                        .incarnation = 0x8000000000000001,
                        .kv_bytes_per_token = 23040,
                        .max_sequences = 64};
  v1::WorkerHello wire;
  ToWire(sent, &wire);
  const absl::StatusOr<WorkerInfo> got = FromWire(wire);
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_EQ(got->name, sent.name);
  EXPECT_EQ(got->role, sent.role);
  EXPECT_EQ(got->model, sent.model);
  EXPECT_EQ(got->fingerprint, sent.fingerprint);
  EXPECT_EQ(got->kv_layout, sent.kv_layout);
  EXPECT_EQ(got->vocab_size, sent.vocab_size);
  EXPECT_EQ(got->context_tokens, sent.context_tokens);
  EXPECT_EQ(got->block_tokens, sent.block_tokens);
  EXPECT_EQ(got->handoff_address, sent.handoff_address);
  EXPECT_EQ(got->incarnation, sent.incarnation);
  EXPECT_EQ(got->kv_bytes_per_token, sent.kv_bytes_per_token);
  EXPECT_EQ(got->max_sequences, sent.max_sequences);

  v1::WorkerHello other = wire;
  other.set_protocol(kProtocol + 1);
  EXPECT_EQ(FromWire(other).status().code(), absl::StatusCode::kFailedPrecondition);
  other = wire;
  other.set_role("cook");
  EXPECT_NE(FromWire(other).status().ToString().find("'cook'"), std::string::npos);
  other = wire;
  other.set_vocab_size(0);
  EXPECT_FALSE(FromWire(other).ok());
}

TEST(ConvertEvents, KeepEveryFieldAndPutEndingsLast) {
  TokensEvent tokens{.attempt = kAttempt, .tokens = {}};
  tokens.tokens.push_back(
      {.token = 8, .position = 5, .logprob = -0.5f, .top = {{8, -0.5f}, {9, -1}}});
  tokens.tokens.push_back({.token = 9, .position = 6, .logprob = -2.5f, .top = {{7, -0.1f}}});
  FinishedEvent finished;
  finished.attempt = kAttempt;
  finished.reason = FinishReason::kLength;
  finished.output_tokens = 7;
  finished.cached_prompt_tokens = 16;
  finished.transport = "shm";
  finished.kv_blocks_moved = 3;
  finished.kv_bytes_moved = int64_t{1} << 40;
  finished.handoff = milliseconds(250);
  finished.handoff_moving = milliseconds(175);
  finished.handover = milliseconds(25);
  finished.handoff_exposed = milliseconds(125);
  finished.queue = milliseconds(50);
  finished.steps = 6;
  finished.preemptions = 2;
  tokens.prefill = PrefillTimes{.cached_prompt_tokens = 32,
                                .chunks = 3,
                                .queue = milliseconds(500),
                                .fetch = milliseconds(250),
                                .first_chunk = milliseconds(125),
                                .compute = milliseconds(1500)};
  PrefilledEvent prefilled{.attempt = kAttempt};
  FailedEvent failed{kAttempt, absl::DataLossError("block 3")};

  v1::WireEvents wire;
  for (const Event& event : {Event(finished), Event(failed), Event(prefilled), Event(tokens)}) {
    AppendEvent(event, &wire);
  }
  const auto got = FromWire(wire);
  ASSERT_TRUE(got.ok()) << got.status();
  ASSERT_EQ(got->size(), 4u);
  const auto& t = std::get<TokensEvent>((*got)[0]);
  EXPECT_EQ(t.attempt, kAttempt);
  ASSERT_EQ(t.tokens.size(), 2u);
  EXPECT_EQ(t.tokens[1].token, 9);
  EXPECT_EQ(t.tokens[1].position, 6);
  EXPECT_EQ(t.tokens[1].logprob, -2.5f);
  ASSERT_EQ(t.tokens[0].top.size(), 2u);
  EXPECT_EQ(t.tokens[0].top[1].token, 9);
  EXPECT_EQ(t.tokens[0].top[1].logprob, -1);
  EXPECT_EQ(t.prefill, tokens.prefill);
  EXPECT_EQ(std::get<PrefilledEvent>((*got)[1]).attempt, kAttempt);
  const auto& f = std::get<FinishedEvent>((*got)[2]);
  EXPECT_EQ(f.reason, FinishReason::kLength);
  EXPECT_EQ(f.output_tokens, 7);
  EXPECT_EQ(f.cached_prompt_tokens, 16);
  EXPECT_EQ(f.transport, "shm");
  EXPECT_EQ(f.kv_blocks_moved, 3);
  EXPECT_EQ(f.kv_bytes_moved, int64_t{1} << 40);
  EXPECT_EQ(f.handoff, milliseconds(250));
  EXPECT_EQ(f.handoff_moving, milliseconds(175));
  EXPECT_EQ(f.handover, milliseconds(25));
  EXPECT_EQ(f.handoff_exposed, milliseconds(125));
  EXPECT_EQ(f.queue, milliseconds(50));
  EXPECT_EQ(f.steps, 6);
  EXPECT_EQ(f.preemptions, 2);
  EXPECT_EQ(std::get<FailedEvent>((*got)[3]).status, absl::DataLossError("block 3"));
}

TEST(ConvertEvents, TokensWithoutLogprobsCarryNone) {
  TokensEvent tokens{.attempt = kAttempt, .tokens = {}};
  tokens.tokens.resize(1);
  v1::WireEvents wire;
  AppendEvent(tokens, &wire);
  EXPECT_EQ(wire.tokens(0).logprobs_size(), 0);
  EXPECT_EQ(wire.tokens(0).top_size(), 0);
}

TEST(ConvertEvents, RefusesWhatIsUnsound) {
  const auto refused = [](const v1::WireEvents& wire) {
    return FromWire(wire).status().code() == absl::StatusCode::kInvalidArgument;
  };
  v1::WireEvents wire;
  wire.add_tokens()->set_first_position(-1);
  EXPECT_TRUE(refused(wire)) << "negative position";
  wire.Clear();
  wire.add_tokens()->add_tokens(-4);
  EXPECT_TRUE(refused(wire)) << "negative token";
  wire.Clear();
  wire.add_tokens()->add_logprobs(1);
  EXPECT_TRUE(refused(wire)) << "a logprob without a token";
  wire.Clear();
  wire.add_finished()->set_reason(3);
  EXPECT_TRUE(refused(wire)) << "reason";
  wire.Clear();
  wire.add_failed()->set_code(0);
  EXPECT_TRUE(refused(wire)) << "a failure that is OK";
  wire.Clear();
  wire.add_failed()->set_code(17);
  EXPECT_TRUE(refused(wire)) << "code";
  wire.Clear();
  wire.add_tokens()->mutable_prefill()->set_queue_s(std::nan(""));
  EXPECT_TRUE(refused(wire)) << "seconds";
  wire.Clear();
  wire.add_tokens()->mutable_prefill()->set_chunks(-1);
  EXPECT_TRUE(refused(wire)) << "chunks";
  wire.Clear();
  wire.add_finished()->set_reason(1);
  EXPECT_FALSE(refused(wire));
  wire.mutable_finished(0)->set_steps(-1);
  EXPECT_TRUE(refused(wire)) << "steps";
}

TEST(ConvertEvents, CutsAndCleansErrorTexts) {
  v1::WireEvents wire;
  AppendEvent(FailedEvent{kAttempt, absl::InternalError(std::string(kMaxErrorBytes * 2, '\xff'))},
              &wire);
  ASSERT_TRUE(wire.SerializeAsString().size() < kMaxErrorBytes + 100);
  v1::WireEvents parsed;
  ASSERT_TRUE(parsed.ParseFromString(wire.SerializeAsString())) << "valid UTF-8";
  EXPECT_TRUE(FromWire(parsed).ok());
}

TEST(ConvertPromptScores, KeepEveryFieldAndAreChecked) {
  PromptScoresEvent sent{
      .attempt = kAttempt,
      .scores = {{3, 11, -0.5f, 2, {{9, -0.1f}, {11, -0.5f}}}, {4, 12, -2.f, 7, {}}}};
  v1::WireEvents wire;
  AppendEvent(TokensEvent{.attempt = kAttempt, .tokens = {{.token = 5}}}, &wire);
  AppendEvent(sent, &wire);
  const auto events = FromWire(wire);
  ASSERT_TRUE(events.ok()) << events.status();
  ASSERT_EQ(events->size(), 2u);
  const auto* got = std::get_if<PromptScoresEvent>(&(*events)[0]);  // before the tokens
  ASSERT_NE(got, nullptr);
  EXPECT_EQ(got->attempt, kAttempt);
  ASSERT_EQ(got->scores.size(), 2u);
  EXPECT_EQ(got->scores[0].position, 3);
  EXPECT_EQ(got->scores[0].token, 11);
  EXPECT_EQ(got->scores[0].logprob, -0.5f);
  EXPECT_EQ(got->scores[0].rank, 2);
  EXPECT_EQ(got->scores[0].top.size(), 2u);
  EXPECT_EQ(got->scores[1].position, 4);
  EXPECT_TRUE(got->scores[1].top.empty());

  v1::WirePromptScores& scores = *wire.mutable_prompt_scores(0);
  scores.add_ranks(1);
  EXPECT_FALSE(FromWire(wire).ok());
  scores.mutable_ranks()->RemoveLast();
  scores.set_first_position(0);
  EXPECT_FALSE(FromWire(wire).ok());
  scores.set_first_position(INT32_MAX);
  EXPECT_FALSE(FromWire(wire).ok());
}

}  // namespace
}  // namespace baton::worker_link
