#include "model_file/gguf_parser.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <optional>
#include <utility>

#include "common/status_macros.h"

namespace baton {
namespace {

static_assert(std::endian::native == std::endian::little, "GGUF fields are read as they lie");

enum ValueType : uint32_t {
  kU8,
  kI8,
  kU16,
  kI16,
  kU32,
  kI32,
  kF32Value,
  kBool,
  kString,
  kArray,
  kU64,
  kI64,
  kF64Value,
};

// The smallest possible entries: what a count in the header is checked against.
constexpr uint64_t kMinMetadataBytes = 8 + 1 + 4 + 1;        // key length, key, type, value
constexpr uint64_t kMinTensorBytes = 8 + 1 + 4 + 8 + 4 + 8;  // name, dimensions, type, offset
// Elements are widened in memory; the largest real vocabularies and merge lists have under 2^20.
constexpr uint64_t kMaxArrayElements = uint64_t{1} << 24;
constexpr uint32_t kMaxDimensions = 4;
constexpr uint64_t kDefaultAlignment = 32;
constexpr uint64_t kMaxAlignment = uint64_t{1} << 30;

std::optional<DType> DTypeFromGgml(uint32_t type) {
  switch (type) {
    case 0:
      return DType::kF32;
    case 1:
      return DType::kF16;
    case 2:
      return DType::kQ4_0;
    case 3:
      return DType::kQ4_1;
    case 6:
      return DType::kQ5_0;
    case 7:
      return DType::kQ5_1;
    case 8:
      return DType::kQ8_0;
    case 12:
      return DType::kQ4_K;
    case 13:
      return DType::kQ5_K;
    case 14:
      return DType::kQ6_K;
    case 30:
      return DType::kBF16;
    default:
      return std::nullopt;
  }
}

// Names from the file go into error messages: short and printable.
std::string Printable(std::string_view text) {
  std::string out;
  for (const char c : text.substr(0, 80)) out += c >= 0x20 && c < 0x7f ? c : '?';
  if (text.size() > 80) out += "...";
  return out;
}

bool IsFloat(uint32_t type) { return type == kF32Value || type == kF64Value; }

uint64_t ElementBytes(uint32_t type) {
  switch (type) {
    case kU8:
    case kI8:
    case kBool:
      return 1;
    case kU16:
    case kI16:
      return 2;
    case kU32:
    case kI32:
    case kF32Value:
      return 4;
    default:
      return 8;  // 64-bit numbers; for strings and arrays the least they can take
  }
}

}  // namespace

absl::Status GgufParser::Refuse(std::string_view why) const {
  return absl::InvalidArgumentError(
      fmt::format("{} is not a sound GGUF file: {}", file_.path_, why));
}

template <typename T>
absl::StatusOr<T> GgufParser::Read(std::string_view what) {
  if (Remaining() < sizeof(T)) {
    return Refuse(fmt::format("it ends at byte {} inside {} (needs {} bytes at offset {})",
                              bytes_.size(), what, sizeof(T), position_));
  }
  T value;
  std::memcpy(&value, bytes_.data() + position_, sizeof(T));
  position_ += sizeof(T);
  return value;
}

absl::StatusOr<std::string_view> GgufParser::ReadString(std::string_view what) {
  BATON_ASSIGN_OR_RETURN(const uint64_t length, Read<uint64_t>(what));
  if (length > Remaining()) {
    return Refuse(fmt::format("{} at offset {} claims {} bytes, {} are left", what, position_ - 8,
                              length, Remaining()));
  }
  const std::string_view text(reinterpret_cast<const char*>(bytes_.data() + position_), length);
  position_ += length;
  return text;
}

absl::StatusOr<bool> GgufParser::ReadBool(std::string_view what) {
  BATON_ASSIGN_OR_RETURN(const uint8_t value, Read<uint8_t>(what));
  if (value > 1) return Refuse(fmt::format("{} is {}, not a bool", what, value));
  return value == 1;
}

absl::StatusOr<int64_t> GgufParser::ReadInt(uint32_t type, std::string_view what) {
  switch (type) {
    case kU8:
      return Read<uint8_t>(what);
    case kI8:
      return Read<int8_t>(what);
    case kU16:
      return Read<uint16_t>(what);
    case kI16:
      return Read<int16_t>(what);
    case kU32:
      return Read<uint32_t>(what);
    case kI32:
      return Read<int32_t>(what);
    case kI64:
      return Read<int64_t>(what);
    default:
      break;
  }
  BATON_ASSIGN_OR_RETURN(const uint64_t value, Read<uint64_t>(what));
  if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    return Refuse(fmt::format("{} is {}, beyond the largest 64-bit signed integer", what, value));
  }
  return static_cast<int64_t>(value);
}

absl::StatusOr<double> GgufParser::ReadFloat(uint32_t type, std::string_view what) {
  if (type == kF32Value) return Read<float>(what);
  return Read<double>(what);
}

absl::StatusOr<GgufValue> GgufParser::ParseValue(std::string_view key, uint32_t type) {
  if (type > kF64Value) {
    return Refuse(fmt::format("key '{}' has unknown value type {}", Printable(key), type));
  }
  if (type == kArray) return ParseArray(key);
  const std::string what = fmt::format("the value of '{}'", Printable(key));
  if (type == kString) {
    BATON_ASSIGN_OR_RETURN(const std::string_view text, ReadString(what));
    return GgufValue(text);
  }
  if (type == kBool) {
    BATON_ASSIGN_OR_RETURN(const bool value, ReadBool(what));
    return GgufValue(value);
  }
  if (IsFloat(type)) {
    BATON_ASSIGN_OR_RETURN(const double value, ReadFloat(type, what));
    return GgufValue(value);
  }
  BATON_ASSIGN_OR_RETURN(const int64_t value, ReadInt(type, what));
  return GgufValue(value);
}

template <typename Element, typename ReadOne>
absl::StatusOr<GgufValue> GgufParser::ReadArray(uint64_t count, ReadOne read_one) {
  std::vector<Element> elements;
  elements.reserve(count);
  for (uint64_t i = 0; i < count; ++i) {
    BATON_ASSIGN_OR_RETURN(const Element element, read_one());
    elements.push_back(element);
  }
  return GgufValue(std::move(elements));
}

absl::StatusOr<GgufValue> GgufParser::ParseArray(std::string_view key) {
  const std::string what = fmt::format("array '{}'", Printable(key));
  BATON_ASSIGN_OR_RETURN(const uint32_t type, Read<uint32_t>(what));
  BATON_ASSIGN_OR_RETURN(const uint64_t count, Read<uint64_t>(what));
  if (type > kF64Value || type == kArray) {
    return Refuse(fmt::format("{} has element type {}{}", what, type,
                              type == kArray ? " (nested arrays are not supported)" : ""));
  }
  if (count > Remaining() / ElementBytes(type)) {
    return Refuse(fmt::format("{} claims {} elements of at least {} bytes, {} bytes are left", what,
                              count, ElementBytes(type), Remaining()));
  }
  if (count > kMaxArrayElements - array_elements_) {
    return Refuse(fmt::format("{} with {} elements takes all arrays beyond {} elements", what,
                              count, kMaxArrayElements));
  }
  array_elements_ += count;
  if (type == kString) {
    return ReadArray<std::string_view>(count, [&] { return ReadString(what); });
  }
  if (type == kBool) return ReadArray<bool>(count, [&] { return ReadBool(what); });
  if (IsFloat(type)) return ReadArray<double>(count, [&] { return ReadFloat(type, what); });
  return ReadArray<int64_t>(count, [&] { return ReadInt(type, what); });
}

absl::Status GgufParser::ParseHeader() {
  if (bytes_.size() < 4 || std::memcmp(bytes_.data(), "GGUF", 4) != 0) {
    const std::string_view start(reinterpret_cast<const char*>(bytes_.data()),
                                 std::min<size_t>(bytes_.size(), 4));
    return absl::InvalidArgumentError(fmt::format(
        "{} is not a GGUF file: it starts with '{}', not 'GGUF'", file_.path_, Printable(start)));
  }
  position_ = 4;
  BATON_ASSIGN_OR_RETURN(const uint32_t version, Read<uint32_t>("the version"));
  if (version != 2 && version != 3) {
    const bool swapped = version == 0x02000000 || version == 0x03000000;
    return Refuse(fmt::format("it has version {}{}; versions 2 and 3 are supported", version,
                              swapped ? " (it is big-endian)" : ""));
  }
  BATON_ASSIGN_OR_RETURN(tensor_count_, Read<uint64_t>("the tensor count"));
  BATON_ASSIGN_OR_RETURN(metadata_count_, Read<uint64_t>("the metadata count"));
  if (tensor_count_ > Remaining() / kMinTensorBytes) {
    return Refuse(fmt::format("it claims {} tensors, but its {} bytes hold at most {}",
                              tensor_count_, bytes_.size(), Remaining() / kMinTensorBytes));
  }
  if (metadata_count_ > Remaining() / kMinMetadataBytes) {
    return Refuse(fmt::format("it claims {} metadata entries, but its {} bytes hold at most {}",
                              metadata_count_, bytes_.size(), Remaining() / kMinMetadataBytes));
  }
  return absl::OkStatus();
}

absl::Status GgufParser::ParseMetadata() {
  for (uint64_t i = 0; i < metadata_count_; ++i) {
    const std::string what = fmt::format("metadata entry {} of {}", i, metadata_count_);
    BATON_ASSIGN_OR_RETURN(const std::string_view key, ReadString(what));
    if (key.empty()) return Refuse(fmt::format("{} has an empty key", what));
    BATON_ASSIGN_OR_RETURN(const uint32_t type, Read<uint32_t>(what));
    BATON_ASSIGN_OR_RETURN(GgufValue value, ParseValue(key, type));
    if (!file_.metadata_.emplace(key, std::move(value)).second) {
      return Refuse(fmt::format("key '{}' appears twice", Printable(key)));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> GgufParser::Alignment() const {
  BATON_ASSIGN_OR_RETURN(const int64_t alignment,
                         file_.IntOr("general.alignment", kDefaultAlignment));
  if (alignment < 1 || !std::has_single_bit(static_cast<uint64_t>(alignment)) ||
      static_cast<uint64_t>(alignment) > kMaxAlignment) {
    return Refuse(fmt::format("general.alignment is {}, not a power of two up to {}", alignment,
                              kMaxAlignment));
  }
  return static_cast<uint64_t>(alignment);
}

absl::Status GgufParser::ParseTensor(GgufTensor& tensor, uint64_t& offset) {
  const std::string what = fmt::format("tensor '{}'", Printable(tensor.name));
  BATON_ASSIGN_OR_RETURN(const uint32_t dimensions, Read<uint32_t>(what));
  if (dimensions < 1 || dimensions > kMaxDimensions) {
    return Refuse(
        fmt::format("{} has {} dimensions, not 1 to {}", what, dimensions, kMaxDimensions));
  }
  int64_t elements = 1;
  for (uint32_t d = 0; d < dimensions; ++d) {
    BATON_ASSIGN_OR_RETURN(const uint64_t size, Read<uint64_t>(what));
    if (size == 0) return Refuse(fmt::format("{} has size 0 in dimension {}", what, d));
    // 2^56 elements, so that no later byte count (at most 4 bytes an element) can overflow.
    if (size > (uint64_t{1} << 56) / static_cast<uint64_t>(elements)) {
      return Refuse(fmt::format("{} has too many elements: {} x {}", what, elements, size));
    }
    tensor.shape.push_back(static_cast<int64_t>(size));
    elements *= static_cast<int64_t>(size);
  }
  BATON_ASSIGN_OR_RETURN(const uint32_t type, Read<uint32_t>(what));
  const std::optional<DType> dtype = DTypeFromGgml(type);
  if (!dtype) {
    return absl::InvalidArgumentError(fmt::format(
        "{}: {} has type number {}, which Baton does not support", file_.path_, what, type));
  }
  tensor.dtype = *dtype;
  const DTypeTraits& traits = Traits(*dtype);
  if (tensor.cols() % traits.block_elements != 0) {
    return Refuse(fmt::format("{} has rows of {} elements, not a multiple of {}'s block of {}",
                              what, tensor.cols(), traits.name, traits.block_elements));
  }
  BATON_ASSIGN_OR_RETURN(offset, Read<uint64_t>(what));
  return absl::OkStatus();
}

absl::Status GgufParser::ParseTensors() {
  std::vector<uint64_t> offsets(tensor_count_);
  file_.tensors_.reserve(tensor_count_);
  for (uint64_t i = 0; i < tensor_count_; ++i) {
    const std::string what = fmt::format("tensor entry {} of {}", i, tensor_count_);
    BATON_ASSIGN_OR_RETURN(const std::string_view name, ReadString(what));
    if (name.empty()) return Refuse(fmt::format("{} has an empty name", what));
    GgufTensor& tensor = file_.tensors_.emplace_back();
    tensor.name = std::string(name);
    BATON_RETURN_IF_ERROR(ParseTensor(tensor, offsets[i]));
    if (!file_.tensor_index_.emplace(tensor.name, i).second) {
      return Refuse(fmt::format("tensor '{}' appears twice", Printable(name)));
    }
  }
  return PlaceTensors(offsets);
}

absl::Status GgufParser::PlaceTensors(const std::vector<uint64_t>& offsets) {
  BATON_ASSIGN_OR_RETURN(const uint64_t alignment, Alignment());
  const uint64_t data_start = (position_ + alignment - 1) / alignment * alignment;
  file_.directory_bytes_ = position_;
  for (size_t i = 0; i < offsets.size(); ++i) {
    GgufTensor& tensor = file_.tensors_[i];
    const std::string what = fmt::format("tensor '{}'", Printable(tensor.name));
    if (offsets[i] % alignment != 0) {
      return Refuse(fmt::format("{} is at offset {}, not a multiple of the alignment {}", what,
                                offsets[i], alignment));
    }
    const auto tensor_bytes =
        static_cast<uint64_t>(DTypeBytes(tensor.dtype, tensor.cols()) * tensor.rows());
    const uint64_t data_bytes = bytes_.size() - std::min<uint64_t>(data_start, bytes_.size());
    if (offsets[i] > data_bytes || tensor_bytes > data_bytes - offsets[i]) {
      return Refuse(
          fmt::format("{} takes {} bytes at offset {} of a data section of {} bytes "
                      "(the file has {}; is it truncated?)",
                      what, tensor_bytes, offsets[i], data_bytes, bytes_.size()));
    }
    tensor.data = bytes_.subspan(data_start + offsets[i], tensor_bytes);
  }
  return absl::OkStatus();
}

absl::Status GgufParser::Parse() {
  BATON_RETURN_IF_ERROR(ParseHeader());
  BATON_RETURN_IF_ERROR(ParseMetadata());
  return ParseTensors();
}

}  // namespace baton
