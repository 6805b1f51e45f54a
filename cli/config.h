#pragma once

// Values for flags from a YAML file and from the environment.

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace baton::cli {

struct ConfigKey {
  std::string name;   // "block-tokens": flag --block-tokens, BATON_BLOCK_TOKENS
  bool list = false;  // takes several values
};

// "block-tokens" -> "BATON_BLOCK_TOKENS".
std::string VariableName(const std::string& key);

// `arguments`, after `--key=value` for each of `keys` that they do not give but the environment
// or the file named by --config (or BATON_CONFIG) does; the environment wins over the file.
//
// The file is one YAML map of scalars and lists of scalars, at most 1 MiB. InvalidArgument for an
// unknown key (not in `all_keys`, the keys of every command: one file may serve several) or an
// unknown BATON_ variable, naming the nearest known one; for a wrong shape; NotFound when there is
// no such file.
absl::StatusOr<std::vector<std::string>> MergeConfig(
    const std::vector<ConfigKey>& keys, const std::vector<ConfigKey>& all_keys,
    const std::vector<std::string>& arguments,
    const std::map<std::string, std::string>& environment);

}  // namespace baton::cli
