#include "kv_transfer/transport_faults.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <optional>
#include <vector>

#include "common/nearest_name.h"
#include "common/status_macros.h"

namespace baton::kv_transfer {
namespace {

using std::chrono::milliseconds;

constexpr int64_t kMostMs = 60'000;

struct Probability {
  std::string_view key;
  double TransportFaults::*field;
};
constexpr std::array kProbabilities = {
    Probability{"drop", &TransportFaults::drop},
    Probability{"duplicate", &TransportFaults::duplicate},
    Probability{"corrupt", &TransportFaults::corrupt},
    Probability{"truncate", &TransportFaults::truncate},
    Probability{"replay", &TransportFaults::replay},
    Probability{"forge", &TransportFaults::forge},
    Probability{"close", &TransportFaults::close},
    Probability{"stall", &TransportFaults::stall},
};
struct Time {
  std::string_view key;
  Duration TransportFaults::*field;
};
constexpr std::array kTimes = {
    Time{"stall-ms", &TransportFaults::stall_time},
    Time{"delay-ms", &TransportFaults::delay},
};
constexpr std::string_view kSeed = "seed";

template <typename Number>
std::optional<Number> Parse(std::string_view text) {
  Number number{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

absl::Status Unknown(std::string_view key) {
  std::vector<std::string> known = {std::string(kSeed)};
  for (const Probability& one : kProbabilities) known.emplace_back(one.key);
  for (const Time& one : kTimes) known.emplace_back(one.key);
  const std::string nearest = NearestName(key, known);
  return absl::InvalidArgumentError(
      nearest.empty()
          ? fmt::format("no transport fault '{}'; there are {}", key, fmt::join(known, ", "))
          : fmt::format("no transport fault '{}'; did you mean '{}'?", key, nearest));
}

absl::Status Set(std::string_view key, std::string_view value, TransportFaults* faults) {
  for (const Probability& one : kProbabilities) {
    if (one.key != key) continue;
    const auto number = Parse<double>(value);
    if (!number || !(*number >= 0 && *number <= 1)) {
      return absl::InvalidArgumentError(
          fmt::format("transport fault {}={}: a probability is from 0 to 1", key, value));
    }
    faults->*one.field = *number;
    return absl::OkStatus();
  }
  for (const Time& one : kTimes) {
    if (one.key != key) continue;
    const auto number = Parse<int64_t>(value);
    if (!number || *number < 0 || *number > kMostMs) {
      return absl::InvalidArgumentError(
          fmt::format("transport fault {}={}: milliseconds are from 0 to {}", key, value, kMostMs));
    }
    faults->*one.field = milliseconds(*number);
    return absl::OkStatus();
  }
  if (key != kSeed) return Unknown(key);
  const auto seed = Parse<uint64_t>(value);
  if (!seed) {
    return absl::InvalidArgumentError(
        fmt::format("transport fault seed={}: not a number of 64 bits", value));
  }
  faults->seed = *seed;
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TransportFaults> TransportFaultsFromText(std::string_view text) {
  TransportFaults faults;
  while (true) {
    const size_t comma = text.find(',');
    const std::string_view item = text.substr(0, comma);
    const size_t equals = item.find('=');
    if (equals == std::string_view::npos) {
      return absl::InvalidArgumentError(fmt::format("transport fault '{}' is not KEY=VALUE", item));
    }
    BATON_RETURN_IF_ERROR(Set(item.substr(0, equals), item.substr(equals + 1), &faults));
    if (comma == std::string_view::npos) return faults;
    text.remove_prefix(comma + 1);
  }
}

std::string ToText(const TransportFaults& faults) {
  std::vector<std::string> items;
  for (const Probability& one : kProbabilities) {
    if (faults.*one.field > 0) items.push_back(fmt::format("{}={}", one.key, faults.*one.field));
  }
  for (const Time& one : kTimes) {
    const auto ms = std::chrono::duration_cast<milliseconds>(faults.*one.field).count();
    if (ms > 0) items.push_back(fmt::format("{}={}", one.key, ms));
  }
  if (faults.seed != 0) items.push_back(fmt::format("{}={}", kSeed, faults.seed));
  return fmt::format("{}", fmt::join(items, ","));
}

}  // namespace baton::kv_transfer
