#pragma once

// What several benchmark tests share. Nothing here or in them says how fast anything must be.

#include "bench/ceilings.h"

namespace baton::bench {

// Made-up ceilings with round numbers: L2 of 1 MiB for each of 2 threads, L3 of 16 MiB.
inline Ceilings RoundCeilings() {
  Ceilings ceilings;
  ceilings.threads = 2;
  ceilings.isa = "avx512";
  ceilings.caches = {.l2_bytes = int64_t{1} << 20, .l3_bytes = int64_t{16} << 20};
  ceilings.dram_buffer_bytes = int64_t{128} << 20;
  ceilings.dram_read_gb_s = 10;
  ceilings.scattered_read_gb_s = 5;
  ceilings.l3_read_gb_s = 40;
  ceilings.l2_read_gb_s = 80;
  ceilings.fp32_gop_s = 100;
  ceilings.bf16_gop_s = 200;
  ceilings.int8_gop_s = 400;
  return ceilings;
}

// Shortest possible measurements.
inline CeilingOptions QuickCeilings() {
  return {.threads = 2, .rounds = 1, .round_ms = 0, .dram_buffer_bytes = int64_t{1} << 20};
}

}  // namespace baton::bench
