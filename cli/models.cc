// `baton models`: what lies in the models folder, and what can be pulled.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <boost/json.hpp>
#include <filesystem>
#include <map>
#include <memory>

#include "cli/command_line.h"
#include "cli/known_models.h"
#include "model_file/gguf.h"

namespace baton::cli {
namespace {

namespace fs = std::filesystem;

struct ModelsFlags {
  std::string models_dir = "models";
  bool json = false;
};

struct LocalModel {
  std::string path;
  std::string error;  // not "": the file is not sound, and why
  std::string name, architecture, weights;
  int64_t parameters = 0, context_tokens = 0, bytes = 0;
};

// The number format that holds the most bytes.
std::string MainFormat(const GgufFile& file) {
  std::map<DType, size_t> bytes;
  for (const GgufTensor& tensor : file.tensors()) bytes[tensor.dtype] += tensor.data.size();
  const auto largest = std::max_element(
      bytes.begin(), bytes.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  return largest == bytes.end() ? "" : std::string(Traits(largest->first).name);
}

LocalModel Inspect(const fs::path& path) {
  LocalModel model{.path = path.string()};
  const auto file = GgufFile::Open(path.string());
  if (!file.ok()) {
    model.error = std::string(file.status().message());
    return model;
  }
  const GgufFile& gguf = **file;
  model.bytes = gguf.file_bytes();
  model.architecture = gguf.StringOr("general.architecture", "").value_or("");
  model.name = gguf.StringOr("general.name", "").value_or("");
  model.context_tokens = gguf.IntOr(model.architecture + ".context_length", 0).value_or(0);
  model.weights = MainFormat(gguf);
  for (const GgufTensor& tensor : gguf.tensors()) model.parameters += tensor.rows() * tensor.cols();
  return model;
}

std::vector<LocalModel> LocalModels(const std::string& folder) {
  std::vector<LocalModel> models;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, error)) {
    if (entry.path().extension() == ".gguf") models.push_back(Inspect(entry.path()));
  }
  std::sort(models.begin(), models.end(),
            [](const LocalModel& a, const LocalModel& b) { return a.path < b.path; });
  return models;
}

void PrintJson(const std::vector<LocalModel>& models) {
  boost::json::array local, known;
  for (const LocalModel& model : models) {
    boost::json::object row{{"path", model.path},
                            {"name", model.name},
                            {"architecture", model.architecture},
                            {"weights", model.weights},
                            {"parameters", model.parameters},
                            {"context_tokens", model.context_tokens},
                            {"bytes", model.bytes}};
    if (!model.error.empty()) row["error"] = model.error;
    local.push_back(std::move(row));
  }
  for (const KnownModel& model : KnownModels()) {
    known.push_back({{"name", std::string(model.name)},
                     {"file", std::string(model.file)},
                     {"bytes", model.bytes},
                     {"licence", std::string(model.licence)}});
  }
  std::puts(
      boost::json::serialize(boost::json::object{{"local", local}, {"known", known}}).c_str());
}

void PrintTable(const std::string& folder, const std::vector<LocalModel>& models) {
  fmt::print("in {}:\n", folder);
  if (models.empty()) fmt::print("  (none)\n");
  for (const LocalModel& model : models) {
    if (!model.error.empty()) {
      fmt::print("  {}  not usable: {}\n", model.path, model.error);
      continue;
    }
    fmt::print("  {}  {} {} {:.0f}M parameters, context {}, {:.0f} MB\n", model.path,
               model.architecture, model.weights, model.parameters / 1e6, model.context_tokens,
               model.bytes / 1e6);
  }
  fmt::print("`baton pull NAME` gets:\n");
  for (const KnownModel& model : KnownModels()) {
    fmt::print("  {}  {}, {:.0f} MB, {}\n", model.name, model.file, model.bytes / 1e6,
               model.licence);
  }
}

}  // namespace

Action AddModels(CLI::App* app) {
  auto flags = std::make_shared<ModelsFlags>();
  app->add_option("--models-dir", flags->models_dir, "where models are kept")
      ->capture_default_str();
  app->add_flag("--json", flags->json, "print JSON");
  return [flags]() -> absl::Status {
    const std::vector<LocalModel> models = LocalModels(flags->models_dir);
    if (flags->json) {
      PrintJson(models);
    } else {
      PrintTable(flags->models_dir, models);
    }
    return absl::OkStatus();
  };
}

}  // namespace baton::cli
