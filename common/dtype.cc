#include "common/dtype.h"

#include <strings.h>

#include <array>

namespace baton {
namespace {

constexpr std::array<DTypeTraits, 11> kTraits = {{
    {"F32", 1, 4},
    {"F16", 1, 2},
    {"BF16", 1, 2},
    {"Q8_0", 32, 34},
    {"Q4_0", 32, 18},
    {"Q4_1", 32, 20},
    {"Q5_0", 32, 22},
    {"Q5_1", 32, 24},
    {"Q4_K", 256, 144},
    {"Q5_K", 256, 176},
    {"Q6_K", 256, 210},
}};

}  // namespace

const DTypeTraits& Traits(DType dtype) { return kTraits[static_cast<size_t>(dtype)]; }

std::optional<DType> DTypeFromName(std::string_view name) {
  for (size_t i = 0; i < kTraits.size(); ++i) {
    const std::string_view known = kTraits[i].name;
    if (known.size() == name.size() && strncasecmp(known.data(), name.data(), name.size()) == 0) {
      return static_cast<DType>(i);
    }
  }
  return std::nullopt;
}

}  // namespace baton
