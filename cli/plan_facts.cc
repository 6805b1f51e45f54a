#include "cli/plan_facts.h"

#include <fmt/format.h>
#include <unistd.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <vector>

#include "bench/ceilings.h"
#include "common/dtype.h"
#include "common/nearest_name.h"
#include "common/status_macros.h"
#include "model_file/gguf.h"

namespace baton::cli {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;
using planner::HardwareFacts;
using planner::ModelFacts;

constexpr size_t kMostConfigBytes = 1 << 20;

bool EndsWith(std::string_view text, std::initializer_list<std::string_view> ends) {
  for (const std::string_view end : ends) {
    if (text.ends_with(end)) return true;
  }
  return false;
}

absl::StatusOr<ModelFacts> FactsFromGguf(const GgufFile& file) {
  BATON_ASSIGN_OR_RETURN(const std::string_view architecture, file.String("general.architecture"));
  const std::string prefix = std::string(architecture) + ".";
  ModelFacts model;
  BATON_ASSIGN_OR_RETURN(const std::string_view name,
                         file.StringOr("general.name", fs::path(file.path()).stem().string()));
  model.name = name;
  const auto read = [&](const char* key, int64_t fallback, int64_t* out) -> absl::Status {
    BATON_ASSIGN_OR_RETURN(*out, file.IntOr(prefix + key, fallback));
    return absl::OkStatus();
  };
  BATON_RETURN_IF_ERROR(read("block_count", 0, &model.layers));
  BATON_RETURN_IF_ERROR(read("embedding_length", 0, &model.embedding));
  BATON_RETURN_IF_ERROR(read("feed_forward_length", 0, &model.feed_forward));
  BATON_RETURN_IF_ERROR(read("attention.head_count", 0, &model.heads));
  BATON_RETURN_IF_ERROR(read("attention.head_count_kv", model.heads, &model.kv_heads));
  const int64_t share = model.heads > 0 ? model.embedding / model.heads : 0;
  BATON_RETURN_IF_ERROR(read("attention.key_length", share, &model.head_dim));
  BATON_RETURN_IF_ERROR(read("expert_count", 0, &model.experts));
  BATON_RETURN_IF_ERROR(read("expert_used_count", 0, &model.experts_per_token));
  BATON_RETURN_IF_ERROR(
      read("expert_feed_forward_length", model.feed_forward, &model.expert_feed_forward));
  int64_t shared_experts = 0;
  BATON_RETURN_IF_ERROR(read("expert_shared_count", 0, &shared_experts));
  model.shared_feed_forward = shared_experts * model.expert_feed_forward;
  BATON_RETURN_IF_ERROR(read("leading_dense_block_count", 0, &model.dense_layers));
  const GgufTensor* embedding = file.FindTensor("token_embd.weight");
  model.vocab = embedding == nullptr ? 0 : embedding->rows();
  model.tied_embedding = file.FindTensor("output.weight") == nullptr;
  double bytes = 0;
  for (const GgufTensor& tensor : file.tensors()) {
    model.stated_parameters += static_cast<double>(tensor.rows() * tensor.cols());
    bytes += static_cast<double>(tensor.data.size());
  }
  if (model.stated_parameters > 0) model.stored_bytes_each = bytes / model.stated_parameters;
  return model;
}

// Integer fields of a config.json, some under one of several names.
class ConfigReader {
 public:
  ConfigReader(const json::object& object, const std::string& name)
      : object_(object), name_(name) {}

  absl::StatusOr<int64_t> Int(std::initializer_list<std::string_view> keys, int64_t fallback) {
    for (const std::string_view key : keys) {
      const json::value* value = object_.if_contains(key);
      if (value == nullptr || value->is_null()) continue;
      if (value->is_int64() && value->get_int64() >= 0) return value->get_int64();
      return absl::InvalidArgumentError(fmt::format("{}: '{}' must be a positive integer, not {}",
                                                    name_, std::string(key),
                                                    json::serialize(*value).substr(0, 40)));
    }
    return fallback;
  }

 private:
  const json::object& object_;
  const std::string& name_;
};

absl::Status ReadShape(ConfigReader& config, ModelFacts* model) {
  BATON_ASSIGN_OR_RETURN(model->layers, config.Int({"num_hidden_layers", "n_layer"}, 0));
  BATON_ASSIGN_OR_RETURN(model->embedding, config.Int({"hidden_size", "n_embd"}, 0));
  BATON_ASSIGN_OR_RETURN(model->feed_forward, config.Int({"intermediate_size"}, 0));
  BATON_ASSIGN_OR_RETURN(model->heads, config.Int({"num_attention_heads", "n_head"}, 0));
  BATON_ASSIGN_OR_RETURN(model->kv_heads, config.Int({"num_key_value_heads"}, model->heads));
  const int64_t share = model->heads > 0 ? model->embedding / model->heads : 0;
  BATON_ASSIGN_OR_RETURN(model->head_dim, config.Int({"head_dim"}, share));
  BATON_ASSIGN_OR_RETURN(model->vocab, config.Int({"vocab_size"}, 0));
  BATON_ASSIGN_OR_RETURN(model->experts,
                         config.Int({"num_local_experts", "n_routed_experts", "num_experts"}, 0));
  BATON_ASSIGN_OR_RETURN(model->experts_per_token, config.Int({"num_experts_per_tok"}, 0));
  BATON_ASSIGN_OR_RETURN(model->expert_feed_forward,
                         config.Int({"moe_intermediate_size"}, model->feed_forward));
  BATON_ASSIGN_OR_RETURN(const int64_t shared, config.Int({"n_shared_experts"}, 0));
  if (shared > 1024) return absl::InvalidArgumentError("n_shared_experts is above 1024");
  model->shared_feed_forward = shared * model->expert_feed_forward;
  BATON_ASSIGN_OR_RETURN(model->dense_layers, config.Int({"first_k_dense_replace"}, 0));
  BATON_ASSIGN_OR_RETURN(model->mla_kv_rank, config.Int({"kv_lora_rank"}, 0));
  if (model->mla_kv_rank > 0) {
    BATON_ASSIGN_OR_RETURN(model->mla_query_rank, config.Int({"q_lora_rank"}, 0));
    BATON_ASSIGN_OR_RETURN(model->mla_rope_dim, config.Int({"qk_rope_head_dim"}, 0));
    BATON_ASSIGN_OR_RETURN(model->mla_value_dim, config.Int({"v_head_dim"}, 0));
    BATON_ASSIGN_OR_RETURN(model->head_dim, config.Int({"qk_nope_head_dim"}, model->head_dim));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::string> ReadTextFile(const std::string& path, size_t most_bytes) {
  std::error_code error;
  if (!fs::is_regular_file(path, error)) {
    return absl::NotFoundError(fmt::format("there is no file {}", path));
  }
  const uintmax_t bytes = fs::file_size(path, error);
  if (error || bytes > most_bytes) {
    return absl::InvalidArgumentError(fmt::format("{} has {} bytes, but must have at most {}", path,
                                                  error ? 0 : bytes, most_bytes));
  }
  std::ifstream file(path, std::ios::binary);
  std::string text(bytes, '\0');
  file.read(text.data(), static_cast<std::streamsize>(bytes));
  if (!file) return absl::UnavailableError(fmt::format("cannot read {}", path));
  return text;
}

absl::StatusOr<ModelFacts> ModelFactsFromConfigJson(std::string_view text,
                                                    const std::string& name) {
  boost::system::error_code error;
  const json::value parsed = json::parse(text, error);
  if (error || !parsed.is_object()) {
    return absl::InvalidArgumentError(fmt::format("{} is no JSON object{}", name,
                                                  error ? ": " + error.message() : std::string()));
  }
  const json::object* object = &parsed.get_object();
  // Models that also see images have the language model's numbers one level down.
  if (const json::value* inner = object->if_contains("text_config");
      inner != nullptr && inner->is_object()) {
    object = &inner->get_object();
  }
  ModelFacts model{.name = name};
  ConfigReader config(*object, name);
  BATON_RETURN_IF_ERROR(ReadShape(config, &model));
  const json::value* tied = object->if_contains("tie_word_embeddings");
  model.tied_embedding = tied != nullptr && tied->is_bool() && tied->get_bool();
  const absl::Status sound = planner::CheckModelFacts(model);
  if (!sound.ok()) return sound;
  return model;
}

absl::StatusOr<ModelFacts> LoadModelFacts(const std::string& name_or_path) {
  std::error_code error;
  if (EndsWith(name_or_path, {".gguf"})) {
    BATON_ASSIGN_OR_RETURN(const auto file, GgufFile::Open(name_or_path));
    BATON_ASSIGN_OR_RETURN(const ModelFacts model, FactsFromGguf(*file));
    BATON_RETURN_IF_ERROR(planner::CheckModelFacts(model));
    return model;
  }
  const bool folder = fs::is_directory(name_or_path, error);
  if (folder || EndsWith(name_or_path, {".json"})) {
    const std::string path = folder ? name_or_path + "/config.json" : name_or_path;
    BATON_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(path, kMostConfigBytes));
    return ModelFactsFromConfigJson(text, path);
  }
  return planner::KnownModelFacts(name_or_path);
}

absl::StatusOr<HardwareFacts> HardwareFactsFromYaml(const std::string& text,
                                                    const std::string& name) {
  HardwareFacts hardware{.name = name};
  const std::vector<std::pair<std::string, double*>> numbers = {
      {"flops_16bit_per_s", &hardware.flops_16bit_per_s},
      {"flops_8bit_per_s", &hardware.flops_8bit_per_s},
      {"hbm_bytes", &hardware.hbm_bytes},
      {"hbm_bytes_per_s", &hardware.hbm_bytes_per_s},
      {"link_bytes_per_s", &hardware.link_bytes_per_s},
      {"network_bytes_per_s", &hardware.network_bytes_per_s}};
  std::vector<std::string> known = {"name", "link_axes", "domain_chips"};
  for (const auto& [key, value] : numbers) known.push_back(key);
  try {
    const YAML::Node root = YAML::Load(text);
    if (!root.IsMap()) return absl::InvalidArgumentError(name + " must be a map of keys");
    for (const auto& entry : root) {
      const std::string key = entry.first.as<std::string>();
      const auto number = std::find_if(numbers.begin(), numbers.end(),
                                       [&](const auto& n) { return n.first == key; });
      if (number != numbers.end()) {
        *number->second = entry.second.as<double>();
      } else if (key == "name") {
        hardware.name = entry.second.as<std::string>();
      } else if (key == "link_axes") {
        hardware.link_axes = entry.second.as<int64_t>();
      } else if (key == "domain_chips") {
        hardware.domain_chips = entry.second.as<int64_t>();
      } else {
        return absl::InvalidArgumentError(
            fmt::format("{}: unknown key '{}'{}", name, key, DidYouMean(key, known)));
      }
    }
  } catch (const YAML::Exception& error) {
    return absl::InvalidArgumentError(fmt::format("{}: {}", name, error.what()));
  }
  BATON_RETURN_IF_ERROR(planner::CheckHardwareFacts(hardware));
  return hardware;
}

absl::StatusOr<HardwareFacts> MeasureThisCpu() {
  BATON_ASSIGN_OR_RETURN(const bench::Ceilings ceilings, bench::MeasureCeilings({}));
  const double memory_bytes =
      static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGE_SIZE));
  HardwareFacts cpu{
      .name = std::string(kThisCpu),
      .flops_16bit_per_s = std::max(ceilings.fp32_gop_s, ceilings.bf16_gop_s.value_or(0)) * 1e9,
      .flops_8bit_per_s = ceilings.int8_gop_s.value_or(0) * 1e9,
      .hbm_bytes = memory_bytes,
      .hbm_bytes_per_s = ceilings.dram_read_gb_s * 1e9,
      .network_bytes_per_s = 1.25e9};
  BATON_RETURN_IF_ERROR(planner::CheckHardwareFacts(cpu));
  return cpu;
}

absl::StatusOr<HardwareFacts> LoadHardwareFacts(const std::string& name_or_path) {
  if (name_or_path == kThisCpu) return MeasureThisCpu();
  if (!EndsWith(name_or_path, {".yaml", ".yml", ".json"})) {
    return planner::KnownHardwareFacts(name_or_path);
  }
  BATON_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(name_or_path, kMostConfigBytes));
  return HardwareFactsFromYaml(text, name_or_path);
}

absl::StatusOr<double> BytesOfDtype(std::string_view name) {
  static constexpr std::pair<std::string_view, double> kNames[] = {
      {"bf16", 2}, {"f16", 2}, {"fp16", 2}, {"f32", 4}, {"fp8", 1}, {"int8", 1}, {"int4", 0.5}};
  for (const auto& [known, bytes] : kNames) {
    if (known == name) return bytes;
  }
  if (const std::optional<DType> dtype = DTypeFromName(name)) {
    const DTypeTraits& traits = Traits(*dtype);
    return static_cast<double>(traits.block_bytes) / traits.block_elements;
  }
  return absl::InvalidArgumentError(fmt::format(
      "there is no format '{}'; known: bf16, f16, f32, fp8, int8, int4, q8_0, q4_0, q4_1, q5_0, "
      "q5_1, q4_k, q5_k, q6_k",
      std::string(name.substr(0, 40))));
}

}  // namespace baton::cli
