#pragma once

// The engine's constraints, by the model's tokenizer.

#include "engine/executor.h"
#include "model_file/gguf.h"
#include "text/tokenizer.h"

namespace baton::worker_common {

// Works where it is asked: of a process with one request. The tokenizer need not outlive it.
engine::ConstraintMaker ConstraintMakerFor(const text::Tokenizer& tokenizer);
// Works on a thread of its own: of a worker. Null where the file's tokenizer cannot be read, which
// is logged: constrained requests are then refused.
engine::ConstraintMaker BackgroundConstraintMakerFor(const GgufFile& file);

}  // namespace baton::worker_common
