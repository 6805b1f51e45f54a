#include "kernels/cpu/weight_arena.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <vector>

namespace baton::kernels {
namespace {

TEST(WeightArenaTest, PiecesAreAlignedZeroAndApart) {
  WeightArena arena;
  const size_t sizes[] = {1, 64, 4097, size_t{300} << 20, 100};  // one is larger than a mapping
  std::vector<uint8_t*> pieces;
  for (const size_t bytes : sizes) {
    uint8_t* const piece = arena.Allocate(bytes);
    pieces.push_back(piece);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(piece) % 64, 0u);
    EXPECT_EQ(piece[0], 0);
    EXPECT_EQ(piece[bytes - 1], 0);
    piece[0] = piece[bytes - 1] = static_cast<uint8_t>(pieces.size());
  }
  for (size_t i = 0; i < pieces.size(); ++i) {
    EXPECT_EQ(pieces[i][0], i + 1);
    EXPECT_EQ(pieces[i][sizes[i] - 1], i + 1);
  }
}

}  // namespace
}  // namespace baton::kernels
