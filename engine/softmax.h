#pragma once

// Softmax over a vocabulary. Only IEEE additions, multiplications, divisions and comparisons in a
// fixed order, so that every machine gets the same bits; the C library's exponential would not.

#include <cstdint>
#include <span>
#include <vector>

namespace baton::engine {

// Sums go by blocks of so many weights, which are added in order, so that a GPU sums them side by
// side and gets the same.
inline constexpr size_t kSoftmaxBlock = 2048;

struct BestLogit {
  float value = 0;    // minus infinity when nothing is above it
  int32_t index = 0;  // the first that has it
};

// NaN is passed over.
BestLogit FindBest(std::span<const float> logits);

// weights[i] = exp((logits[i] - best) / temperature), with a relative error below 1e-6; 0 where
// that is below e^-87, and for NaN. Returns their sum; block_sums get those of the blocks. best: at
// least every logit, and finite.
double SoftmaxWeights(std::span<const float> logits, float best, float temperature,
                      std::span<float> weights, std::vector<double>* block_sums = nullptr);

}  // namespace baton::engine
