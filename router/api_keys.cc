#include "router/api_keys.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <openssl/rand.h>
#include <openssl/sha.h>
#include <unistd.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <set>

#include "common/nearest_name.h"
#include "common/status_macros.h"

namespace baton::router {
namespace {

constexpr size_t kMaxKeysFileBytes = size_t{64} << 20;
constexpr std::string_view kHexDigits = "0123456789abcdef";
constexpr std::string_view kBase64Url =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
constexpr double kMaxRate = 1e9;
constexpr int64_t kMaxTokens = int64_t{1} << 50;

absl::StatusOr<KeyDigest> FromHex(const std::string& text) {
  KeyDigest digest{};
  if (text.size() != 2 * digest.size()) {
    return absl::InvalidArgumentError(fmt::format(
        "'sha256' has {} characters, but must have 64 hexadecimal digits", text.size()));
  }
  for (size_t i = 0; i < text.size(); ++i) {
    const size_t digit = kHexDigits.find(text[i]);
    if (digit == std::string_view::npos) {
      return absl::InvalidArgumentError("'sha256' must have 64 hexadecimal digits, in lower case");
    }
    digest[i / 2] = static_cast<uint8_t>(digest[i / 2] << 4 | digit);
  }
  return digest;
}

// Names go into metrics, logs and cache salts.
absl::Status CheckName(const char* field, const std::string& name) {
  const bool sound =
      !name.empty() && name.size() <= kMaxKeyNameBytes && std::ranges::all_of(name, [](char c) {
        return std::isalnum(static_cast<unsigned char>(c)) != 0 ||
               std::strchr("-_.@", c) != nullptr;
      });
  if (sound) return absl::OkStatus();
  return absl::InvalidArgumentError(fmt::format(
      "'{}' must have 1 to {} letters, digits, '-', '_', '.' and '@'", field, kMaxKeyNameBytes));
}

template <typename Number>
absl::Status ReadNumber(const char* field, const YAML::Node& node, Number most, Number* to) {
  if (!node) return absl::OkStatus();
  if (!YAML::convert<Number>::decode(node, *to) || !(*to >= 0) || *to > most) {
    return absl::InvalidArgumentError(
        fmt::format("'{}' must be a number from 0 (no limit) to {}", field, most));
  }
  return absl::OkStatus();
}

absl::Status CheckFields(const YAML::Node& entry) {
  static const std::vector<std::string> known = {"name",
                                                 "sha256",
                                                 "tenant",
                                                 "priority",
                                                 "requests-per-second",
                                                 "concurrent-requests",
                                                 "tokens-per-minute",
                                                 "tokens-per-day",
                                                 "revoked"};
  for (const auto& field : entry) {
    const std::string name = field.first.Scalar();
    if (std::ranges::find(known, name) != known.end()) continue;
    return absl::InvalidArgumentError(
        fmt::format("unknown field '{}'{}", name.substr(0, 64), DidYouMean(name, known)));
  }
  return absl::OkStatus();
}

absl::StatusOr<ApiKey> ReadKey(const YAML::Node& entry) {
  if (!entry.IsMap()) return absl::InvalidArgumentError("it is not a map of fields");
  BATON_RETURN_IF_ERROR(CheckFields(entry));
  for (const char* field : {"name", "sha256"}) {
    if (!entry[field] || !entry[field].IsScalar()) {
      return absl::InvalidArgumentError(fmt::format("'{}' is missing", field));
    }
  }
  ApiKey key;
  key.name = entry["name"].Scalar();
  BATON_RETURN_IF_ERROR(CheckName("name", key.name));
  BATON_ASSIGN_OR_RETURN(key.digest, FromHex(entry["sha256"].Scalar()));
  key.tenant = entry["tenant"] ? entry["tenant"].Scalar() : key.name;
  BATON_RETURN_IF_ERROR(CheckName("tenant", key.tenant));
  if (entry["priority"]) {
    const std::optional<Priority> priority = PriorityFromName(entry["priority"].Scalar());
    if (!priority) return absl::InvalidArgumentError("'priority' must be high, normal or low");
    key.priority = *priority;
  }
  BATON_RETURN_IF_ERROR(ReadNumber("requests-per-second", entry["requests-per-second"], kMaxRate,
                                   &key.limits.requests_per_second));
  BATON_RETURN_IF_ERROR(ReadNumber("concurrent-requests", entry["concurrent-requests"], INT32_MAX,
                                   &key.limits.concurrent_requests));
  BATON_RETURN_IF_ERROR(ReadNumber("tokens-per-minute", entry["tokens-per-minute"], kMaxTokens,
                                   &key.limits.tokens_per_minute));
  BATON_RETURN_IF_ERROR(ReadNumber("tokens-per-day", entry["tokens-per-day"], kMaxTokens,
                                   &key.limits.tokens_per_day));
  if (entry["revoked"] && !YAML::convert<bool>::decode(entry["revoked"], key.revoked)) {
    return absl::InvalidArgumentError("'revoked' must be true or false");
  }
  return key;
}

absl::StatusOr<std::vector<ApiKey>> ReadKeys(const YAML::Node& root) {
  if (!root.IsMap() || root.size() != 1 || !root["keys"] ||
      !(root["keys"].IsSequence() || root["keys"].IsNull())) {
    return absl::InvalidArgumentError("it must have one field, 'keys', with a list of keys");
  }
  if (root["keys"].size() > kMaxApiKeys) {
    return absl::InvalidArgumentError(
        fmt::format("it has {} keys, but the limit is {}", root["keys"].size(), kMaxApiKeys));
  }
  std::vector<ApiKey> keys;
  std::set<std::string> names;
  std::set<KeyDigest> digests;
  for (const YAML::Node& entry : root["keys"]) {
    absl::StatusOr<ApiKey> key = ReadKey(entry);
    if (!key.ok()) {
      return absl::InvalidArgumentError(
          fmt::format("key {}: {}", keys.size() + 1, std::string(key.status().message())));
    }
    if (!names.insert(key->name).second || !digests.insert(key->digest).second) {
      return absl::InvalidArgumentError(fmt::format(
          "key {}, '{}': its name or its hash comes twice", keys.size() + 1, key->name));
    }
    keys.push_back(*std::move(key));
  }
  return keys;
}

std::string Errno() { return std::strerror(errno); }

}  // namespace

std::string NewApiKey() {
  std::array<uint8_t, 33> random{};  // the last byte fills up the last character
  if (RAND_bytes(random.data(), 32) != 1) BATON_CHECK(false, "the system has no random bytes");
  std::string key = "bk-";
  for (size_t i = 0; i + 3 <= random.size(); i += 3) {
    const uint32_t bits = random[i] << 16 | random[i + 1] << 8 | random[i + 2];
    for (const int shift : {18, 12, 6, 0}) key += kBase64Url[bits >> shift & 63];
  }
  key.pop_back();  // it has no bits of the 32 bytes
  return key;
}

KeyDigest DigestOf(std::string_view key) {
  KeyDigest digest{};
  SHA256(reinterpret_cast<const unsigned char*>(key.data()), key.size(), digest.data());
  return digest;
}

std::string ToHex(const KeyDigest& digest) {
  std::string text;
  for (const uint8_t byte : digest) {
    text += kHexDigits[byte >> 4];
    text += kHexDigits[byte & 15];
  }
  return text;
}

absl::StatusOr<std::vector<ApiKey>> ParseApiKeys(const std::string& text) {
  try {
    return ReadKeys(YAML::Load(text));
  } catch (const YAML::Exception& error) {
    return absl::InvalidArgumentError(error.what());
  }
}

std::string FormatApiKeys(const std::vector<ApiKey>& keys) {
  YAML::Emitter out;
  out << YAML::BeginMap << YAML::Key << "keys" << YAML::Value << YAML::BeginSeq;
  for (const ApiKey& key : keys) {
    const auto field = [&out](const char* name, const auto& value) {
      out << YAML::Key << name << YAML::Value << value;
    };
    out << YAML::BeginMap;
    field("name", key.name);
    field("sha256", ToHex(key.digest));
    if (key.tenant != key.name) field("tenant", key.tenant);
    if (key.priority != Priority::kNormal) {
      field("priority", std::string(PriorityName(key.priority)));
    }
    const KeyLimits& limits = key.limits;
    if (limits.requests_per_second > 0) field("requests-per-second", limits.requests_per_second);
    if (limits.concurrent_requests > 0) field("concurrent-requests", limits.concurrent_requests);
    if (limits.tokens_per_minute > 0) field("tokens-per-minute", limits.tokens_per_minute);
    if (limits.tokens_per_day > 0) field("tokens-per-day", limits.tokens_per_day);
    if (key.revoked) field("revoked", true);
    out << YAML::EndMap;
  }
  out << YAML::EndSeq << YAML::EndMap;
  return std::string(out.c_str()) + "\n";
}

absl::StatusOr<std::vector<ApiKey>> ReadApiKeys(const std::string& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) {
    return absl::NotFoundError(fmt::format("the keys file {} cannot be read: {}", path, Errno()));
  }
  const auto bytes = static_cast<size_t>(std::max<std::streamoff>(0, file.tellg()));
  if (bytes > kMaxKeysFileBytes) {
    return absl::InvalidArgumentError(
        fmt::format("the keys file {} has more than {} bytes", path, kMaxKeysFileBytes));
  }
  std::string text(bytes, '\0');
  file.seekg(0);
  file.read(text.data(), static_cast<std::streamsize>(bytes));
  text.resize(static_cast<size_t>(file.gcount()));
  absl::StatusOr<std::vector<ApiKey>> keys = ParseApiKeys(text);
  if (keys.ok()) return keys;
  return absl::InvalidArgumentError(
      fmt::format("the keys file {}: {}", path, std::string(keys.status().message())));
}

absl::Status WriteApiKeys(const std::string& path, const std::vector<ApiKey>& keys) {
  const std::string text = FormatApiKeys(keys);
  const std::string beside = path + ".new";
  const int file = open(beside.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  bool written = file >= 0;
  for (size_t done = 0; written && done < text.size();) {
    const ssize_t count = write(file, text.data() + done, text.size() - done);
    written = count > 0;
    if (written) done += static_cast<size_t>(count);
  }
  written = written && fsync(file) == 0;
  if (written && rename(beside.c_str(), path.c_str()) == 0) {
    close(file);
    return absl::OkStatus();
  }
  const std::string why = Errno();
  if (file >= 0) {
    close(file);
    unlink(beside.c_str());
  }
  return absl::UnavailableError(fmt::format("cannot write the keys file {}: {}", path, why));
}

}  // namespace baton::router
