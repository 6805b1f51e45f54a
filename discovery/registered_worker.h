#pragma once

// What a worker tells of itself in etcd: the value of its key, a JSON object.

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace baton::discovery {

struct RegisteredWorker {
  std::string address;  // that routers dial; also the end of the key
  std::string name;
  std::string role;         // of now: "prefill" or "decode"
  std::string model;        // what clients call it
  std::string incarnation;  // of the process, in hexadecimal
  bool draining = false;    // takes no new work

  bool operator==(const RegisteredWorker&) const = default;
};

// PREFIX/workers/ADDRESS: a worker that comes anew at its address takes its old key over.
std::string KeyOf(const std::string& prefix, const std::string& address);
std::string KeysPrefix(const std::string& prefix);

std::string ToJson(const RegisteredWorker& worker);

// Reads values of at most 16 KiB; members that it does not know are left to newer versions.
// InvalidArgument without a sound address: all else is for people, and routers ask the worker
// itself.
absl::StatusOr<RegisteredWorker> FromJson(std::string_view json);

}  // namespace baton::discovery
