#include "kernels/cuda/staging.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "kernels/cuda/runtime.h"

namespace baton::kernels::cuda {
namespace {

// In the emulated device, which fetches what is staged only when somebody waits for it: what was
// overwritten before would be seen.
TEST(StagingTest, WhatIsSentArrivesWhateverBecomesOfTheSource) {
  Staging staging;
  constexpr int64_t kPiece = 1000;
  constexpr int64_t kPieces = 2 * Staging::kBytes / kPiece;
  std::vector<char> device(static_cast<size_t>(kPieces * kPiece), 0);
  std::vector<char> source(kPiece);
  for (int64_t i = 0; i < kPieces; ++i) {
    std::ranges::fill(source, static_cast<char>(i % 251));
    ASSERT_TRUE(staging.Send(&device[static_cast<size_t>(i * kPiece)], source.data(), kPiece).ok());
  }
  ASSERT_TRUE(Synchronize().ok());
  for (int64_t i = 0; i < kPieces * kPiece; ++i) {
    ASSERT_EQ(device[static_cast<size_t>(i)], static_cast<char>(i / kPiece % 251)) << i;
  }
}

TEST(StagingTest, TakesNothingAndMoreThanItHolds) {
  Staging staging;
  EXPECT_TRUE(staging.Send(nullptr, nullptr, 0).ok());
  const std::vector<char> source(static_cast<size_t>(Staging::kBytes + 1), 7);
  std::vector<char> device(source.size());
  ASSERT_TRUE(staging.Send(device.data(), source.data(), std::ssize(source)).ok());
  EXPECT_EQ(device, source);
}

}  // namespace
}  // namespace baton::kernels::cuda
