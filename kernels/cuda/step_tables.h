#pragma once

// What the kernels read of a step's sequences. Plain computing on the host.

#include <span>
#include <vector>

#include "kernels/cuda/launch.h"
#include "kernels/kv_layout.h"
#include "kernels/ops.h"

namespace baton::kernels::cuda {

struct StepTables {
  std::vector<RowPlace> places;  // [rows]
  std::vector<int32_t> tables;   // the used entries of the block tables, one after another
  std::vector<QueryTile> tiles;  // for queries of `group` heads a kv head
  int32_t longest = 0;           // tokens that the last row of a sequence sees, the most of all
};

// `tables` keeps its capacity. The rows of the sequences are [0, rows), each once.
void BuildStepTables(std::span<const SequenceRows> sequences, int32_t block_tokens, int32_t group,
                     StepTables& tables);

}  // namespace baton::kernels::cuda
