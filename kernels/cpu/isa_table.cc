#include "kernels/cpu/isa_functions.h"
#include "kernels/cpu/simd.h"

#define BATON_STRING_INNER(x) #x
#define BATON_STRING(x) BATON_STRING_INNER(x)

namespace baton::kernels::BATON_ISA {

#if defined(__AVX512BF16__)
constexpr bool kBf16Activations = true;
#else
constexpr bool kBf16Activations = false;
#endif

const IsaKernels& GetIsaKernels() {
  static const IsaKernels kernels = [] {
    IsaKernels table{};
    table.name = BATON_STRING(BATON_ISA);
    table.bf16_activations = kBf16Activations;
    table.tile_rows = 4;
    table.quantize_row = QuantizeRow;
    table.round_row_to_bf16 = RoundRowToBf16;
    for (int dtype = 0; dtype < kDTypes; ++dtype) {
      table.multiply_panel[dtype] = MultiplyPanelOf(static_cast<DType>(dtype));
      table.multiply_few_rows[dtype] = table.multiply_panel[dtype];
    }
    table.rms_norm_row = RmsNormRow;
    table.swiglu = SwiGlu;
    table.rotate = Rotate;
    table.store_kv = StoreKv;
    table.convert_kv = ConvertKv;
    table.attend = Attend;
    table.attend_segment = AttendSegment;
    table.merge_segments = MergeSegments;
    return table;
  }();
  return kernels;
}

}  // namespace baton::kernels::BATON_ISA
