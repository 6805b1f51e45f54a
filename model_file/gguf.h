#pragma once

// Reader of GGUF model files, versions 2 and 3 (format: ggml's docs/gguf.md).
//
// The file is mapped read-only. Every count, length, type and offset is checked against the file
// before use, so a truncated, corrupt or hostile file gives InvalidArgument with the numbers, never
// a read outside the mapping. Everything handed out points into the mapping and lives as long as
// the GgufFile. Immutable after Open, so safe to share between threads.

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/dtype.h"

namespace baton {

struct GgufTensor {
  std::string name;
  DType dtype;
  std::vector<int64_t> shape;  // GGUF's order: shape[0] is the row length (elements contiguous)
  std::span<const std::byte> data;

  int64_t cols() const { return shape.empty() ? 1 : shape[0]; }
  int64_t rows() const;  // product of the other dimensions
};

// Scalars are widened: all integers to int64_t (u64 above INT64_MAX is refused), floats to double.
using GgufValue =
    std::variant<bool, int64_t, double, std::string_view, std::vector<std::string_view>,
                 std::vector<int64_t>, std::vector<double>, std::vector<bool>>;

class GgufFile {
 public:
  // NotFound when there is no such file, InvalidArgument when it is not a sound GGUF file
  // ("model.gguf is not a GGUF file: it starts with 'Once', not 'GGUF'").
  static absl::StatusOr<std::shared_ptr<const GgufFile>> Open(const std::string& path);
  ~GgufFile();
  GgufFile(const GgufFile&) = delete;
  GgufFile& operator=(const GgufFile&) = delete;

  const std::string& path() const { return path_; }
  int64_t file_bytes() const { return file_bytes_; }
  // The bytes before the tensors' data: header, metadata and tensor directory.
  std::span<const std::byte> directory() const { return {base_, directory_bytes_}; }

  // Metadata. The typed getters give NotFound when the key is absent and InvalidArgument when it
  // has another type, both naming the key and the file; the `Or` forms give `fallback` when absent.
  bool Has(std::string_view key) const;
  const GgufValue* Find(std::string_view key) const;
  absl::StatusOr<std::string_view> String(std::string_view key) const;
  absl::StatusOr<int64_t> Int(std::string_view key) const;
  absl::StatusOr<double> Float(std::string_view key) const;  // accepts integers too
  absl::StatusOr<std::span<const std::string_view>> Strings(std::string_view key) const;
  absl::StatusOr<std::span<const int64_t>> Ints(std::string_view key) const;
  absl::StatusOr<std::span<const double>> Floats(std::string_view key) const;
  absl::StatusOr<std::string_view> StringOr(std::string_view key, std::string_view fallback) const;
  absl::StatusOr<int64_t> IntOr(std::string_view key, int64_t fallback) const;
  absl::StatusOr<double> FloatOr(std::string_view key, double fallback) const;
  absl::StatusOr<bool> BoolOr(std::string_view key, bool fallback) const;

  const GgufTensor* FindTensor(std::string_view name) const;
  const std::vector<GgufTensor>& tensors() const { return tensors_; }

  // Hints for whoever reads each tensor once: it will be read soon; it was read, and its pages need
  // not stay in this process (they are read from the file again if need be).
  void WillRead(const GgufTensor& tensor) const;
  void WasRead(const GgufTensor& tensor) const;

 private:
  friend class GgufParser;
  GgufFile() = default;

  std::string path_;
  int64_t file_bytes_ = 0;
  const std::byte* base_ = nullptr;
  size_t directory_bytes_ = 0;
  std::map<std::string, GgufValue, std::less<>> metadata_;
  std::vector<GgufTensor> tensors_;
  std::map<std::string, size_t, std::less<>> tensor_index_;
};

}  // namespace baton
