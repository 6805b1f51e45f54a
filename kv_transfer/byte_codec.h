#pragma once

// Little-endian bytes in and out, for this room's messages and addresses.
//
// ByteReader never trusts: a read past the end, or a count above its bound, makes it fail for good;
// every later read gives zeros and nothing. Check ok() once, after the last read.

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

#include "common/checksum.h"

namespace baton::kv_transfer {

static_assert(std::endian::native == std::endian::little,
              "values are copied as they lie in memory");

inline std::span<const std::byte> AsBytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}
inline std::string_view AsText(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

class ByteWriter {
 public:
  template <std::integral T>
  void Put(T value) {
    out_.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  void PutRaw(std::string_view bytes) { out_.append(bytes); }
  void PutText(std::string_view text) {
    Put(static_cast<uint32_t>(text.size()));
    out_.append(text);
  }
  // The bytes, followed by their checksum: Unseal gives them back.
  std::string Seal() && {
    Put(Checksum(AsBytes(out_)));
    return std::move(out_);
  }

 private:
  std::string out_;
};

class ByteReader {
 public:
  explicit ByteReader(std::span<const std::byte> bytes) : rest_(AsText(bytes)) {}

  template <std::integral T>
  T Get() {
    T value{};
    const std::string_view raw = GetRaw(sizeof value);
    if (ok_) std::memcpy(&value, raw.data(), sizeof value);
    return value;
  }
  // A count of at most `most` items, each of which takes at least `item_bytes` of what follows.
  uint32_t GetCount(uint32_t most, size_t item_bytes) {
    const auto count = Get<uint32_t>();
    if (count > most || count * item_bytes > rest_.size()) ok_ = false;
    return ok_ ? count : 0;
  }
  // A value that must lie in [least, most].
  int32_t GetInRange(int32_t least, int32_t most) {
    const auto value = Get<int32_t>();
    if (value < least || value > most) ok_ = false;
    return ok_ ? value : least;
  }
  std::string_view GetRaw(size_t bytes) {
    if (!ok_ || bytes > rest_.size()) {
      ok_ = false;
      return {};
    }
    const std::string_view raw = rest_.substr(0, bytes);
    rest_.remove_prefix(bytes);
    return raw;
  }
  std::string GetText(uint32_t longest) { return std::string(GetRaw(GetCount(longest, 1))); }

  void Fail() { ok_ = false; }
  bool ok() const { return ok_; }
  // Everything was read, and nothing is left over.
  bool complete() const { return ok_ && rest_.empty(); }

 private:
  std::string_view rest_;
  bool ok_ = true;
};

// The bytes before the checksum; empty when it does not match.
inline std::span<const std::byte> Unseal(std::span<const std::byte> sealed) {
  if (sealed.size() < sizeof(uint64_t)) return {};
  const auto body = sealed.first(sealed.size() - sizeof(uint64_t));
  uint64_t expected = 0;
  std::memcpy(&expected, sealed.data() + body.size(), sizeof expected);
  return Checksum(body) == expected ? body : std::span<const std::byte>{};
}

}  // namespace baton::kv_transfer
