#include "kernels/cpu/isa_functions.h"

namespace baton::kernels::amx {

const IsaKernels& GetIsaKernels() {
  static const IsaKernels kernels = [] {
    IsaKernels table = avx512::GetIsaKernels();
    table.name = "amx";
    table.tile_rows = 32;
    table.attend = Attend;
    table.attend_segment = AttendSegment;
    table.merge_segments = MergeSegments;
    for (int dtype = 0; dtype < kDTypes; ++dtype) {
      table.multiply_panel[dtype] = MultiplyPanelOf(static_cast<DType>(dtype));
      // Of block formats avx512's, which no tile would be full of.
      const bool bf16 = static_cast<DType>(dtype) == DType::kBF16;
      if (bf16) table.multiply_few_rows[dtype] = table.multiply_panel[dtype];
    }
    return table;
  }();
  return kernels;
}

}  // namespace baton::kernels::amx
