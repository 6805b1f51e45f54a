#include "engine/softmax.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "common/status_macros.h"

namespace baton::engine {
namespace {

constexpr float kLowest = -std::numeric_limits<float>::infinity();

// Four lanes on every machine, for the order of the sum.
constexpr size_t kLanes = 4;
using Floats = float __attribute__((vector_size(4 * kLanes)));
using Ints = int32_t __attribute__((vector_size(4 * kLanes)));

// f(index, lanes) for all values in order, kLanes at a time; past the end they are minus infinity.
template <typename F>
inline void ForEachLanes(std::span<const float> values, F f) {
  Floats lanes;
  size_t index = 0;
  for (; index + kLanes <= values.size(); index += kLanes) {
    std::memcpy(&lanes, &values[index], sizeof lanes);
    f(index, lanes);
  }
  if (index == values.size()) return;
  lanes = Floats{} + kLowest;
  std::memcpy(&lanes, &values[index], (values.size() - index) * sizeof(float));
  f(index, lanes);
}

// e^x for x <= 0.
inline Floats Exp(Floats x) {
  const Ints in_range = x > -87.0f;  // false for NaN
  x = in_range ? x : Floats{};
  constexpr float kRoundToInteger = 0x1.8p23f;
  const Floats n = (x * 1.44269504f + kRoundToInteger) - kRoundToInteger;
  const Floats r = (x - n * 0.693359375f) - n * -2.12194440e-4f;  // |r| <= ln(2) / 2
  Floats sum = Floats{} + 1.0f / 5040;                            // Taylor, to r^7 / 7!
  for (const float term : {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f}) {
    sum = sum * r + term;
  }
  const Ints exponent = (__builtin_convertvector(n, Ints) + 127) << 23;
  Floats power;  // 2^n
  std::memcpy(&power, &exponent, sizeof power);
  return in_range ? sum * power : Floats{};
}

}  // namespace

BestLogit FindBest(std::span<const float> logits) {
  Floats best = Floats{} + kLowest;
  ForEachLanes(logits, [&](size_t, Floats lanes) { best = lanes > best ? lanes : best; });
  BestLogit result{best[0], 0};
  for (size_t lane = 1; lane < kLanes; ++lane) result.value = std::max(result.value, best[lane]);
  if (result.value > kLowest) {
    result.index = static_cast<int32_t>(std::ranges::find(logits, result.value) - logits.begin());
  }
  return result;
}

double SoftmaxWeights(std::span<const float> logits, float best, float temperature,
                      std::span<float> weights, std::vector<double>* block_sums) {
  BATON_CHECK(weights.size() >= logits.size(), "there is room for the weights");
  if (block_sums != nullptr) block_sums->clear();
  double total = 0;
  for (size_t begin = 0; begin < logits.size(); begin += kSoftmaxBlock) {
    const auto block = logits.subspan(begin, std::min(kSoftmaxBlock, logits.size() - begin));
    double sums[kLanes] = {};
    ForEachLanes(block, [&](size_t index, Floats lanes) {
      lanes = Exp((lanes - best) / temperature);
      for (size_t lane = 0; lane < kLanes; ++lane) sums[lane] += lanes[lane];
      const size_t count = std::min(kLanes, block.size() - index);
      std::memcpy(&weights[begin + index], &lanes, count * sizeof(float));
    });
    const double sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    if (block_sums != nullptr) block_sums->push_back(sum);
    total += sum;
  }
  return total;
}

}  // namespace baton::engine
