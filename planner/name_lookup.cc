#include "planner/name_lookup.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "common/nearest_name.h"

namespace baton::planner {
namespace {

constexpr size_t kNearest = 3;
constexpr size_t kShownOfName = 64;

}  // namespace

std::string PlainName(std::string_view name) {
  std::string plain(name);
  for (char& c : plain) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    if (c == '_' || c == '.' || c == ' ' || c == '/') c = '-';
  }
  return plain;
}

int FindName(std::string_view name, const std::vector<std::string>& known) {
  const std::string plain = PlainName(name);
  const auto found = std::ranges::find_if(
      known, [&](const std::string& candidate) { return PlainName(candidate) == plain; });
  return found == known.end() ? -1 : static_cast<int>(found - known.begin());
}

std::string UnknownName(std::string_view kind, std::string_view name,
                        const std::vector<std::string>& known) {
  std::vector<std::string> left = known;
  std::vector<std::string> nearest;
  const std::string plain = PlainName(name);
  // Whoever wrote a part of a name means what has all of it; then by edit distance.
  for (const std::string& candidate : known) {
    if (nearest.size() < kNearest && plain.size() > 1 &&
        PlainName(candidate).find(plain) != std::string::npos) {
      nearest.push_back(candidate);
      std::erase(left, candidate);
    }
  }
  while (nearest.size() < kNearest) {
    const std::string next = NearestName(plain, left);
    if (next.empty()) break;
    nearest.push_back(next);
    std::erase(left, next);
  }
  const std::string shown(name.substr(0, kShownOfName));
  if (nearest.empty()) {
    return fmt::format("there is no {} '{}'; known: {}", kind, shown, fmt::join(known, ", "));
  }
  return fmt::format("there is no {} '{}'; nearest: {}", kind, shown, fmt::join(nearest, ", "));
}

}  // namespace baton::planner
