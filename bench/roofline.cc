#include "bench/roofline.h"

#include "common/status_macros.h"
#include "kernels/dequantize.h"

namespace baton::bench {

std::string_view ArithmeticName(Arithmetic arithmetic) {
  switch (arithmetic) {
    case Arithmetic::kFp32:
      return "FP32";
    case Arithmetic::kBf16:
      return "BF16";
    case Arithmetic::kInt8:
      return "INT8";
  }
  return "";
}

Arithmetic ArithmeticOf(DType dtype, const Ceilings& ceilings) {
  if (kernels::IsBlockFormat(dtype)) return Arithmetic::kInt8;
  return dtype == DType::kBF16 && ceilings.bf16_gop_s ? Arithmetic::kBf16 : Arithmetic::kFp32;
}

std::optional<double> GopS(Arithmetic arithmetic, const Ceilings& ceilings) {
  switch (arithmetic) {
    case Arithmetic::kFp32:
      return ceilings.fp32_gop_s;
    case Arithmetic::kBf16:
      return ceilings.bf16_gop_s;
    case Arithmetic::kInt8:
      return ceilings.int8_gop_s;
  }
  return std::nullopt;
}

Reached Reach(const Work& work, const Ceilings& ceilings, double seconds) {
  constexpr double kMemoryBoundOpsPerByte = 8;
  BATON_CHECK(seconds > 0 && work.bytes > 0, "work takes time and touches memory");
  const double gb_s = ceilings.ReadGbS(work.working_set_bytes);
  const std::optional<double> gop_s = GopS(work.arithmetic, ceilings);
  const bool memory_binds = gop_s ? work.bytes / gb_s >= work.ops / *gop_s
                                  : work.ops <= kMemoryBoundOpsPerByte * work.bytes;
  if (memory_binds) return {work.bytes / seconds * 1e-9, "GB/s", gb_s};
  return {work.ops / seconds * 1e-9, work.arithmetic == Arithmetic::kInt8 ? "GOP/s" : "GFLOP/s",
          gop_s};
}

}  // namespace baton::bench
