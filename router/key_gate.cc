#include "router/key_gate.h"

#include <fmt/format.h>
#include <openssl/crypto.h>

#include <cctype>
#include <iterator>
#include <utility>

#include "common/logging.h"
#include "common/status_macros.h"
#include "router/error_code.h"

namespace baton::router {
namespace {

constexpr size_t kMaxGivenBytes = 512;

// "" without a bearer.
std::string_view BearerOf(std::string_view authorization) {
  constexpr std::string_view kScheme = "bearer ";
  if (authorization.size() <= kScheme.size()) return {};
  for (size_t i = 0; i < kScheme.size(); ++i) {
    if (std::tolower(static_cast<unsigned char>(authorization[i])) != kScheme[i]) return {};
  }
  authorization.remove_prefix(kScheme.size());
  while (authorization.starts_with(' ')) authorization.remove_prefix(1);
  while (authorization.ends_with(' ')) authorization.remove_suffix(1);
  return authorization;
}

}  // namespace

std::string Visit::CacheSalt(std::string_view own) const {
  return fmt::format("{}:{}:{}", key_.tenant.size(), key_.tenant, own);
}

absl::StatusOr<std::unique_ptr<KeyGate>> KeyGate::Create(const KeyGateOptions& options) {
  std::unique_ptr<KeyGate> gate(new KeyGate(options));
  if (gate->open()) return gate;
  BATON_ASSIGN_OR_RETURN(std::vector<ApiKey> keys, ReadApiKeys(options.keys_file));
  LogInfo(fmt::format("{} API keys from {}", keys.size(), options.keys_file));
  gate->Take(std::move(keys), SystemClock().Now());
  gate->poller_ = std::thread(&KeyGate::Poll, gate.get());
  return gate;
}

KeyGate::~KeyGate() {
  {
    const std::lock_guard lock(stop_mutex_);
    stopping_ = true;
  }
  stop_changed_.notify_all();
  if (poller_.joinable()) poller_.join();
}

void KeyGate::Poll() {
  std::unique_lock lock(stop_mutex_);
  while (!stop_changed_.wait_for(lock, options_.file_poll, [this] { return stopping_; })) {
    if (!watch_.Changed()) continue;
    absl::StatusOr<std::vector<ApiKey>> keys = ReadApiKeys(options_.keys_file);
    if (keys.ok()) {
      LogInfo(fmt::format("{} API keys from {}, which changed", keys->size(), options_.keys_file));
      Take(*std::move(keys), SystemClock().Now());
    } else {
      LogError(fmt::format("{}; the keys stay as they were", std::string(keys.status().message())));
    }
  }
}

void KeyGate::Take(std::vector<ApiKey> keys, TimePoint now) {
  std::map<KeyDigest, Entry> entries;
  const std::lock_guard lock(mutex_);
  for (ApiKey& key : keys) {
    Entry entry;
    if (const auto known = entries_.find(key.digest); known != entries_.end()) {
      entry.meter = known->second.meter;
      if (known->second.key.limits != key.limits) entry.meter->SetLimits(key.limits, now);
    } else {
      entry.meter = std::make_shared<KeyMeter>(key.limits);
    }
    const KeyDigest digest = key.digest;
    entry.key = std::move(key);
    entries.emplace(digest, std::move(entry));
  }
  entries_ = std::move(entries);
}

absl::StatusOr<KeyGate::Entry> KeyGate::Find(std::string_view authorization) const {
  const std::string_view bearer = BearerOf(authorization);
  if (bearer.empty()) {
    return WithErrorCode(
        absl::UnauthenticatedError(
            "this server needs an API key, as 'Authorization: Bearer KEY', and got none"),
        kInvalidApiKey);
  }
  const KeyDigest digest = DigestOf(bearer.substr(0, kMaxGivenBytes));
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find(digest);
  if (found == entries_.end() ||
      CRYPTO_memcmp(found->first.data(), digest.data(), digest.size()) != 0) {
    return WithErrorCode(absl::UnauthenticatedError("the API key is not known here"),
                         kInvalidApiKey);
  }
  if (found->second.key.revoked) {
    return WithErrorCode(absl::PermissionDeniedError(
                             fmt::format("the API key '{}' was revoked", found->second.key.name)),
                         kRevokedApiKey);
  }
  return found->second;
}

absl::Status KeyGate::Check(std::string_view authorization) const {
  return open() ? absl::OkStatus() : Find(authorization).status();
}

absl::StatusOr<std::shared_ptr<Visit>> KeyGate::Enter(std::string_view authorization,
                                                      TimePoint now) {
  if (open()) return std::shared_ptr<Visit>();
  BATON_ASSIGN_OR_RETURN(Entry entry, Find(authorization));
  BATON_RETURN_IF_ERROR(entry.meter->Enter(now));
  return std::make_shared<Visit>(std::move(entry.key), std::move(entry.meter));
}

std::string KeyGate::MetricsText() const {
  if (open()) return "";
  std::string text;
  const auto family = [&](std::string_view name, std::string_view kind, std::string_view help,
                          auto value) {
    fmt::format_to(std::back_inserter(text), "# HELP {0} {1}\n# TYPE {0} {2}\n", name, help, kind);
    for (const auto& [digest, entry] : entries_) {
      fmt::format_to(std::back_inserter(text), "{}{{key=\"{}\",tenant=\"{}\"}} {}\n", name,
                     entry.key.name, entry.key.tenant, value(entry.meter->usage()));
    }
  };
  const std::lock_guard lock(mutex_);
  family("baton_key_requests_running", "gauge", "Requests of an API key that run.",
         [](const KeyMeter::Usage& usage) { return static_cast<uint64_t>(usage.running); });
  family("baton_key_requests_total", "counter", "Requests of an API key that were let in.",
         [](const KeyMeter::Usage& usage) { return usage.requests; });
  family("baton_key_requests_refused_total", "counter",
         "Requests of an API key that were over one of its limits.",
         [](const KeyMeter::Usage& usage) { return usage.refused; });
  family("baton_key_tokens_total", "counter", "Tokens of an API key, prompts and answers.",
         [](const KeyMeter::Usage& usage) { return usage.tokens; });
  return text;
}

absl::StatusOr<std::shared_ptr<Visit>> ComeIn(KeyGate* gate, const Dispatcher& dispatcher,
                                              std::string_view authorization) {
  if (gate != nullptr) BATON_RETURN_IF_ERROR(gate->Check(authorization));
  BATON_RETURN_IF_ERROR(dispatcher.CheckRoom());
  if (gate == nullptr) return std::shared_ptr<Visit>();
  return gate->Enter(authorization, SystemClock().Now());
}

}  // namespace baton::router
