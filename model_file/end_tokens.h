#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "common/ids.h"
#include "model_file/gguf.h"

namespace baton {

// The tokens that end a sequence, ascending, each once: tokenizer.ggml.{eos,eot,eom}_token_id, and
// the control tokens whose names say so ("<|im_end|>", "<|endoftext|>", ...), because chat models
// carry several and files often name only one. InvalidArgument, with the numbers, for an id outside
// [0, vocab_size).
absl::StatusOr<std::vector<TokenId>> ReadEndTokens(const GgufFile& file, int64_t vocab_size);

}  // namespace baton
