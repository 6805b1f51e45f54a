#include <cmath>

#include "kernels/cpu/isa_functions.h"
#include "kernels/cpu/simd.h"

namespace baton::kernels::BATON_ISA {

void QuantizeRow(const float* x, int64_t cols, int8_t* quants, float* scales, float* scaled_sums,
                 int32_t* minus_sums, int32_t* minus_half_sums) {
  // Groups below this are zero: 127 / largest would overflow, and they cannot matter.
  constexpr float kSmallest = 1e-30f;
  constexpr int kVectors = kActivationGroup / kLanes;
  for (int64_t g = 0; g < cols / kActivationGroup; ++g) {
    const float* group = x + g * kActivationGroup;
    Floats values[kVectors];
    Ints largest = ZeroInts();
    BATON_UNROLL for (int v = 0; v < kVectors; ++v) {
      values[v] = Load(group + v * kLanes);
      largest = MaxMagnitude(largest, values[v]);
    }
    const float magnitude = ReduceMagnitude(largest);  // NaN or infinity spoil the group
    const bool nonzero = !(magnitude < kSmallest);
    const Floats inverse = Set1(nonzero ? 127 / magnitude : 0);
    int32_t half_sums[2] = {0, 0};
    BATON_UNROLL for (int v = 0; v < kVectors; ++v) {
      half_sums[v * 2 / kVectors] +=
          StoreQuants(quants + g * kActivationGroup + v * kLanes, Mul(values[v], inverse));
    }
    const int32_t sum = half_sums[0] + half_sums[1];
    const float scale = nonzero ? magnitude / 127 : 0;
    scales[g] = scale;
    scaled_sums[g] = scale * static_cast<float>(sum);
    minus_sums[g] = -sum;
    minus_half_sums[2 * g] = -half_sums[0];
    minus_half_sums[2 * g + 1] = -half_sums[1];
  }
}

void RoundRowToBf16(const float* x, int64_t cols, uint16_t* out) {
#if defined(__AVX512BF16__)
  for (int64_t c = 0; c < PaddedBf16(cols); c += kLanes) {
    const int64_t left = cols - c;
    const int count = static_cast<int>(left < 0 ? 0 : left < kLanes ? left : kLanes);
    const __m256i rounded = reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(LoadFirst(x + c, count)));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + c), rounded);
  }
#else
  static_cast<void>(x);
  static_cast<void>(cols);
  static_cast<void>(out);
#endif
}

void RmsNormRow(const float* x, const float* weight, int64_t cols, float epsilon, float* out) {
  constexpr int kSums = 4;
  Floats sums[kSums] = {Zero(), Zero(), Zero(), Zero()};
  int64_t c = 0;
  for (; c + kSums * kLanes <= cols; c += kSums * kLanes) {
    BATON_UNROLL for (int i = 0; i < kSums; ++i) {
      const Floats value = Load(x + c + i * kLanes);
      sums[i] = Fma(value, value, sums[i]);
    }
  }
  for (; c < cols; c += kLanes) {
    const int count = static_cast<int>(cols - c < kLanes ? cols - c : kLanes);
    const Floats value = LoadFirst(x + c, count);
    sums[0] = Fma(value, value, sums[0]);
  }
  const float squares = ReduceAdd(Add(Add(sums[0], sums[1]), Add(sums[2], sums[3])));
  const Floats factor = Set1(1 / std::sqrt(squares / static_cast<float>(cols) + epsilon));
  for (c = 0; c + kLanes <= cols; c += kLanes) {
    Store(out + c, Mul(Mul(Load(x + c), factor), Load(weight + c)));
  }
  if (c < cols) {
    const int count = static_cast<int>(cols - c);
    const Floats value = Mul(Mul(LoadFirst(x + c, count), factor), LoadFirst(weight + c, count));
    StoreFirst(out + c, value, count);
  }
}

BATON_INLINE Floats SwiGluOf(Floats gate, Floats up) {
  // exp(-gate); held below 2^127, where gate / (1 + it) is as good as 0.
  const Floats limit = Set1(-126);
  const Floats exponent = Sub(Zero(), Max(limit, Mul(gate, Set1(1.44269504089f))));
  return Mul(Div(gate, Add(Set1(1), Exp2(exponent))), up);
}

void SwiGlu(const float* gate, const float* up, int64_t count, float* out) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) Store(out + i, SwiGluOf(Load(gate + i), Load(up + i)));
  if (i < count) {
    const int rest = static_cast<int>(count - i);
    StoreFirst(out + i, SwiGluOf(LoadFirst(gate + i, rest), LoadFirst(up + i, rest)), rest);
  }
}

void Rotate(RotatedPairs pairs, int32_t rotary_dim, const float* cosine, const float* sine,
            int32_t heads, int32_t head_dim, float* vectors) {
  const int32_t half = rotary_dim / 2;
  for (int32_t h = 0; h < heads; ++h, vectors += head_dim) {
    if (pairs == RotatedPairs::kInterleaved) {
      for (int32_t i = 0; i < half; ++i) {
        const float first = vectors[2 * i];
        const float second = vectors[2 * i + 1];
        vectors[2 * i] = first * cosine[i] - second * sine[i];
        vectors[2 * i + 1] = first * sine[i] + second * cosine[i];
      }
    } else {
      for (int32_t i = 0; i < half; ++i) {
        const float first = vectors[i];
        const float second = vectors[half + i];
        vectors[i] = first * cosine[i] - second * sine[i];
        vectors[half + i] = first * sine[i] + second * cosine[i];
      }
    }
  }
}

}  // namespace baton::kernels::BATON_ISA
