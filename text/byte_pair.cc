#include "text/byte_pair.h"

#include <algorithm>
#include <bit>

#include "common/status_macros.h"

namespace baton::text {
namespace {

// Up to here scanning an array for the best pair beats a heap.
constexpr size_t kShortTokens = 48;
constexpr TokenId kGone = -2;
constexpr int32_t kNone = -1;

uint64_t Pair(TokenId left, TokenId right) {
  return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
}

}  // namespace

MergeTable::MergeTable(size_t capacity)
    : slots_(std::bit_ceil(2 * capacity + 2), Slot{kEmpty, {kNoMerge, -1}}),
      mask_(slots_.size() - 1) {}

size_t MergeTable::SlotOf(uint64_t pair) const {
  uint64_t hash = pair * 0x9E3779B97F4A7C15u;
  hash ^= hash >> 32;
  size_t slot = hash & mask_;
  while (slots_[slot].pair != pair && slots_[slot].pair != kEmpty) slot = (slot + 1) & mask_;
  return slot;
}

void MergeTable::Add(TokenId left, TokenId right, Merge merge) {
  BATON_CHECK(left >= 0 && right >= 0, "only real tokens merge");
  Slot& slot = slots_[SlotOf(Pair(left, right))];
  if (slot.pair == kEmpty) slot = {Pair(left, right), merge};
}

MergeTable::Merge MergeTable::Find(TokenId left, TokenId right) const {
  return slots_[SlotOf(Pair(left, right))].merge;  // {kNoMerge, -1} in an empty slot
}

void MergeScratch::Apply(const MergeTable& table, std::vector<TokenId>& tokens) {
  if (tokens.size() < 2) return;
  if (tokens.size() <= kShortTokens) {
    ApplyToShort(table, tokens);
  } else {
    ApplyToLong(table, tokens);
  }
}

void MergeScratch::ApplyToShort(const MergeTable& table, std::vector<TokenId>& tokens) {
  merges_.clear();
  for (size_t i = 0; i + 1 < tokens.size(); ++i) {
    merges_.push_back(table.Find(tokens[i], tokens[i + 1]));
  }
  while (!merges_.empty()) {
    const auto best =
        std::min_element(merges_.begin(), merges_.end(),
                         [](const auto& a, const auto& b) { return a.rank < b.rank; });
    if (best->rank == MergeTable::kNoMerge) return;
    const auto at = best - merges_.begin();
    tokens[at] = best->merged;
    tokens.erase(tokens.begin() + at + 1);
    merges_.erase(best);
    if (at > 0) merges_[at - 1] = table.Find(tokens[at - 1], tokens[at]);
    if (static_cast<size_t>(at) < merges_.size()) {
      merges_[at] = table.Find(tokens[at], tokens[at + 1]);
    }
  }
}

void MergeScratch::PushCandidate(const MergeTable& table, int32_t left) {
  if (left == kNone || nodes_[left].next == kNone) return;
  const TokenId left_token = nodes_[left].token;
  const TokenId right_token = nodes_[nodes_[left].next].token;
  const int32_t rank = table.Find(left_token, right_token).rank;
  if (rank == MergeTable::kNoMerge) return;
  heap_.push_back({rank, left, left_token, right_token});
  std::push_heap(heap_.begin(), heap_.end(),
                 [this](const auto& a, const auto& b) { return Later(a, b); });
}

void MergeScratch::ApplyToLong(const MergeTable& table, std::vector<TokenId>& tokens) {
  const auto count = static_cast<int32_t>(tokens.size());
  nodes_.clear();
  heap_.clear();
  for (int32_t i = 0; i < count; ++i) {
    nodes_.push_back({tokens[i], i - 1, i + 1 < count ? i + 1 : kNone});
  }
  for (int32_t i = 0; i < count; ++i) PushCandidate(table, i);
  while (!heap_.empty()) {
    std::pop_heap(heap_.begin(), heap_.end(),
                  [this](const auto& a, const auto& b) { return Later(a, b); });
    const Candidate best = heap_.back();
    heap_.pop_back();
    Node& left = nodes_[best.left];
    // Stale when either side has merged with another neighbour since the push.
    if (left.token != best.left_token || left.next == kNone ||
        nodes_[left.next].token != best.right_token) {
      continue;
    }
    left.token = table.Find(best.left_token, best.right_token).merged;
    nodes_[left.next].token = kGone;
    left.next = nodes_[left.next].next;
    if (left.next != kNone) nodes_[left.next].previous = best.left;
    PushCandidate(table, left.previous);
    PushCandidate(table, best.left);
  }
  tokens.clear();
  for (int32_t i = 0; i != kNone; i = nodes_[i].next) tokens.push_back(nodes_[i].token);
  // A hostile prompt's working memory is not kept.
  if (nodes_.capacity() > 65536) std::vector<Node>().swap(nodes_);
  if (heap_.capacity() > 65536) std::vector<Candidate>().swap(heap_);
}

}  // namespace baton::text
