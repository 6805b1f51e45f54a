#pragma once

// Writes small GGUF files for tests: what is added comes out in the order of adding, with no check
// at all, so that unsound files can be made too. Header-only.
//
//   GgufWriter writer;
//   writer.Add("general.architecture", "llama");
//   writer.AddTensor("token_embd.weight", DType::kF32, {4, 2}, bytes);
//   writer.WriteTo(path);

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "common/dtype.h"
#include "common/status_macros.h"

namespace baton::test {

class GgufWriter {
 public:
  // GGUF's value type numbers.
  enum Type : uint32_t {
    kU8,
    kI8,
    kU16,
    kI16,
    kU32,
    kI32,
    kF32,
    kBool,
    kString,
    kArray,
    kU64,
    kI64,
    kF64,
  };

  static constexpr uint32_t kAlignment = 32;

  void Add(std::string_view key, std::string_view value) {
    AddKey(key, kString);
    PutString(metadata_, value);
  }
  void Add(std::string_view key, const char* value) { Add(key, std::string_view(value)); }
  void AddU32(std::string_view key, uint32_t value) { AddRaw(key, kU32, value); }
  void AddF32(std::string_view key, float value) { AddRaw(key, kF32, value); }
  void AddBool(std::string_view key, bool value) { AddRaw<uint8_t>(key, kBool, value); }
  // Any scalar, with the type number as given.
  template <typename T>
  void AddRaw(std::string_view key, uint32_t type, T value) {
    AddKey(key, type);
    Put(metadata_, value);
  }

  void AddStrings(std::string_view key, const std::vector<std::string>& values) {
    AddArrayHeader(key, kString, values.size());
    for (const std::string& value : values) PutString(metadata_, value);
  }
  // Elements of T with the type number as given, e.g. AddNumbers<float>(key, kF32, scores).
  template <typename T>
  void AddNumbers(std::string_view key, uint32_t type, const std::vector<T>& values) {
    AddArrayHeader(key, type, values.size());
    for (const T value : values) Put(metadata_, value);
  }
  // An array entry whose elements the caller leaves out or adds wrongly.
  void AddArrayHeader(std::string_view key, uint32_t type, uint64_t count) {
    AddKey(key, kArray);
    Put(metadata_, type);
    Put(metadata_, count);
  }

  // `shape` in GGUF's order (row length first); `data` must be as long as the shape says.
  void AddTensor(std::string_view name, DType dtype, const std::vector<uint64_t>& shape,
                 std::string_view data) {
    data_.resize((data_.size() + kAlignment - 1) / kAlignment * kAlignment);
    AddTensorRaw(name, TypeNumber(dtype), shape, data_.size());
    data_ += data;
  }
  void AddTensorRaw(std::string_view name, uint32_t type, const std::vector<uint64_t>& shape,
                    uint64_t offset) {
    ++tensor_count_;
    PutString(tensors_, name);
    Put(tensors_, static_cast<uint32_t>(shape.size()));
    for (const uint64_t size : shape) Put(tensors_, size);
    Put(tensors_, type);
    Put(tensors_, offset);
  }

  void set_version(uint32_t version) { version_ = version; }
  void set_tensor_count(uint64_t count) { tensor_count_ = count; }
  void set_metadata_count(uint64_t count) { metadata_count_ = count; }

  std::string Bytes() const {
    std::string out = "GGUF";
    Put(out, version_);
    Put(out, tensor_count_);
    Put(out, metadata_count_);
    out += metadata_;
    out += tensors_;
    out.resize((out.size() + kAlignment - 1) / kAlignment * kAlignment);
    out += data_;
    return out;
  }

  void WriteTo(const std::string& path) const {
    std::ofstream out(path, std::ios::binary);
    out << Bytes();
    out.close();
    BATON_CHECK(out.good(), "the test directory is writable");
  }

  static uint32_t TypeNumber(DType dtype) {
    switch (dtype) {
      case DType::kF32:
        return 0;
      case DType::kF16:
        return 1;
      case DType::kQ4_0:
        return 2;
      case DType::kQ4_1:
        return 3;
      case DType::kQ5_0:
        return 6;
      case DType::kQ5_1:
        return 7;
      case DType::kQ8_0:
        return 8;
      case DType::kQ4_K:
        return 12;
      case DType::kQ5_K:
        return 13;
      case DType::kQ6_K:
        return 14;
      case DType::kBF16:
        return 30;
    }
    return ~0u;
  }

 private:
  template <typename T>
  static void Put(std::string& out, T value) {
    out.append(reinterpret_cast<const char*>(&value), sizeof(value));
  }
  static void PutString(std::string& out, std::string_view text) {
    Put(out, static_cast<uint64_t>(text.size()));
    out += text;
  }
  void AddKey(std::string_view key, uint32_t type) {
    ++metadata_count_;
    PutString(metadata_, key);
    Put(metadata_, type);
  }

  uint32_t version_ = 3;
  uint64_t tensor_count_ = 0;
  uint64_t metadata_count_ = 0;
  std::string metadata_;
  std::string tensors_;
  std::string data_;
};

}  // namespace baton::test
