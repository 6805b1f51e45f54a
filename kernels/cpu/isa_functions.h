#pragma once

// What the isa_*.cc sources give isa_table.cc; see isa_kernels.h for the contracts.

#include "kernels/cpu/isa_kernels.h"

namespace baton::kernels::BATON_ISA {

using MultiplyPanel = void (*)(const Activations& activations, const PanelTask& task);
MultiplyPanel MultiplyPanelOf(DType dtype);

void QuantizeRow(const float* x, int64_t cols, int8_t* quants, float* scales, float* scaled_sums,
                 int32_t* minus_sums, int32_t* minus_half_sums);
void RoundRowToBf16(const float* x, int64_t cols, uint16_t* out);
void RmsNormRow(const float* x, const float* weight, int64_t cols, float epsilon, float* out);
void SwiGlu(const float* gate, const float* up, int64_t count, float* out);
void Rotate(RotatedPairs pairs, int32_t rotary_dim, const float* cosine, const float* sine,
            int32_t heads, int32_t head_dim, float* vectors);
void StoreKv(const KvToken& token);
void ConvertKv(const KvConversion& conversion);

void Attend(const AttentionTask& task);
void AttendSegment(const AttentionTask& task, int32_t segment, float* state);
void MergeSegments(const AttentionTask& task, float* states, int32_t segments);

}  // namespace baton::kernels::BATON_ISA
