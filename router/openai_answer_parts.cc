#include "router/openai_answer_parts.h"

#include <algorithm>

#include "router/json_text.h"

namespace baton::router {
namespace {

void Comma(std::string* out) {
  if (!out->empty() && out->back() != '[' && out->back() != '{') out->push_back(',');
}

void AppendBytes(std::string_view text, std::string* out) {
  out->append(R"(,"bytes":[)");
  for (const char c : text) {
    Comma(out);
    AppendJsonInt(static_cast<unsigned char>(c), out);
  }
  out->push_back(']');
}

void AppendTokenLogprob(std::string_view text, float logprob, std::string* out) {
  out->append(R"({"token":)");
  AppendJsonString(text, out);
  out->append(R"(,"logprob":)");
  AppendJsonNumber(logprob, out);
  AppendBytes(text, out);
}

// A token's name in the legacy form, as a JSON string.
void AppendLegacyToken(std::string_view text, std::string* out) {
  if (IsUtf8(text)) {
    AppendJsonString(text, out);
    return;
  }
  constexpr char kHex[] = "0123456789abcdef";
  out->append("\"bytes:");
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    const char escape[] = {'\\', '\\', 'x', kHex[byte >> 4], kHex[byte & 15]};
    out->append(escape, sizeof(escape));
  }
  out->push_back('"');
}

void AppendLegacyEntry(std::string_view text, float logprob, std::string* out) {
  Comma(out);
  AppendLegacyToken(text, out);
  out->push_back(':');
  AppendJsonNumber(logprob, out);
}

int64_t Characters(std::string_view text) {
  return std::count_if(text.begin(), text.end(),
                       [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
}

void AppendField(std::string_view name, int64_t value, std::string* out) {
  Comma(out);
  out->push_back('"');
  out->append(name);
  out->append("\":");
  AppendJsonInt(value, out);
}

void AppendField(std::string_view name, double value, std::string* out) {
  Comma(out);
  out->push_back('"');
  out->append(name);
  out->append("\":");
  AppendJsonNumber(value, out);
}

void AppendField(std::string_view name, std::string_view value, std::string* out) {
  Comma(out);
  out->push_back('"');
  out->append(name);
  out->append("\":");
  AppendJsonString(value, out);
}

void AppendStatsFields(const RequestStats& stats, std::string* out) {
  AppendField("request_id", stats.request_id, out);
  AppendField("prefill_worker", stats.prefill_worker, out);
  AppendField("decode_worker", stats.decode_worker, out);
  AppendField("transport", stats.transport, out);
  AppendField("kv_blocks_moved", int64_t{stats.kv_blocks_moved}, out);
  AppendField("kv_bytes_moved", stats.kv_bytes_moved, out);
  AppendField("cached_prompt_tokens", int64_t{stats.cached_prompt_tokens}, out);
  AppendField("ttft_s", stats.ttft_s, out);
  AppendField("mean_itl_s", stats.mean_itl_s, out);
  AppendField("total_s", stats.total_s, out);
  AppendField("handover_s", stats.handover_s, out);
  AppendField("migrations", int64_t{stats.migrations}, out);
}

}  // namespace

std::string_view FinishName(FinishReason reason) {
  return reason == FinishReason::kStop ? "stop" : "length";
}

void AppendTokenIds(std::span<const TokenId> tokens, std::string* out) {
  out->push_back('[');
  for (const TokenId token : tokens) {
    Comma(out);
    AppendJsonInt(token, out);
  }
  out->push_back(']');
}

void AppendTokenIds(std::span<const TokenDetail> tokens, std::string* out) {
  out->push_back('[');
  for (const TokenDetail& detail : tokens) {
    Comma(out);
    AppendJsonInt(detail.token, out);
  }
  out->push_back(']');
}

void AppendChatLogprobs(std::span<const TokenDetail> tokens, std::string* out) {
  for (const TokenDetail& detail : tokens) {
    Comma(out);
    AppendTokenLogprob(detail.text, detail.logprob, out);
    out->append(R"(,"top_logprobs":[)");
    for (const TokenLogprobText& top : detail.top) {
      Comma(out);
      AppendTokenLogprob(top.text, top.logprob, out);
      out->push_back('}');
    }
    out->append("]}");
  }
}

void LegacyLogprobs::Add(std::span<const TokenDetail> details, int64_t* offset) {
  for (const TokenDetail& detail : details) {
    Comma(&tokens);
    AppendLegacyToken(detail.text, &tokens);
    Comma(&token_logprobs);
    AppendJsonNumber(detail.logprob, &token_logprobs);
    Comma(&text_offset);
    AppendJsonInt(*offset, &text_offset);
    *offset += Characters(detail.text);

    Comma(&top_logprobs);
    top_logprobs.push_back('{');
    bool chosen_is_among = false;
    for (const TokenLogprobText& top : detail.top) {
      AppendLegacyEntry(top.text, top.logprob, &top_logprobs);
      chosen_is_among |= top.token == detail.token;
    }
    if (!chosen_is_among) AppendLegacyEntry(detail.text, detail.logprob, &top_logprobs);
    top_logprobs.push_back('}');
  }
}

void LegacyLogprobs::AddPrompt(const Delta& delta, int64_t* offset) {
  std::span<const TokenDetail> details = delta.prompt;
  if (delta.prompt_index == 0) {
    AppendLegacyToken(details.front().text, &tokens);
    token_logprobs += "null";
    top_logprobs += "null";
    AppendJsonInt(*offset, &text_offset);
    *offset += Characters(details.front().text);
    details = details.subspan(1);
  }
  Add(details, offset);
}

void LegacyLogprobs::AppendTo(std::string* out) const {
  out->append(R"({"tokens":[)").append(tokens);
  out->append(R"(],"token_logprobs":[)").append(token_logprobs);
  out->append(R"(],"top_logprobs":[)").append(top_logprobs);
  out->append(R"(],"text_offset":[)").append(text_offset);
  out->append("]}");
}

void AppendPromptLogprobs(const Delta& delta, std::string* out) {
  const auto append = [out](TokenId token, std::string_view text, float logprob, int64_t rank) {
    Comma(out);
    out->push_back('"');
    AppendJsonInt(token, out);
    out->append(R"(":{"logprob":)");
    AppendJsonNumber(logprob, out);
    AppendField("rank", rank, out);
    AppendField("decoded_token", text, out);
    out->push_back('}');
  };
  for (size_t i = 0; i < delta.prompt.size(); ++i) {
    const TokenDetail& detail = delta.prompt[i];
    if (delta.prompt_index == 0 && i == 0) {
      out->append("null");
      continue;
    }
    out->append(",{");
    append(detail.token, detail.text, detail.logprob, detail.rank);
    for (size_t k = 0; k < detail.top.size(); ++k) {
      const TokenLogprobText& top = detail.top[k];
      if (top.token != detail.token) {
        append(top.token, top.text, top.logprob, static_cast<int64_t>(k) + 1);
      }
    }
    out->push_back('}');
  }
}

void AppendUsage(std::span<const Finish> finishes, int32_t choices_per_prompt, std::string* out) {
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;
  int64_t output_tokens = 0;
  for (size_t i = 0; i < finishes.size(); ++i) {
    output_tokens += finishes[i].output_tokens;
    if (i % static_cast<size_t>(choices_per_prompt) != 0) continue;
    prompt_tokens += finishes[i].prompt_tokens;
    cached_tokens += finishes[i].stats.cached_prompt_tokens;
  }
  out->append(R"("usage":{)");
  AppendField("prompt_tokens", prompt_tokens, out);
  AppendField("completion_tokens", output_tokens, out);
  AppendField("total_tokens", prompt_tokens + output_tokens, out);
  out->append(R"(,"prompt_tokens_details":{)");
  AppendField("cached_tokens", cached_tokens, out);
  out->append("}}");
}

void AppendStats(std::span<const Finish> finishes, std::string* out) {
  out->append(R"("baton":{)");
  AppendStatsFields(finishes.front().stats, out);
  if (finishes.size() > 1) {
    out->append(R"(,"choices":[)");
    for (const Finish& finish : finishes) {
      Comma(out);
      out->push_back('{');
      AppendStatsFields(finish.stats, out);
      out->push_back('}');
    }
    out->push_back(']');
  }
  out->push_back('}');
}

}  // namespace baton::router
