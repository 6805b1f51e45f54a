// `baton keys add|list|revoke`: the API keys of a router, in its keys file.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <memory>

#include "cli/command_line.h"
#include "common/status_macros.h"
#include "router/api_keys.h"

namespace baton::cli {
namespace {

struct KeysFlags {
  std::string file;
  std::string name;
  std::string tenant;
  std::string priority = "normal";
  router::KeyLimits limits;
};

void AddFileFlag(CLI::App* app, KeysFlags* flags) {
  app->add_option("--keys-file", flags->file, "the router's keys file")->required();
}

absl::Status AddKey(const KeysFlags& flags) {
  std::vector<router::ApiKey> keys;
  if (std::filesystem::exists(flags.file)) {
    BATON_ASSIGN_OR_RETURN(keys, router::ReadApiKeys(flags.file));
  }
  const std::string secret = router::NewApiKey();
  router::ApiKey key;
  key.name = flags.name;
  key.digest = router::DigestOf(secret);
  key.tenant = flags.tenant.empty() ? flags.name : flags.tenant;
  key.priority = *router::PriorityFromName(flags.priority);
  key.limits = flags.limits;
  keys.push_back(key);
  // What the router would not read is not written.
  BATON_RETURN_IF_ERROR(router::ParseApiKeys(router::FormatApiKeys(keys)).status());
  BATON_RETURN_IF_ERROR(router::WriteApiKeys(flags.file, keys));
  fmt::print(stderr, "the key '{}'; it is shown this once, the file has only its hash:\n",
             flags.name);
  fmt::print("{}\n", secret);
  return absl::OkStatus();
}

std::string OrNone(double limit) { return limit > 0 ? fmt::format("{:g}", limit) : "-"; }

absl::Status ListKeys(const KeysFlags& flags) {
  BATON_ASSIGN_OR_RETURN(const std::vector<router::ApiKey> keys, router::ReadApiKeys(flags.file));
  fmt::print("{:<20} {:<20} {:<8} {:>10} {:>10} {:>12} {:>12}  {}\n", "name", "tenant", "priority",
             "requests/s", "concurrent", "tokens/min", "tokens/day", "state");
  for (const router::ApiKey& key : keys) {
    const router::KeyLimits& limits = key.limits;
    fmt::print(
        "{:<20} {:<20} {:<8} {:>10} {:>10} {:>12} {:>12}  {}\n", key.name, key.tenant,
        router::PriorityName(key.priority), OrNone(limits.requests_per_second),
        OrNone(limits.concurrent_requests), OrNone(static_cast<double>(limits.tokens_per_minute)),
        OrNone(static_cast<double>(limits.tokens_per_day)), key.revoked ? "revoked" : "valid");
  }
  return absl::OkStatus();
}

absl::Status RevokeKey(const KeysFlags& flags) {
  BATON_ASSIGN_OR_RETURN(std::vector<router::ApiKey> keys, router::ReadApiKeys(flags.file));
  const auto key = std::ranges::find(keys, flags.name, &router::ApiKey::name);
  if (key == keys.end()) {
    return absl::NotFoundError(fmt::format("{} has no key '{}'", flags.file, flags.name));
  }
  key->revoked = true;
  return router::WriteApiKeys(flags.file, keys);
}

}  // namespace

Action AddKeysAdd(CLI::App* app) {
  auto flags = std::make_shared<KeysFlags>();
  app->add_option("name", flags->name, "the key's name; each once in a file")->required();
  AddFileFlag(app, flags.get());
  app->add_option("--tenant", flags->tenant,
                  "whose share of the fleet and prefix cache it uses; the name when not given");
  app->add_option("--priority", flags->priority, "high, normal or low")
      ->check(CLI::IsMember({"high", "normal", "low"}))
      ->capture_default_str();
  app->add_option("--requests-per-second", flags->limits.requests_per_second, "0: no limit")
      ->check(CLI::Range(0.0, 1e9))
      ->capture_default_str();
  app->add_option("--concurrent-requests", flags->limits.concurrent_requests, "0: no limit")
      ->check(CLI::Range(0, INT32_MAX))
      ->capture_default_str();
  app->add_option("--tokens-per-minute", flags->limits.tokens_per_minute,
                  "of prompts and answers; 0: no limit")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 50))
      ->capture_default_str();
  app->add_option("--tokens-per-day", flags->limits.tokens_per_day, "likewise")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 50))
      ->capture_default_str();
  return [flags] { return AddKey(*flags); };
}

Action AddKeysList(CLI::App* app) {
  auto flags = std::make_shared<KeysFlags>();
  AddFileFlag(app, flags.get());
  return [flags] { return ListKeys(*flags); };
}

Action AddKeysRevoke(CLI::App* app) {
  auto flags = std::make_shared<KeysFlags>();
  app->add_option("name", flags->name, "the key's name")->required();
  AddFileFlag(app, flags.get());
  return [flags] { return RevokeKey(*flags); };
}

}  // namespace baton::cli
