#pragma once

// The tensors of a llama model by role, found in the file and checked against the configuration.

#include <vector>

#include "absl/status/statusor.h"
#include "engine/model_config.h"
#include "model_file/gguf.h"

namespace baton::engine {

// Matrices are [output features][input features], row-major. All point into the GgufFile.
struct LayerTensors {
  const GgufTensor* attention_norm = nullptr;     // [embedding]
  const GgufTensor* query = nullptr;              // [heads * head_dim][embedding]
  const GgufTensor* key = nullptr;                // [kv_heads * head_dim][embedding]
  const GgufTensor* value = nullptr;              // [kv_heads * head_dim][embedding]
  const GgufTensor* attention_output = nullptr;   // [embedding][heads * head_dim]
  const GgufTensor* feed_forward_norm = nullptr;  // [embedding]
  const GgufTensor* gate = nullptr;               // [feed_forward][embedding]
  const GgufTensor* up = nullptr;                 // [feed_forward][embedding]
  const GgufTensor* down = nullptr;               // [embedding][feed_forward]
};

struct ModelTensors {
  const GgufTensor* embedding = nullptr;         // [vocab][embedding]
  const GgufTensor* output = nullptr;            // [vocab][embedding]; null when tied
  const GgufTensor* output_norm = nullptr;       // [embedding]
  const GgufTensor* rope_frequencies = nullptr;  // [rope_dim / 2] divisors; null when absent
  std::vector<LayerTensors> layers;
};

// InvalidArgument names a tensor that is missing, has another shape than `config` wants, or that
// the architecture does not have (a bias, an expert): what is not understood is not left out.
absl::StatusOr<ModelTensors> FindTensors(const GgufFile& file, const ModelConfig& config);

// A norm's or divisor's values: F32, or F16 converted. InvalidArgument for other types, and for
// values that are not finite.
absl::StatusOr<std::vector<float>> VectorValues(const GgufTensor& tensor);

}  // namespace baton::engine
