#pragma once

// Names that cross rooms and processes.

#include <compare>
#include <cstdint>
#include <functional>
#include <string>

namespace baton {

using TokenId = int32_t;

// 128 bits: the router's incarnation (random at its start) and its running number. Unique for as
// long as anybody can remember a request; never chosen by a client.
struct RequestId {
  uint64_t high = 0;
  uint64_t low = 0;
  auto operator<=>(const RequestId&) const = default;
};

// One try at one request. A retry or migration has the same id and a higher epoch; whoever sees a
// message of an older epoch drops it.
struct Attempt {
  RequestId request;
  uint32_t epoch = 0;
  auto operator<=>(const Attempt&) const = default;
};

// "0123456789abcdef-0000000000000001" and the same with "#epoch".
std::string ToString(const RequestId& id);
std::string ToString(const Attempt& attempt);

// 64 random bits from the operating system, for incarnations and keys.
uint64_t RandomU64();

template <typename H>
H AbslHashValue(H h, const RequestId& id) {
  return H::combine(std::move(h), id.high, id.low);
}
template <typename H>
H AbslHashValue(H h, const Attempt& attempt) {
  return H::combine(std::move(h), attempt.request, attempt.epoch);
}

}  // namespace baton
