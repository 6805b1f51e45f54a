#pragma once

// What the kernel tests share: backends to try, random matrices of every format, and a paged cache
// whose unused parts are poisoned.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "kernels/ops.h"

namespace baton::kernels {

inline constexpr DType kAllDTypes[] = {DType::kF32,  DType::kF16,  DType::kBF16, DType::kQ8_0,
                                       DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1,
                                       DType::kQ4_K, DType::kQ5_K, DType::kQ6_K};

// The instruction sets of this machine.
std::vector<CpuIsa> TestIsas();
std::string IsaName(CpuIsa isa);
std::unique_ptr<Ops> CpuBackend(CpuIsa isa, int32_t threads, int32_t max_rows = 512);

// A fixed seed, printed, so that a failure can be repeated; BATON_TEST_SEED overrides it.
std::mt19937 TestRandom();
std::vector<float> RandomFloats(std::mt19937& random, int64_t count, float deviation = 1);

// Random weights in a file's form. `host` points into `bytes`.
struct TestMatrix {
  std::vector<std::byte> bytes;
  HostMatrix host;
  std::vector<float> Values() const;
};
TestMatrix RandomMatrix(std::mt19937& random, DType dtype, int64_t rows, int64_t cols);

// True if the floats have the same bits.
bool SameBits(std::span<const float> a, std::span<const float> b);

// A slab of NaNs, and sequences whose blocks are scattered over it. Block-table entries beyond a
// sequence's tokens are huge.
class TestCache {
 public:
  TestCache(const KvLayout& layout, std::mt19937& random, std::span<const int32_t> sequence_tokens);

  const KvLayout& layout() const { return layout_; }
  std::byte* slab() { return slab_.data(); }
  int64_t slab_bytes() const { return std::ssize(slab_); }
  std::span<const int32_t> table(int64_t sequence) const { return tables_[sequence]; }

 private:
  KvLayout layout_;
  std::vector<std::byte> slab_;
  std::vector<std::vector<int32_t>> tables_;
};

// Tables of angles for `context` positions.
struct TestRope {
  TestRope(RopePairs pairs, int32_t rotary_dim, int32_t context);
  std::vector<float> cosine;
  std::vector<float> sine;
  Rope rope;
};

}  // namespace baton::kernels
