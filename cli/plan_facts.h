#pragma once

// Model and hardware of `baton plan`, from names or files.

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "planner/hardware_facts.h"
#include "planner/model_facts.h"

namespace baton::cli {

// A known name; a GGUF file; a config.json of safetensors weights, or the folder that has it.
absl::StatusOr<planner::ModelFacts> LoadModelFacts(const std::string& name_or_path);

// The machine that this runs on as one chip: FLOP/s and memory's bytes/s as measured, which takes
// some seconds (bench/ceilings.h), and a network of 10 Gbit/s assumed.
inline constexpr std::string_view kThisCpu = "this-cpu";
absl::StatusOr<planner::HardwareFacts> MeasureThisCpu();

// kThisCpu; a known name; or a YAML or JSON file (name ends in .yaml, .yml or .json) with the
// fields of HardwareFacts as keys. Unknown keys are InvalidArgument.
absl::StatusOr<planner::HardwareFacts> LoadHardwareFacts(const std::string& name_or_path);

// The texts of such files; `name` is for errors. Pure.
absl::StatusOr<planner::ModelFacts> ModelFactsFromConfigJson(std::string_view text,
                                                             const std::string& name);
absl::StatusOr<planner::HardwareFacts> HardwareFactsFromYaml(const std::string& text,
                                                             const std::string& name);

// Bytes of one element: "bf16" 2, "fp8" 1, "int4" 0.5, "q4_1" 0.625. InvalidArgument lists the
// names.
absl::StatusOr<double> BytesOfDtype(std::string_view name);

// A regular file of at most `most_bytes`, whole.
absl::StatusOr<std::string> ReadTextFile(const std::string& path, size_t most_bytes);

}  // namespace baton::cli
