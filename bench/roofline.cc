#include "bench/roofline.h"

#include <algorithm>

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

Arithmetic ArithmeticOf(kernels::KvDType dtype, const Ceilings& ceilings) {
  return dtype == kernels::KvDType::kBF16 ? ArithmeticOf(DType::kBF16, ceilings)
                                          : Arithmetic::kFp32;
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
  BATON_CHECK(seconds > 0 && work.bytes > 0, "work takes time and touches memory");
  BATON_CHECK(work.ops > 0 || !work.told_in_ops, "work told in operations has some");
  const std::optional<double> gop_s = GopS(work.arithmetic, ceilings);
  const double memory_s = work.bytes / ceilings.ReadGbS(work.working_set_bytes);
  const double least_s = gop_s ? std::max(memory_s, work.ops / *gop_s) : memory_s;
  if (!work.told_in_ops) return {work.bytes / seconds * 1e-9, "GB/s", work.bytes / least_s};
  Reached reached{work.ops / seconds * 1e-9,
                  work.arithmetic == Arithmetic::kInt8 ? "GOP/s" : "GFLOP/s", std::nullopt};
  if (gop_s) reached.ceiling = work.ops / least_s;
  return reached;
}

}  // namespace baton::bench
