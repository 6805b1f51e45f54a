#include "bench/load_prompt.h"

#include <fmt/format.h>

#include <array>
#include <iterator>

#include "bench/report.h"

namespace baton::bench {
namespace {

constexpr std::array<std::string_view, 64> kWords = {
    "the",  "of",   "and",   "to",    "in",    "is",    "that",  "for",  "it",  "as",   "was",
    "with", "be",   "by",    "on",    "not",   "he",    "his",   "but",  "at",  "are",  "this",
    "have", "from", "or",    "had",   "an",    "they",  "which", "one",  "you", "were", "her",
    "all",  "she",  "there", "would", "their", "we",    "him",   "been", "has", "when", "who",
    "will", "more", "no",    "if",    "out",   "so",    "said",  "what", "up",  "its",  "about",
    "into", "than", "them",  "can",   "only",  "other", "new",   "some", "time"};

// SplitMix64: its outputs for consecutive states are unrelated.
uint64_t Next(uint64_t* state) {
  uint64_t z = (*state += 0x9E3779B97F4A7C15);
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
  return z ^ (z >> 31);
}

std::string Tail(const BodyOptions& options) {
  std::string tail;
  if (!options.model.empty()) tail += R"(,"model":)" + JsonString(options.model);
  fmt::format_to(std::back_inserter(tail), R"(,"max_tokens":{},"temperature":0)",
                 options.output_tokens);
  if (options.ignore_eos) tail += R"(,"ignore_eos":true)";
  if (options.stream) tail += R"(,"stream":true)";
  if (options.stream && options.usage) tail += R"(,"stream_options":{"include_usage":true})";
  return tail + "}";
}

}  // namespace

std::string WordText(uint64_t seed, int64_t words) {
  std::string text;
  text.reserve(static_cast<size_t>(words) * 5);
  uint64_t state = seed;
  uint64_t bits = 0;
  for (int64_t i = 0; i < words; ++i) {
    if (i % 10 == 0) bits = Next(&state);
    if (i > 0) text += ' ';
    text += kWords[bits % kWords.size()];
    bits /= kWords.size();
  }
  return text;
}

std::string ChatBody(std::string_view text, const BodyOptions& options) {
  return R"({"messages":[{"role":"user","content":)" + JsonString(std::string(text)) + "}]" +
         Tail(options);
}

std::string CompletionBody(std::string_view text, const BodyOptions& options) {
  return R"({"prompt":)" + JsonString(std::string(text)) + Tail(options);
}

std::string CompletionBody(std::span<const TokenId> prompt, const BodyOptions& options) {
  return fmt::format(R"({{"prompt":[{}])", fmt::join(prompt, ",")) + Tail(options);
}

}  // namespace baton::bench
