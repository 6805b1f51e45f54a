#pragma once

// The keys file: who may ask, and how much. docs/security.md describes it.
//
// A key is 32 random bytes, so nobody finds it by trying, and a plain SHA-256 of it is as good as
// any slow hash: those protect what people choose. The file holds only the hashes.

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "router/fair_queue.h"
#include "router/key_meter.h"

namespace baton::router {

using KeyDigest = std::array<uint8_t, 32>;  // SHA-256

struct ApiKey {
  std::string name;  // of the key; for people
  KeyDigest digest{};
  std::string tenant;  // whose fair share and prefix cache it uses; by default its name
  Priority priority = Priority::kNormal;
  KeyLimits limits;
  bool revoked = false;
};

inline constexpr size_t kMaxApiKeys = 100'000;
inline constexpr size_t kMaxKeyNameBytes = 64;

// "bk-" and 43 characters of base64url.
std::string NewApiKey();
KeyDigest DigestOf(std::string_view key);
std::string ToHex(const KeyDigest& digest);

// YAML, and so JSON too: `keys:` with a list. InvalidArgument with the key's name or place for an
// unknown field (naming the nearest known one), a missing or unsound one, and names or hashes that
// come twice.
absl::StatusOr<std::vector<ApiKey>> ParseApiKeys(const std::string& text);
std::string FormatApiKeys(const std::vector<ApiKey>& keys);

// NotFound when there is no such file; InvalidArgument as above, and over 64 MiB.
absl::StatusOr<std::vector<ApiKey>> ReadApiKeys(const std::string& path);
// In one step, readable by its owner only: a router that reads it meanwhile sees the old or the new
// file.
absl::Status WriteApiKeys(const std::string& path, const std::vector<ApiKey>& keys);

}  // namespace baton::router
