#include "text/text_index.h"

#include <xxhash.h>

#include <bit>

namespace baton::text {

TextIndex::TextIndex(const std::vector<std::string_view>* texts)
    : texts_(texts),
      slots_(std::bit_ceil(2 * texts->size() + 2), Slot{0, -1}),
      mask_(slots_.size() - 1) {}

size_t TextIndex::SlotOf(std::string_view text, uint64_t hash) const {
  size_t slot = hash & mask_;
  while (slots_[slot].token >= 0) {
    if (slots_[slot].hash == hash >> 32 && (*texts_)[slots_[slot].token] == text) break;
    slot = (slot + 1) & mask_;
  }
  return slot;
}

void TextIndex::Add(TokenId token) {
  const std::string_view text = (*texts_)[token];
  const uint64_t hash = XXH3_64bits(text.data(), text.size());
  Slot& slot = slots_[SlotOf(text, hash)];
  if (slot.token < 0) slot = {static_cast<uint32_t>(hash >> 32), token};
}

TokenId TextIndex::Find(std::string_view text) const {
  return slots_[SlotOf(text, XXH3_64bits(text.data(), text.size()))].token;
}

}  // namespace baton::text
