#pragma once

// Memory that is needed soon.

#include <algorithm>
#include <cstddef>

namespace baton {

// Asks for `object`'s first kilobyte, which may be null. Where a batch goes through thousands of
// objects that are in no cache, asking for the next one before this one is handled hides half of
// the waiting.
template <typename T>
inline void Prefetch(const T* object) {
  constexpr size_t kLineBytes = 64;
  constexpr size_t kMostBytes = 1024;
  if (object == nullptr) return;
  const auto* bytes = reinterpret_cast<const char*>(object);
  for (size_t at = 0; at < std::min(sizeof(T), kMostBytes); at += kLineBytes) {
    __builtin_prefetch(bytes + at);
  }
}

}  // namespace baton
