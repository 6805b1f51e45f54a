#include "discovery/registered_worker.h"

#include <fmt/format.h>

#include <boost/json.hpp>

#include "common/host_port.h"
#include "common/status_macros.h"

namespace baton::discovery {
namespace {

constexpr size_t kMaxValueBytes = 16 << 10;
constexpr size_t kMaxTextBytes = 512;

// "" for what is not there, no text, or too long.
std::string Text(const boost::json::object& object, std::string_view name) {
  const boost::json::value* const value = object.if_contains({name.data(), name.size()});
  if (value == nullptr || !value->is_string()) return "";
  const boost::json::string& text = value->get_string();
  return text.size() > kMaxTextBytes ? "" : std::string(text.data(), text.size());
}

}  // namespace

std::string KeysPrefix(const std::string& prefix) { return prefix + "workers/"; }

std::string KeyOf(const std::string& prefix, const std::string& address) {
  return KeysPrefix(prefix) + address;
}

std::string ToJson(const RegisteredWorker& worker) {
  const auto text = [](const std::string& value) {
    return boost::json::value(boost::json::string(value.data(), value.size()));
  };
  boost::json::object object;
  object["address"] = text(worker.address);
  object["name"] = text(worker.name);
  object["role"] = text(worker.role);
  object["model"] = text(worker.model);
  object["incarnation"] = text(worker.incarnation);
  object["draining"] = worker.draining;
  return boost::json::serialize(object);
}

absl::StatusOr<RegisteredWorker> FromJson(std::string_view json) {
  if (json.size() > kMaxValueBytes) {
    return absl::InvalidArgumentError(
        fmt::format("its value has {} bytes, at most {} are read", json.size(), kMaxValueBytes));
  }
  boost::json::error_code error;
  const boost::json::value value = boost::json::parse({json.data(), json.size()}, error);
  if (error || !value.is_object()) {
    return absl::InvalidArgumentError("its value is not a JSON object");
  }
  const boost::json::object& object = value.get_object();
  RegisteredWorker worker;
  worker.address = Text(object, "address");
  BATON_RETURN_IF_ERROR(CheckHostPort(worker.address));
  worker.name = Text(object, "name");
  worker.role = Text(object, "role");
  worker.model = Text(object, "model");
  worker.incarnation = Text(object, "incarnation");
  const boost::json::value* const draining = object.if_contains("draining");
  worker.draining = draining != nullptr && draining->is_bool() && draining->get_bool();
  return worker;
}

}  // namespace baton::discovery
