// Where the device's memory is the host's.

#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/ops.h"

namespace baton::kernels {
namespace {

class HostBuffer final : public Buffer {
 public:
  explicit HostBuffer(int64_t bytes)
      : words_(static_cast<size_t>((bytes + sizeof(float) - 1) / sizeof(float))) {}
  std::byte* data() override { return reinterpret_cast<std::byte*>(words_.data()); }

 private:
  std::vector<float> words_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Buffer>> Ops::NewBuffer(int64_t bytes) {
  return std::make_unique<HostBuffer>(bytes);
}

void Ops::ToDevice(void* to, const void* from, int64_t bytes) {
  std::memcpy(to, from, static_cast<size_t>(bytes));
}

void Ops::ToHost(std::span<const CopyPiece> pieces) {
  for (const CopyPiece& piece : pieces) {
    std::memcpy(piece.to, piece.from, static_cast<size_t>(piece.bytes));
  }
}

void Ops::Copy(float* to, const float* from, int64_t count) { std::copy_n(from, count, to); }

void Ops::DrawTokens(const float*, int32_t, std::span<const Draw>, std::span<const LogitEdit>,
                     std::span<TokenId> tokens) {
  std::ranges::fill(tokens, kDrawnByHost);
}

}  // namespace baton::kernels
