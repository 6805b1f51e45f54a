#include "worker_link/convert.h"

#include <gtest/gtest.h>

#include <limits>

namespace baton::worker_link {
namespace {

using std::chrono::milliseconds;

constexpr Attempt kAttempt{.request = {.high = 0xfedcba9876543210, .low = 7}, .epoch = 3};

DecodeCommand SomeDecode() {
  DecodeCommand command;
  command.attempt = kAttempt;
  command.prompt = {1, 2, 49151};
  command.sampling.temperature = 0.5f;
  command.sampling.top_k = 40;
  command.sampling.top_p = 0.9f;
  command.sampling.min_p = 0.05f;
  command.sampling.repetition_penalty = 1.1f;
  command.sampling.presence_penalty = -0.5f;
  command.sampling.frequency_penalty = 0.25f;
  command.sampling.logit_bias = {{5, -100.0f}, {6, 3.5f}};
  command.sampling.seed = 0xffffffffffffffff;
  command.sampling.max_tokens = 99;
  command.sampling.min_tokens = 2;
  command.sampling.stop_token_ids = {0, 2};
  command.sampling.bad_words = {{7}, {8, 9, 10}};
  command.sampling.ignore_eos = true;
  command.sampling.logprobs = 5;
  command.sampling.watermark = true;
  command.sampling.constraint = R"({"regex":"a+"})";
  command.cache_salt = "tenant";
  command.handoff = true;
  command.timeout = milliseconds(1500);
  return command;
}

v1::RouterMessage WireOf(const Command& command) {
  v1::RouterMessage wire;
  ToWire(command, &wire);
  return wire;
}

TEST(ConvertCommands, DecodeKeepsEveryField) {
  const DecodeCommand sent = SomeDecode();
  const absl::StatusOr<Command> got = CommandFromWire(WireOf(sent));
  ASSERT_TRUE(got.ok()) << got.status();
  const auto& decode = std::get<DecodeCommand>(*got);
  EXPECT_EQ(decode.attempt, sent.attempt);
  EXPECT_EQ(decode.prompt, sent.prompt);
  EXPECT_EQ(decode.cache_salt, sent.cache_salt);
  EXPECT_EQ(decode.handoff, sent.handoff);
  EXPECT_EQ(decode.output_tokens, sent.output_tokens);
  EXPECT_EQ(decode.timeout, sent.timeout);
  const SamplingParams& a = decode.sampling;
  const SamplingParams& b = sent.sampling;
  EXPECT_EQ(a.temperature, b.temperature);
  EXPECT_EQ(a.top_k, b.top_k);
  EXPECT_EQ(a.top_p, b.top_p);
  EXPECT_EQ(a.min_p, b.min_p);
  EXPECT_EQ(a.repetition_penalty, b.repetition_penalty);
  EXPECT_EQ(a.presence_penalty, b.presence_penalty);
  EXPECT_EQ(a.frequency_penalty, b.frequency_penalty);
  EXPECT_EQ(a.logit_bias, b.logit_bias);
  EXPECT_EQ(a.seed, b.seed);
  EXPECT_EQ(a.max_tokens, b.max_tokens);
  EXPECT_EQ(a.min_tokens, b.min_tokens);
  EXPECT_EQ(a.stop_token_ids, b.stop_token_ids);
  EXPECT_EQ(a.bad_words, b.bad_words);
  EXPECT_EQ(a.ignore_eos, b.ignore_eos);
  EXPECT_EQ(a.logprobs, b.logprobs);
  EXPECT_EQ(a.watermark, b.watermark);
  EXPECT_EQ(a.constraint, b.constraint);
}

TEST(ConvertCommands, AllowedTokensAndBadWords) {
  DecodeCommand sent = SomeDecode();
  sent.sampling.constraint.clear();
  sent.sampling.allowed_token_ids = {5, 0, 49151};
  v1::RouterMessage wire = WireOf(sent);
  const absl::StatusOr<Command> got = CommandFromWire(wire);
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_EQ(std::get<DecodeCommand>(*got).sampling.allowed_token_ids,
            sent.sampling.allowed_token_ids);
  for (const int32_t length : {0, -1, 4, INT32_MAX, 2}) {  // of the last word's three tokens
    wire.mutable_decode()->mutable_sampling()->set_bad_word_lengths(1, length);
    EXPECT_EQ(CommandFromWire(wire).status().code(), absl::StatusCode::kInvalidArgument) << length;
  }
}

TEST(ConvertCommands, EveryKindKeepsItsFields) {
  PrefillCommand prefill;
  prefill.attempt = kAttempt;
  prefill.prompt = {4};
  prefill.target_address = std::string("\x00\xff\x80", 3);  // bytes, not text
  prefill.target_name = "decode-0";
  prefill.timeout = std::chrono::nanoseconds(1);
  prefill.prompt = {4, 5, 6};
  prefill.prefix_tokens = 2;
  prefill.output_tokens = 1;
  prefill.traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  const absl::StatusOr<Command> got = CommandFromWire(WireOf(prefill));
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_EQ(std::get<PrefillCommand>(*got).target_address, prefill.target_address);
  EXPECT_EQ(std::get<PrefillCommand>(*got).target_name, "decode-0");
  EXPECT_EQ(std::get<PrefillCommand>(*got).timeout, milliseconds(1)) << "rounded up, never to zero";

  EXPECT_EQ(std::get<PrefillCommand>(*got).prefix_tokens, 2);
  EXPECT_EQ(std::get<PrefillCommand>(*got).output_tokens, 1);
  EXPECT_EQ(std::get<PrefillCommand>(*got).traceparent, prefill.traceparent);
  for (const std::string& unsound : {std::string(56, '0'), std::string("00-\n\x1b[2J")}) {
    PrefillCommand other = prefill;
    other.traceparent = unsound;
    EXPECT_FALSE(CommandFromWire(WireOf(other)).ok()) << "it goes into log lines";
  }

  const ServePrefixCommand serve{.attempt = kAttempt,
                                 .prompt = {4, 5},
                                 .cache_salt = "tenant",
                                 .target_address = prefill.target_address,
                                 .target_name = "prefill-1",
                                 .timeout = milliseconds(1500)};
  const absl::StatusOr<Command> got_serve = CommandFromWire(WireOf(serve));
  ASSERT_TRUE(got_serve.ok()) << got_serve.status();
  const auto& served = std::get<ServePrefixCommand>(*got_serve);
  EXPECT_EQ(served.attempt, serve.attempt);
  EXPECT_EQ(served.prompt, serve.prompt);
  EXPECT_EQ(served.cache_salt, serve.cache_salt);
  EXPECT_EQ(served.target_address, serve.target_address);
  EXPECT_EQ(served.target_name, serve.target_name);
  EXPECT_EQ(served.timeout, serve.timeout);

  for (const Role role : {Role::kPrefill, Role::kDecode}) {
    const absl::StatusOr<Command> got_duty =
        CommandFromWire(WireOf(DutyCommand{role, role == Role::kDecode, milliseconds(2500)}));
    ASSERT_TRUE(got_duty.ok()) << got_duty.status();
    EXPECT_EQ(std::get<DutyCommand>(*got_duty).role, role);
    EXPECT_EQ(std::get<DutyCommand>(*got_duty).takes_work, role == Role::kDecode);
    EXPECT_EQ(std::get<DutyCommand>(*got_duty).grace, milliseconds(2500));
    EXPECT_FALSE(AttemptOf(*got_duty));
  }

  const absl::StatusOr<Command> cancel = CommandFromWire(WireOf(CancelCommand{kAttempt}));
  ASSERT_TRUE(cancel.ok()) << cancel.status();
  EXPECT_EQ(std::get<CancelCommand>(*cancel).attempt, kAttempt);
  const absl::StatusOr<Command> gone = CommandFromWire(WireOf(NoOfferCommand{kAttempt}));
  ASSERT_TRUE(gone.ok()) << gone.status();
  EXPECT_EQ(std::get<NoOfferCommand>(*gone).attempt, kAttempt);
}

TEST(ConvertCommands, APrefixIsShorterThanItsPrompt) {
  PrefillCommand prefill;
  prefill.attempt = kAttempt;
  prefill.prompt = {4, 5, 6};
  for (const int32_t tokens : {-1, 3}) {
    prefill.prefix_tokens = tokens;
    EXPECT_EQ(CommandFromWire(WireOf(prefill)).status().code(), absl::StatusCode::kInvalidArgument)
        << tokens;
  }
}

TEST(ConvertCommands, OutputIsShorterThanThePromptItIsPartOf) {
  DecodeCommand decode = SomeDecode();
  for (const int32_t tokens : {-1, static_cast<int32_t>(decode.prompt.size())}) {
    decode.output_tokens = tokens;
    EXPECT_EQ(CommandFromWire(WireOf(decode)).status().code(), absl::StatusCode::kInvalidArgument)
        << tokens;
  }
}

TEST(ConvertCommands, AnUnknownRoleIsRefused) {
  v1::RouterMessage wire = WireOf(DutyCommand{});
  wire.mutable_duty()->set_role("both");
  EXPECT_EQ(CommandFromWire(wire).status().message(),
            "role is 'both', but must be prefill or decode");
}

TEST(ConvertCommands, RefusesWhatIsUnsound) {
  const v1::RouterMessage sound = WireOf(SomeDecode());
  ASSERT_TRUE(CommandFromWire(sound).ok());
  struct Case {
    const char* name;
    void (*damage)(v1::WireDecode*);
    const char* text;
  };
  const Case cases[] = {
      {"no prompt", [](v1::WireDecode* w) { w->clear_prompt(); }, "prompt is empty"},
      {"long prompt",
       [](v1::WireDecode* w) { w->mutable_prompt()->Resize(kMaxPromptTokens + 1, 0); },
       "4194305 tokens"},
      {"long salt",
       [](v1::WireDecode* w) { w->set_cache_salt(std::string(kMaxSaltBytes + 1, 'x')); },
       "1025 bytes"},
      {"odd bias", [](v1::WireDecode* w) { w->mutable_sampling()->add_bias_tokens(1); },
       "3 tokens but 2 values"},
      {"temperature",
       [](v1::WireDecode* w) {
         w->mutable_sampling()->set_temperature(std::numeric_limits<float>::quiet_NaN());
       },
       "temperature is nan"},
      {"max_tokens", [](v1::WireDecode* w) { w->mutable_sampling()->set_max_tokens(0); },
       "max_tokens is 0"},
      {"negative timeout", [](v1::WireDecode* w) { w->set_timeout_ms(-1); }, "timeout_ms is -1"},
      {"endless timeout", [](v1::WireDecode* w) { w->set_timeout_ms(INT64_MAX); }, "timeout_ms"},
  };
  for (const Case& one : cases) {
    v1::RouterMessage wire = sound;
    one.damage(wire.mutable_decode());
    const absl::StatusOr<Command> got = CommandFromWire(wire);
    EXPECT_EQ(got.status().code(), absl::StatusCode::kInvalidArgument) << one.name;
    EXPECT_NE(got.status().ToString().find(one.text), std::string::npos)
        << one.name << ": " << got.status();
  }
  EXPECT_FALSE(CommandFromWire(v1::RouterMessage()).ok());
}

}  // namespace
}  // namespace baton::worker_link
