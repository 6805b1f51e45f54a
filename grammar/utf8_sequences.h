#pragma once

// A range of characters as the byte ranges of its UTF-8 forms.

#include <array>
#include <cstdint>
#include <vector>

#include "grammar/expression.h"

namespace baton::grammar {

struct ByteRange {
  uint8_t first = 0;
  uint8_t last = 0;
  bool operator==(const ByteRange&) const = default;
};

// Any byte of the first range, then any of the second, ...
struct ByteRanges {
  std::array<ByteRange, 4> at{};
  int count = 0;
};

// Together exactly the characters of `range`, which holds no surrogates.
std::vector<ByteRanges> Utf8Sequences(CodePointRange range);

}  // namespace baton::grammar
