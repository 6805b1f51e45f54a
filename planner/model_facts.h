#pragma once

// What a plan needs to know of a model: its shape. Everything that follows from the shape
// (parameters, bytes, FLOPs) is computed in cost_model.h.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace baton::planner {

struct ModelFacts {
  std::string name;
  int64_t layers = 0;
  int64_t embedding = 0;     // width of the residual stream
  int64_t feed_forward = 0;  // width of a dense feed-forward, of three matrices (gated)
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t vocab = 0;
  bool tied_embedding = false;  // the output matrix is the embedding table

  // Mixture of experts. The first `dense_layers` have a dense feed-forward, the others experts.
  int64_t experts = 0;  // 0: a dense model
  int64_t experts_per_token = 0;
  int64_t expert_feed_forward = 0;  // width of one expert
  int64_t shared_feed_forward = 0;  // width of all experts that every token takes, together
  int64_t dense_layers = 0;

  // Multi-head latent attention: KV is one vector of `mla_kv_rank` and a rotary key of
  // `mla_rope_dim` for all heads. head_dim is then the part of a key without rotation.
  int64_t mla_kv_rank = 0;     // 0: K and V of every kv head
  int64_t mla_query_rank = 0;  // 0: queries are projected at once
  int64_t mla_rope_dim = 0;
  int64_t mla_value_dim = 0;

  // Layers whose attention sees the last `window_tokens` only, and keeps no more KV.
  int64_t windowed_layers = 0;
  int64_t window_tokens = 0;

  // Counted in the model's own file; 0: computed from the shape.
  double stated_parameters = 0;
  // As its name has them ("70B"), which is what a book computes with; 0: the same as counted.
  double nominal_parameters = 0;
  // Bytes of a parameter as stored in the model's own file, all formats averaged; 0: not from one.
  double stored_bytes_each = 0;
};

// InvalidArgument says which number is missing or makes no sense, with the number.
absl::Status CheckModelFacts(const ModelFacts& model);

// By the name that people use ("llama-3-70b"; case, '_' and '.' for '-' do not matter). NotFound
// names the nearest known ones.
absl::StatusOr<ModelFacts> KnownModelFacts(std::string_view name);
std::vector<std::string> KnownModelNames();

}  // namespace baton::planner
