#pragma once

// The numbers of a model, read from its file and checked.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/ids.h"
#include "kernels/ops.h"
#include "model_file/gguf.h"

namespace baton::engine {

struct ModelConfig {
  std::string architecture;  // "llama"
  std::string name;          // general.name
  int32_t layers = 0;
  int32_t embedding = 0;  // width of the residual stream
  int32_t feed_forward = 0;
  int32_t heads = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  int32_t vocab = 0;
  int32_t context = 0;  // longest sequence, prompt and output together
  float rms_epsilon = 0;
  kernels::RopePairs rope_pairs = kernels::RopePairs::kInterleaved;
  int32_t rope_dim = 0;
  float rope_base = 0;
  float rope_factor = 1;            // linear scaling: positions are divided by it
  bool tied_output = false;         // the output matrix is the embedding table
  bool bf16_weights = false;        // of some tensors
  std::vector<TokenId> end_tokens;  // what ends a sequence (model_file/end_tokens.h)

  // SHA-256 (hex) over the file's size, metadata, tensor directory and a sample of every tensor
  // (fingerprint.h): workers with different fingerprints never exchange KV.
  std::string fingerprint;

  // InvalidArgument names the key or tensor that is missing, unsupported or inconsistent, with the
  // numbers ("blk.0.attn_k.weight is 576 x 64, but must be 576 x 192 for 3 kv heads of 64").
  static absl::StatusOr<ModelConfig> FromGguf(const GgufFile& file);
};

}  // namespace baton::engine
