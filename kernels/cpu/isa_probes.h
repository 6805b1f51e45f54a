#pragma once

// Loops that do nothing but what bounds the kernels, compiled once for each instruction set as
// isa_kernels.h says: what they reach is what a kernel can reach at most.

#include <cstdint>

namespace baton::kernels {

inline constexpr int kMaxProbeStreams = 4;

struct IsaProbes {
  const char* name;

  // Reads every byte of [from, from + bytes) once, in `streams` (1, 2 or 4) runs side by side,
  // prefetching ahead_bytes (0: not at all), back if they are negative. bytes is a multiple of 256
  // * streams. What it returns only keeps the loads alive.
  uint64_t (*read)(const uint8_t* from, int64_t bytes, int streams, int64_t ahead_bytes);

  // A chain-free loop of one kind of arithmetic, with the operations (a multiplication and an
  // addition are two) of each round. Null where the kernels of this instruction set have no such
  // arithmetic.
  struct Arithmetic {
    float (*run)(int64_t rounds);
    int64_t round_ops;
  };
  Arithmetic fp32;  // float multiply and add
  Arithmetic bf16;  // pairs of BF16 products added to floats
  Arithmetic int8;  // quads of 8-bit products added to 32 bits
};

namespace amx {
const IsaProbes& GetIsaProbes();
}
namespace avx512 {
const IsaProbes& GetIsaProbes();
}
namespace avx2 {
const IsaProbes& GetIsaProbes();
}
namespace portable {
const IsaProbes& GetIsaProbes();
}

}  // namespace baton::kernels
