// Keys and values from the cache's one format to another, through floats. What is written is bit
// for bit what StoreKv would write, given the floats that were read.

#include "kernels/cpu/isa_functions.h"
#include "kernels/cpu/kv_store_vector.h"

namespace baton::kernels::BATON_ISA {
namespace {

// Keys go through a tile of floats that lie as in a block: [head_dim][kTileTokens].
constexpr int kTileTokens = kTilePositions;

int32_t AtMostLanes(int32_t count) { return count < kLanes ? count : kLanes; }

// Copies count * kBytes, of which there is often a vector or half of one.
template <int kBytes>
BATON_INLINE void CopyFirst(uint8_t* to, const uint8_t* from, int32_t count) {
  if (count == kLanes) {
    std::memcpy(to, from, kLanes * kBytes);
  } else if (count == kLanes / 2) {
    std::memcpy(to, from, kLanes / 2 * kBytes);
  } else {
    for (int32_t i = 0; i < count; ++i) std::memcpy(to + i * kBytes, from + i * kBytes, kBytes);
  }
}

// Where a head's scales lie behind its elements.
template <KvDType kDType>
int64_t ScaleOffset(int32_t head_dim, int32_t block_tokens, int32_t token) {
  using Format = KvFormat<kDType>;
  const int32_t units = (head_dim + Format::kTogether - 1) / Format::kTogether;
  return int64_t{block_tokens} * units * Format::kTogether * Format::kBytes +
         token * int64_t{sizeof(float)};
}

// ---- Keys: a lane is a token --------------------------------------------------------------------

// May read up to kLanes - 1 tokens too many, which lie in the same block, for values follow the
// keys. They hold anything, and count as 0.
template <KvDType kFrom>
void LoadKeys(const KvConversion& c, float* tile) {
  using Format = KvFormat<kFrom>;
  constexpr int kUnitBytes = Format::kTogether * Format::kBytes;
  const int32_t units = (c.head_dim + Format::kTogether - 1) / Format::kTogether;
  const auto* scales = reinterpret_cast<const float*>(
      c.from_keys + ScaleOffset<kFrom>(c.head_dim, c.from_block_tokens, c.from_token));
  for (int32_t t = 0; t < c.tokens; t += kLanes) {
    const int32_t count = AtMostLanes(c.tokens - t);
    Floats scale = Set1(1);
    if constexpr (Format::kLargest > 0) scale = LoadFirst(scales + t, count);
    const uint8_t* from = c.from_keys + (c.from_token + t) * kUnitBytes;
    for (int32_t u = 0; u < units; ++u) {
      for (int i = 0; i < Format::kTogether; ++i) {
        Floats x = Format::Load(from, i);
        if constexpr (Format::kLargest > 0) x = Mul(scale, Mul(x, Set1(Format::kScale)));
        if (count < kLanes) x = KeepFirst(x, count, Zero());
        Store(tile + (u * Format::kTogether + i) * kTileTokens + t, x);
      }
      from += int64_t{c.from_block_tokens} * kUnitBytes;
    }
  }
}

template <KvDType kTo>
void StoreKeys(const KvConversion& c, const float* tile) {
  using Format = KvFormat<kTo>;
  constexpr int kUnitBytes = Format::kTogether * Format::kBytes;
  auto* scales = reinterpret_cast<float*>(
      c.to_keys + ScaleOffset<kTo>(c.head_dim, c.to_block_tokens, c.to_token));
  for (int32_t t = 0; t < c.tokens; t += kLanes) {
    const int32_t count = AtMostLanes(c.tokens - t);
    Floats inverse = Set1(1);
    if constexpr (Format::kLargest > 0) {
      Ints bits = ZeroInts();
      for (int32_t d = 0; d < c.head_dim; ++d) {
        bits = MaxMagnitude(bits, Load(tile + d * kTileTokens + t));
      }
      const Floats largest = AsFloats(bits);
      const Floats number = Set1(Format::kLargest);
      StoreFirst(scales + t, ZeroBelow(Div(largest, number), largest, Set1(kSmallest)), count);
      inverse = ZeroBelow(Div(number, largest), largest, Set1(kSmallest));
    }
    uint8_t* to = c.to_keys + (c.to_token + t) * kUnitBytes;
    for (int32_t d = 0; d < c.head_dim; d += Format::kTogether) {
      Floats x = Load(tile + d * kTileTokens + t);
      alignas(64) uint8_t elements[4 * kLanes];
      if constexpr (Format::kTogether == 2) {
        const bool pair = d + 1 < c.head_dim;
        StoreBf16Pairs(elements, x, pair ? Load(tile + (d + 1) * kTileTokens + t) : Zero());
      } else {
        if constexpr (Format::kLargest > 0) x = Mul(x, inverse);
        Format::Store(elements, x);
      }
      CopyFirst<kUnitBytes>(to, elements, count);
      to += int64_t{c.to_block_tokens} * kUnitBytes;
    }
  }
}

// ---- Values: a lane is an element ---------------------------------------------------------------

// One token's, into `row`; rounds up to whole vectors.
template <KvDType kFrom>
void LoadValue(const KvConversion& c, int32_t token, float* row) {
  using Format = KvFormat<kFrom>;
  constexpr int kUnitBytes = Format::kTogether * Format::kBytes;
  const int32_t index = c.from_token + token;
  const uint8_t* from =
      c.from_values + int64_t{index / Format::kTogether} * c.head_dim * kUnitBytes;
  Floats scale = Set1(1);
  if constexpr (Format::kLargest > 0) {
    float one;
    std::memcpy(&one, c.from_values + ScaleOffset<kFrom>(c.head_dim, c.from_block_tokens, index),
                sizeof one);
    scale = Set1(one);
  }
  for (int32_t d = 0; d < c.head_dim; d += kLanes) {
    const int32_t count = AtMostLanes(c.head_dim - d);
    alignas(64) uint8_t tail[4 * kLanes] = {};
    const uint8_t* at = from + d * kUnitBytes;
    if (count < kLanes) {  // the block may end here
      CopyFirst<kUnitBytes>(tail, at, count);
      at = tail;
    }
    Floats x = Format::Load(at, index % Format::kTogether);
    if constexpr (Format::kLargest > 0) x = Mul(scale, Mul(x, Set1(Format::kScale)));
    Store(row + d, x);
  }
}

// `rows` has the `count` neighbours that lie together, or fewer at the end: [count][row_stride].
template <KvDType kTo>
void StoreValues(const KvConversion& c, int32_t token, int32_t count, const float* rows,
                 int64_t row_stride) {
  using Format = KvFormat<kTo>;
  constexpr int kUnitBytes = Format::kTogether * Format::kBytes;
  const int32_t index = c.to_token + token;
  uint8_t* to = c.to_values + int64_t{index / Format::kTogether} * c.head_dim * kUnitBytes;
  if constexpr (Format::kTogether == 2) {
    if (count == 2) {
      for (int32_t d = 0; d < c.head_dim; d += kLanes) {
        alignas(64) uint8_t pairs[4 * kLanes];
        StoreBf16Pairs(pairs, Load(rows + d), Load(rows + row_stride + d));
        CopyFirst<kUnitBytes>(to + d * kUnitBytes, pairs, AtMostLanes(c.head_dim - d));
      }
      return;
    }
  }
  uint8_t* scale = c.to_values + ScaleOffset<kTo>(c.head_dim, c.to_block_tokens, index);
  StoreVector<kTo, 1>(rows, c.head_dim, kUnitBytes, to + index % Format::kTogether * Format::kBytes,
                      scale);
}

// ---- A head -------------------------------------------------------------------------------------

template <KvDType kFrom, KvDType kTo>
void ConvertHead(const KvConversion& c) {
  constexpr int kTogether = KvFormat<kTo>::kTogether;
  LoadKeys<kFrom>(c, c.scratch);
  StoreKeys<kTo>(c, c.scratch);
  const int32_t row_stride = PaddedDim(c.head_dim);
  for (int32_t t = 0; t < c.tokens; t += kTogether) {
    const int32_t count = c.tokens - t < kTogether ? c.tokens - t : kTogether;
    for (int32_t i = 0; i < count; ++i) LoadValue<kFrom>(c, t + i, c.scratch + i * row_stride);
    StoreValues<kTo>(c, t, count, c.scratch, row_stride);
  }
}

template <KvDType kFrom>
void ConvertFrom(const KvConversion& c) {
  switch (c.to) {
    case KvDType::kF32:
      return ConvertHead<kFrom, KvDType::kF32>(c);
    case KvDType::kF16:
      return ConvertHead<kFrom, KvDType::kF16>(c);
    case KvDType::kBF16:
      return ConvertHead<kFrom, KvDType::kBF16>(c);
    case KvDType::kInt8:
      return ConvertHead<kFrom, KvDType::kInt8>(c);
    case KvDType::kFp8:
      return ConvertHead<kFrom, KvDType::kFp8>(c);
  }
}

}  // namespace

void ConvertKv(const KvConversion& c) {
  switch (c.from) {
    case KvDType::kF32:
      return ConvertFrom<KvDType::kF32>(c);
    case KvDType::kF16:
      return ConvertFrom<KvDType::kF16>(c);
    case KvDType::kBF16:
      return ConvertFrom<KvDType::kBF16>(c);
    case KvDType::kInt8:
      return ConvertFrom<KvDType::kInt8>(c);
    case KvDType::kFp8:
      return ConvertFrom<KvDType::kFp8>(c);
  }
}

}  // namespace baton::kernels::BATON_ISA
