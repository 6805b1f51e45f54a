#include "engine/step_planner.h"

#include <algorithm>

namespace baton::engine {

std::vector<PlannedRange> PlanStep(std::span<const PlanSequence> sequences,
                                   const PlanLimits& limits) {
  std::vector<int32_t> tokens(sequences.size(), 0);
  int32_t rows_left = limits.max_rows;
  int32_t sequences_left = limits.max_sequences;
  for (size_t i = 0; i < sequences.size() && rows_left > 0 && sequences_left > 0; ++i) {
    if (!sequences[i].decoding || sequences[i].pending <= 0) continue;
    tokens[i] = 1;
    --rows_left;
    --sequences_left;
  }
  rows_left = std::min(rows_left, limits.chunk_tokens);
  for (size_t i = 0; i < sequences.size() && rows_left > 0 && sequences_left > 0; ++i) {
    if (sequences[i].decoding || sequences[i].pending <= 0) continue;
    tokens[i] = std::min(sequences[i].pending, rows_left);
    rows_left -= tokens[i];
    --sequences_left;
  }
  std::vector<PlannedRange> plan;
  for (size_t i = 0; i < sequences.size(); ++i) {
    if (tokens[i] > 0) plan.push_back({static_cast<int32_t>(i), tokens[i]});
  }
  return plan;
}

}  // namespace baton::engine
