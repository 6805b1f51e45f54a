#pragma once

// Traces of real traffic, as text. Pure and bounded; every error names the line.

#include <string_view>

#include "absl/status/statusor.h"
#include "planner/workload.h"

namespace baton::cli {

// One of the three below, by how it begins.
absl::StatusOr<planner::Trace> ParseTrace(std::string_view text);

// Azure's public traces: the header TIMESTAMP,ContextTokens,GeneratedTokens, then rows such as
// 2023-11-16 18:15:46.6805900,374,44.
absl::StatusOr<planner::Trace> ParseAzureCsv(std::string_view text);

// Mooncake's: a JSON object a line, with timestamp (ms), input_length, output_length and, where
// known, hash_ids of the prompt's blocks of 512 tokens.
absl::StatusOr<planner::Trace> ParseMooncakeJsonl(std::string_view text);

// The router's access log (--access-log): a JSON object a line, of which arrival_us, input_tokens,
// output_tokens and cached_tokens are read. Lines without input_tokens are no load. Sorted by
// arrival.
absl::StatusOr<planner::Trace> ParseAccessLog(std::string_view text);

}  // namespace baton::cli
