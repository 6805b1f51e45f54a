#include "engine/watermark.h"

#include <cmath>

namespace baton::engine {
namespace {

constexpr uint64_t kHashKey = 15485863;  // TGI's

// The last step of SplitMix64 (Steele et al., OOPSLA 2014).
uint64_t Mixed(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
  return x ^ (x >> 31);
}

uint64_t SeedAfter(TokenId previous) {
  return Mixed(kHashKey * (static_cast<uint64_t>(static_cast<uint32_t>(previous)) + 1));
}

bool IsIn(uint64_t seed, TokenId token) {
  return (Mixed(seed + 0x9E3779B97F4A7C15 * (static_cast<uint64_t>(token) + 1)) & 1) != 0;
}

}  // namespace

bool IsWatermarked(TokenId previous, TokenId token) { return IsIn(SeedAfter(previous), token); }

void ApplyWatermark(TokenId previous, std::span<float> logits) {
  const uint64_t seed = SeedAfter(previous);
  for (size_t token = 0; token < logits.size(); ++token) {
    if (IsIn(seed, static_cast<TokenId>(token))) logits[token] += kWatermarkDelta;
  }
}

double WatermarkScore(std::span<const TokenId> tokens) {
  if (tokens.size() < 2) return 0;
  double marked = 0;
  for (size_t i = 1; i < tokens.size(); ++i) marked += IsWatermarked(tokens[i - 1], tokens[i]);
  const auto pairs = static_cast<double>(tokens.size() - 1);
  return (marked - pairs / 2) / std::sqrt(pairs / 4);
}

}  // namespace baton::engine
