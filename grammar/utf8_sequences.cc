#include "grammar/utf8_sequences.h"

#include <algorithm>

namespace baton::grammar {
namespace {

// The last character that has so many bytes.
constexpr std::array<uint32_t, 4> kLastOfLength = {0x7F, 0x7FF, 0xFFFF, kLastCodePoint};

std::array<uint8_t, 4> EncodeCharacter(uint32_t c, int bytes) {
  std::array<uint8_t, 4> out{};
  constexpr std::array<uint8_t, 4> kLead = {0x00, 0xC0, 0xE0, 0xF0};
  for (int i = bytes - 1; i > 0; --i) {
    out[static_cast<size_t>(i)] = static_cast<uint8_t>(0x80 | (c & 0x3F));
    c >>= 6;
  }
  out[0] = static_cast<uint8_t>(kLead[static_cast<size_t>(bytes - 1)] | c);
  return out;
}

// Splits [first, last], all of one length, until the low bits of each piece run through everything
// after the first byte that differs.
void AppendOfLength(uint32_t first, uint32_t last, int bytes, std::vector<ByteRanges>* out) {
  for (int low = 1; low < bytes; ++low) {
    const uint32_t mask = (uint32_t{1} << (6 * low)) - 1;
    if ((first & ~mask) == (last & ~mask)) break;
    if ((first & mask) != 0) {
      AppendOfLength(first, first | mask, bytes, out);
      AppendOfLength((first | mask) + 1, last, bytes, out);
      return;
    }
    if ((last & mask) != mask) {
      AppendOfLength(first, (last & ~mask) - 1, bytes, out);
      AppendOfLength(last & ~mask, last, bytes, out);
      return;
    }
  }
  const auto from = EncodeCharacter(first, bytes);
  const auto to = EncodeCharacter(last, bytes);
  ByteRanges ranges;
  ranges.count = bytes;
  for (size_t i = 0; i < static_cast<size_t>(bytes); ++i) ranges.at[i] = {from[i], to[i]};
  out->push_back(ranges);
}

}  // namespace

std::vector<ByteRanges> Utf8Sequences(CodePointRange range) {
  std::vector<ByteRanges> sequences;
  uint32_t least = 0;
  for (int bytes = 1; bytes <= 4; ++bytes) {
    const uint32_t most = kLastOfLength[static_cast<size_t>(bytes - 1)];
    const uint32_t first = std::max(range.first, least);
    const uint32_t last = std::min(range.last, most);
    if (first <= last) AppendOfLength(first, last, bytes, &sequences);
    least = most + 1;
  }
  return sequences;
}

}  // namespace baton::grammar
