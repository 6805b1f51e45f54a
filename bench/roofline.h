#pragma once

// Which of the machine's ceilings bounds a piece of work, and how near it came.

#include <cstdint>
#include <optional>
#include <string_view>

#include "bench/ceilings.h"
#include "common/dtype.h"
#include "kernels/kv_dtype.h"

namespace baton::bench {

enum class Arithmetic { kFp32, kBf16, kInt8 };

// "FP32", "BF16", "INT8"
std::string_view ArithmeticName(Arithmetic arithmetic);

// What a product with weights of `dtype` is computed in: INT8 for block formats, BF16 for BF16
// where the machine has it, else FP32.
Arithmetic ArithmeticOf(DType dtype, const Ceilings& ceilings);

// What attention over such KV is computed in: BF16 for BF16 where the machine has it, else FP32.
Arithmetic ArithmeticOf(kernels::KvDType dtype, const Ceilings& ceilings);

// Absent where the instruction set has no such arithmetic.
std::optional<double> GopS(Arithmetic arithmetic, const Ceilings& ceilings);

struct Work {
  double bytes = 0;               // read, and written where a kernel mainly moves data
  int64_t working_set_bytes = 0;  // what is read again and again: says which memory it comes from
  double ops = 0;                 // 0: moving the bytes is all
  Arithmetic arithmetic = Arithmetic::kFp32;
  bool told_in_ops = false;  // a rate is of operations, else of bytes
};

// What was reached, and the most that can be.
struct Reached {
  double value = 0;
  std::string_view unit;          // "GB/s", "GFLOP/s" or, for INT8, "GOP/s"
  std::optional<double> ceiling;  // in the same unit
};

// Work that took `seconds`. The ceiling that binds is the one that needs the most time for the
// work: its memory for the bytes, or its arithmetic for the operations. The unit is the work's own
// whatever binds, so that runs can be compared: where memory binds work told in operations, the
// ceiling is the operations for which memory gives the bytes (and the other way round). Where the
// arithmetic has no ceiling, only memory is one, and only for work told in bytes.
Reached Reach(const Work& work, const Ceilings& ceilings, double seconds);

}  // namespace baton::bench
