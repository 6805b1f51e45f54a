#include "kernels/cuda/step_tables.h"

#include <algorithm>

namespace baton::kernels::cuda {

void BuildStepTables(std::span<const SequenceRows> sequences, int32_t block_tokens, int32_t group,
                     StepTables& tables) {
  tables.tables.clear();
  tables.tiles.clear();
  tables.longest = 0;
  int32_t rows = 0;
  for (const SequenceRows& sequence : sequences) {
    rows = std::max(rows, sequence.first_row + sequence.row_count);
  }
  tables.places.assign(static_cast<size_t>(rows), RowPlace{0, 0});
  for (const SequenceRows& sequence : sequences) {
    const int32_t end = sequence.first_position + sequence.row_count;
    const auto blocks = static_cast<size_t>((end + block_tokens - 1) / block_tokens);
    const auto table = static_cast<int32_t>(tables.tables.size());
    tables.tables.insert(tables.tables.end(), sequence.block_table.begin(),
                         sequence.block_table.begin() + static_cast<ptrdiff_t>(blocks));
    tables.longest = std::max(tables.longest, end);
    for (int32_t i = 0; i < sequence.row_count; ++i) {
      tables.places[static_cast<size_t>(sequence.first_row + i)] = {sequence.first_position + i,
                                                                    table};
    }
    const int32_t queries = sequence.row_count * group;
    for (int32_t first = 0; first < queries; first += kQueryTile) {
      tables.tiles.push_back({sequence.first_row, sequence.first_position, table, first,
                              std::min(kQueryTile, queries - first)});
    }
  }
}

}  // namespace baton::kernels::cuda
