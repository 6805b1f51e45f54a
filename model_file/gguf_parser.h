#pragma once

// The parsing half of GgufFile: walks the header of a mapped file once, checking everything.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model_file/gguf.h"

namespace baton {

// Fills metadata_, tensors_ and tensor_index_ of `file` from its mapping. Single use.
class GgufParser {
 public:
  explicit GgufParser(GgufFile* file)
      : file_(*file), bytes_(file->base_, static_cast<size_t>(file->file_bytes_)) {}

  absl::Status Parse();

 private:
  absl::Status ParseHeader();
  absl::Status ParseMetadata();
  absl::Status ParseTensors();
  absl::Status ParseTensor(GgufTensor& tensor, uint64_t& offset);
  absl::Status PlaceTensors(const std::vector<uint64_t>& offsets);
  absl::StatusOr<uint64_t> Alignment() const;
  absl::StatusOr<GgufValue> ParseValue(std::string_view key, uint32_t type);
  absl::StatusOr<GgufValue> ParseArray(std::string_view key);
  template <typename Element, typename ReadOne>
  absl::StatusOr<GgufValue> ReadArray(uint64_t count, ReadOne read_one);

  template <typename T>
  absl::StatusOr<T> Read(std::string_view what);
  absl::StatusOr<std::string_view> ReadString(std::string_view what);
  absl::StatusOr<bool> ReadBool(std::string_view what);
  absl::StatusOr<int64_t> ReadInt(uint32_t type, std::string_view what);
  absl::StatusOr<double> ReadFloat(uint32_t type, std::string_view what);

  uint64_t Remaining() const { return bytes_.size() - position_; }
  absl::Status Refuse(std::string_view why) const;

  GgufFile& file_;
  std::span<const std::byte> bytes_;
  uint64_t position_ = 0;
  uint64_t tensor_count_ = 0;
  uint64_t metadata_count_ = 0;
  uint64_t array_elements_ = 0;  // of all arrays so far
};

}  // namespace baton
