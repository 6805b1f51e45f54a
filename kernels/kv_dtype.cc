#include "kernels/kv_dtype.h"

#include <strings.h>

#include <cctype>

namespace baton::kernels {
namespace {

constexpr KvDTypeTraits kTraits[] = {{"F32", 4, 1, false},
                                     {"F16", 2, 1, false},
                                     {"BF16", 2, 2, false},
                                     {"INT8", 1, 1, true},
                                     {"FP8", 1, 1, true}};

}  // namespace

const KvDTypeTraits& Traits(KvDType dtype) { return kTraits[static_cast<size_t>(dtype)]; }

std::optional<KvDType> KvDTypeFromName(std::string_view name) {
  for (const KvDType dtype : kKvDTypes) {
    const std::string_view known = Traits(dtype).name;
    if (known.size() == name.size() && strncasecmp(known.data(), name.data(), name.size()) == 0) {
      return dtype;
    }
  }
  return std::nullopt;
}

std::string KvDTypeNames() {
  std::string names;
  for (const KvDType dtype : kKvDTypes) {
    if (!names.empty()) names += ", ";
    for (const char c : Traits(dtype).name) names += static_cast<char>(std::tolower(c));
  }
  return names;
}

}  // namespace baton::kernels
