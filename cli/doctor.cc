// `baton doctor`: what this machine has of what Baton can use, and what is missing.

#include <dlfcn.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <boost/json.hpp>
#include <cstdio>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "cli/command_line.h"
#include "kernels/cpu/cpu_isa.h"
#include "kernels/ops.h"

namespace baton::cli {
namespace {

// Where it is not found, something is slower or not possible.
struct Check {
  std::string name;
  bool found = false;
  std::string text;
};

Check CpuCheck() {
  std::string sets;
  for (const auto isa : {kernels::CpuIsa::kPortable, kernels::CpuIsa::kAvx2,
                         kernels::CpuIsa::kAvx512, kernels::CpuIsa::kAmx}) {
    if (kernels::ResolveCpuIsa(isa).ok()) sets += fmt::format(" {}", kernels::CpuIsaName(isa));
  }
  const bool fast = kernels::ResolveCpuIsa(kernels::CpuIsa::kAvx2).ok();
  return {"cpu", fast,
          fmt::format("{} usable CPUs; instruction sets:{}", kernels::UsableCpus(), sets)};
}

Check HugePagesCheck() {
  std::string line;
  std::ifstream file("/sys/kernel/mm/transparent_hugepage/enabled");
  if (!std::getline(file, line)) return {"huge pages", false, "the kernel does not tell"};
  const bool off = line.find("[never]") != std::string::npos;
  return {"huge pages", !off, "transparent_hugepage/enabled: " + line};
}

Check LibraryCheck(const std::string& name, const std::string& library, const std::string& use) {
  void* const handle = dlopen(library.c_str(), RTLD_LAZY | RTLD_LOCAL);
  if (handle == nullptr) {
    return {name, false, fmt::format("no {}: {}", library, use)};
  }
  dlclose(handle);
  return {name, true, library};
}

Check DriverCheck() {
  std::string line;
  std::ifstream file("/proc/driver/nvidia/version");
  if (!std::getline(file, line)) {
    return LibraryCheck("NVIDIA driver", "libcuda.so.1", "GPUs cannot be used");
  }
  return {"NVIDIA driver", true, line};
}

// Opens each GPU as a worker would.
std::vector<Check> GpuChecks() {
  std::vector<Check> checks;
  for (int32_t gpu = 0; gpu < 64; ++gpu) {
    const auto ops = kernels::CreateCudaOps({.gpu = gpu, .max_rows = 1});
    if (!ops.ok() && gpu > 0) break;
    checks.push_back({fmt::format("GPU {}", gpu), ops.ok(),
                      ops.ok() ? (*ops)->Describe() : std::string(ops.status().message())});
    if (!ops.ok()) break;
  }
  return checks;
}

std::vector<Check> AllChecks() {
  std::vector<Check> checks = {
      CpuCheck(), HugePagesCheck(),
      LibraryCheck("UCX", "libucp.so.0", "the transport ucx cannot be had"), DriverCheck()};
  for (Check& check : GpuChecks()) checks.push_back(std::move(check));
  checks.push_back(LibraryCheck("NCCL", "libnccl.so.2", "the transport nccl cannot be had"));
  return checks;
}

}  // namespace

Action AddDoctor(CLI::App* app) {
  auto json = std::make_shared<bool>(false);
  app->add_flag("--json", *json, "print a JSON array of {\"name\",\"found\",\"text\"}");
  return [json]() -> absl::Status {
    const std::vector<Check> checks = AllChecks();
    if (*json) {
      boost::json::array array;
      for (const Check& check : checks) {
        array.push_back({{"name", check.name}, {"found", check.found}, {"text", check.text}});
      }
      std::puts(boost::json::serialize(array).c_str());
      return absl::OkStatus();
    }
    for (const Check& check : checks) {
      fmt::print("{:<8}{:<14}{}\n", check.found ? "ok" : "missing", check.name, check.text);
    }
    return absl::OkStatus();
  };
}

}  // namespace baton::cli
