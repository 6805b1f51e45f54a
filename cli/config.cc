#include "cli/config.h"

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cctype>
#include <fstream>
#include <optional>
#include <sstream>

#include "common/nearest_name.h"
#include "common/status_macros.h"

namespace baton::cli {
namespace {

constexpr size_t kMaxFileBytes = 1 << 20;
constexpr std::string_view kPrefix = "BATON_";

using Values = std::map<std::string, std::vector<std::string>>;

bool Contains(const std::vector<ConfigKey>& keys, const std::string& name) {
  return std::any_of(keys.begin(), keys.end(),
                     [&](const ConfigKey& key) { return key.name == name; });
}

bool Gives(const std::vector<std::string>& arguments, const std::string& key) {
  const std::string flag = "--" + key;
  return std::any_of(arguments.begin(), arguments.end(), [&](const std::string& argument) {
    return argument == flag || argument.starts_with(flag + "=");
  });
}

// The value of --config in the arguments, else BATON_CONFIG.
std::optional<std::string> ConfigPath(const std::vector<std::string>& arguments,
                                      const std::map<std::string, std::string>& environment) {
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (arguments[i] == "--config" && i + 1 < arguments.size()) return arguments[i + 1];
    if (arguments[i].starts_with("--config=")) return arguments[i].substr(9);
  }
  if (const auto found = environment.find("BATON_CONFIG"); found != environment.end()) {
    return found->second;
  }
  return std::nullopt;
}

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return absl::NotFoundError(fmt::format("cannot read the configuration file {}", path));
  std::string text(kMaxFileBytes + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(file.gcount()));
  if (text.size() > kMaxFileBytes) {
    return absl::InvalidArgumentError(
        fmt::format("{} is larger than {} bytes", path, kMaxFileBytes));
  }
  return text;
}

absl::StatusOr<std::vector<std::string>> Scalars(const std::string& path, const std::string& key,
                                                 const YAML::Node& node) {
  if (node.IsScalar()) return std::vector<std::string>{node.Scalar()};
  std::vector<std::string> values;
  bool sound = node.IsSequence();
  for (const YAML::Node& item : node) {
    sound = sound && item.IsScalar();
    if (sound) values.push_back(item.Scalar());
  }
  if (sound) return values;
  return absl::InvalidArgumentError(
      fmt::format("{}: '{}' must be a value or a list of values", path, key));
}

absl::StatusOr<Values> ReadYaml(const std::string& path, const std::vector<ConfigKey>& all_keys) {
  BATON_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  Values values;
  try {
    const YAML::Node root = YAML::Load(text);
    if (root.IsNull()) return values;
    if (!root.IsMap()) {
      return absl::InvalidArgumentError(fmt::format("{} must be a map of keys to values", path));
    }
    for (const auto& entry : root) {
      const std::string key = entry.first.Scalar();
      if (!Contains(all_keys, key)) {
        std::vector<std::string> known;
        for (const ConfigKey& k : all_keys) known.push_back(k.name);
        return absl::InvalidArgumentError(
            fmt::format("{}: unknown key '{}'{}", path, key, DidYouMean(key, known)));
      }
      BATON_ASSIGN_OR_RETURN(values[key], Scalars(path, key, entry.second));
    }
  } catch (const YAML::Exception& error) {
    return absl::InvalidArgumentError(fmt::format("{}: {}", path, error.what()));
  }
  return values;
}

absl::Status CheckVariables(const std::map<std::string, std::string>& environment,
                            const std::vector<ConfigKey>& all_keys) {
  std::vector<std::string> known = {"BATON_CONFIG"};
  for (const ConfigKey& key : all_keys) known.push_back(VariableName(key.name));
  for (const auto& [name, value] : environment) {
    if (!name.starts_with(kPrefix) || std::count(known.begin(), known.end(), name) > 0) continue;
    return absl::InvalidArgumentError(
        fmt::format("unknown variable {} in the environment{}", name, DidYouMean(name, known)));
  }
  return absl::OkStatus();
}

}  // namespace

std::string VariableName(const std::string& key) {
  std::string name(kPrefix);
  for (const char c : key) {
    name += c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  }
  return name;
}

absl::StatusOr<std::vector<std::string>> MergeConfig(
    const std::vector<ConfigKey>& keys, const std::vector<ConfigKey>& all_keys,
    const std::vector<std::string>& arguments,
    const std::map<std::string, std::string>& environment) {
  BATON_RETURN_IF_ERROR(CheckVariables(environment, all_keys));
  Values file;
  if (const std::optional<std::string> path = ConfigPath(arguments, environment)) {
    BATON_ASSIGN_OR_RETURN(file, ReadYaml(*path, all_keys));
  }
  // In front, so that what follows a "--" stays behind it, and positional arguments keep their
  // place.
  std::vector<std::string> merged;
  for (const ConfigKey& key : keys) {
    if (Gives(arguments, key.name)) continue;
    if (const auto found = environment.find(VariableName(key.name)); found != environment.end()) {
      merged.push_back(fmt::format("--{}={}", key.name, found->second));
    } else if (const auto value = file.find(key.name); value != file.end()) {
      if (value->second.size() != 1 && !key.list) {
        return absl::InvalidArgumentError(
            fmt::format("'{}' takes one value, not {}", key.name, value->second.size()));
      }
      for (const std::string& item : value->second) {
        merged.push_back(fmt::format("--{}={}", key.name, item));
      }
    }
  }
  merged.insert(merged.end(), arguments.begin(), arguments.end());
  return merged;
}

}  // namespace baton::cli
