#pragma once

// Byte-pair merging: adjacent token pairs become one token, lowest rank first, leftmost among
// equals, until no pair merges. Byte-level BPE and SentencePiece-style BPE differ only in where the
// ranks come from.

#include <cstddef>
#include <cstdint>
#include <vector>

#include "common/ids.h"

namespace baton::text {

// Which pairs merge, to what, in which order. Add everything first; then const and thread-safe.
class MergeTable {
 public:
  struct Merge {
    int32_t rank;
    TokenId merged;
  };
  static constexpr int32_t kNoMerge = INT32_MAX;  // the rank of pairs that do not merge

  explicit MergeTable(size_t capacity);

  // The first rank of a pair counts; at most `capacity` pairs. Ids must not be negative.
  void Add(TokenId left, TokenId right, Merge merge);
  Merge Find(TokenId left, TokenId right) const;

 private:
  struct Slot {
    uint64_t pair;
    Merge merge;
  };
  static constexpr uint64_t kEmpty = ~uint64_t{0};

  size_t SlotOf(uint64_t pair) const;

  std::vector<Slot> slots_;  // open addressing, at most half full
  size_t mask_;
};

// Working memory of Apply, kept between words. One per thread.
class MergeScratch {
 public:
  // Merges `tokens` in place: O(n log n) time and O(n) memory, so a run of a million letters is
  // fine. A negative token (an unknown character) never merges.
  void Apply(const MergeTable& table, std::vector<TokenId>& tokens);

 private:
  struct Node {
    TokenId token;  // kGone when merged into its left neighbour
    int32_t previous, next;
  };
  struct Candidate {
    int32_t rank;
    int32_t left;  // node
    TokenId left_token, right_token;
  };

  void ApplyToShort(const MergeTable& table, std::vector<TokenId>& tokens);
  void ApplyToLong(const MergeTable& table, std::vector<TokenId>& tokens);
  void PushCandidate(const MergeTable& table, int32_t left);
  bool Later(const Candidate& a, const Candidate& b) const {
    return a.rank != b.rank ? a.rank > b.rank : a.left > b.left;
  }

  std::vector<MergeTable::Merge> merges_;
  std::vector<Node> nodes_;
  std::vector<Candidate> heap_;
};

}  // namespace baton::text
