#pragma once

// The engine's constraints, by the model's tokenizer.

#include "engine/executor.h"
#include "model_file/gguf.h"
#include "text/tokenizer.h"

namespace baton::worker_common {

// The device thread's, as what it makes. The tokenizer need not outlive it.
engine::ConstraintMaker ConstraintMakerFor(const text::Tokenizer& tokenizer);
// Null where the file's tokenizer cannot be read, which is logged: constrained requests are then
// refused.
engine::ConstraintMaker ConstraintMakerFor(const GgufFile& file);

}  // namespace baton::worker_common
