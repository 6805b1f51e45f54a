#pragma once

// Output token 0 as the payload of a handoff's commit: the prefill worker samples it, the decode
// worker goes on from it. With its logprobs, since the decode worker reports it, too.

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "common/sampling.h"

namespace baton::worker_common {

std::string EncodeFirstToken(const OutputToken& token);

// InvalidArgument when `payload` is not what EncodeFirstToken gives, or a token is not in
// [0, vocab_size).
absl::StatusOr<OutputToken> DecodeFirstToken(std::string_view payload, int32_t vocab_size);

}  // namespace baton::worker_common
