#pragma once

// A watermark in sampled text: which half of the vocabulary a token should come from is a function
// of the token before it, and the logits of that half are raised (Kirchenbauer et al., "A Watermark
// for Large Language Models", ICML 2023; with TGI's gamma 0.5 and delta 2). Text without it has
// half of its tokens there, text with it clearly more, which whoever has the tokens can count.

#include <cstdint>
#include <span>

#include "common/ids.h"

namespace baton::engine {

inline constexpr float kWatermarkDelta = 2.0f;

// Whether `token` belongs to the half that follows `previous`.
bool IsWatermarked(TokenId previous, TokenId token);

// Raises the logits of that half.
void ApplyWatermark(TokenId previous, std::span<float> logits);

// How many standard deviations more tokens than half are where the watermark puts them. About 0
// without a watermark; above 4 is no accident. 0 for fewer than two tokens.
double WatermarkScore(std::span<const TokenId> tokens);

}  // namespace baton::engine
