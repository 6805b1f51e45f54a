#include "kernels/kv_convert.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "common/status_macros.h"
#include "kernels/cpu/cpu_isa.h"

namespace baton::kernels {
namespace {

constexpr int32_t kTokenStep = 8;  // first tokens are multiples of it

bool IsBlockSize(int32_t block_tokens) {
  return block_tokens == 8 || block_tokens == 16 || block_tokens == 32;
}

// `count` pieces of `bytes`, which lie `from_stride` and `to_stride` apart.
template <int64_t kBytes>
void CopyPieces(const std::byte* from, int64_t from_stride, std::byte* to, int64_t to_stride,
                int64_t count) {
  for (int64_t i = 0; i < count; ++i)
    std::memcpy(to + i * to_stride, from + i * from_stride, kBytes);
}

void CopyPieces(int64_t bytes, const std::byte* from, int64_t from_stride, std::byte* to,
                int64_t to_stride, int64_t count) {
  switch (bytes) {  // those of 8, 16 and 32 tokens of 1, 2 and 4 bytes
    case 8:
      return CopyPieces<8>(from, from_stride, to, to_stride, count);
    case 16:
      return CopyPieces<16>(from, from_stride, to, to_stride, count);
    case 32:
      return CopyPieces<32>(from, from_stride, to, to_stride, count);
    case 64:
      return CopyPieces<64>(from, from_stride, to, to_stride, count);
    case 128:
      return CopyPieces<128>(from, from_stride, to, to_stride, count);
  }
  for (int64_t i = 0; i < count; ++i) {
    std::memcpy(to + i * to_stride, from + i * from_stride, static_cast<size_t>(bytes));
  }
}

// Tokens of one head between blocks of one format.
struct HeadMove {
  const KvLayout& source;
  const KvLayout& target;
  int32_t source_token;
  int32_t target_token;
  int32_t tokens;

  void Keys(const std::byte* from, std::byte* to) const {
    const int32_t together = Traits(source.dtype).together;
    const int64_t unit_bytes = together * source.element_bytes();
    CopyPieces(tokens * unit_bytes, from + source_token * unit_bytes,
               source.block_tokens * unit_bytes, to + target_token * unit_bytes,
               target.block_tokens * unit_bytes, (source.head_dim + together - 1) / together);
    Scales(from, to);
  }
  void Values(const std::byte* from, std::byte* to) const {
    const int32_t together = Traits(source.dtype).together;
    const int32_t single = tokens % together;  // of a pair, its neighbour stays as it is
    const int64_t element_bytes = source.element_bytes();
    const int64_t vector_bytes = source.head_dim * element_bytes;
    std::memcpy(to + target_token * vector_bytes, from + source_token * vector_bytes,
                static_cast<size_t>((tokens - single) * vector_bytes));
    if (single != 0) {
      const int64_t done = (tokens - single) * vector_bytes;
      CopyPieces(element_bytes, from + source_token * vector_bytes + done, together * element_bytes,
                 to + target_token * vector_bytes + done, together * element_bytes,
                 source.head_dim);
    }
    Scales(from, to);
  }
  void Scales(const std::byte* from, std::byte* to) const {
    if (!Traits(source.dtype).scaled) return;
    std::memcpy(to + target.scale(target_token), from + source.scale(source_token),
                static_cast<size_t>(tokens) * sizeof(float));
  }
};

const uint8_t* Bytes(const std::byte* at) { return reinterpret_cast<const uint8_t*>(at); }
uint8_t* Bytes(std::byte* at) { return reinterpret_cast<uint8_t*>(at); }

}  // namespace

std::string KvShard::ToString() const {
  const std::string text = layout.ToString();
  return first_head == 0 ? text : fmt::format("{} first_head={}", text, first_head);
}

absl::StatusOr<KvShard> ShardOf(const KvLayout& whole, int32_t rank, int32_t ranks) {
  if ((ranks != 1 && ranks != 2 && ranks != 4) || rank < 0 || rank >= ranks ||
      whole.kv_heads < ranks) {
    return absl::InvalidArgumentError(fmt::format(
        "rank {} of {} (1, 2 or 4) of a model with {} kv heads", rank, ranks, whole.kv_heads));
  }
  KvShard shard{whole, rank * whole.kv_heads / ranks};
  shard.layout.kv_heads = (rank + 1) * whole.kv_heads / ranks - shard.first_head;
  return shard;
}

absl::Status CheckConvertible(const KvShard& source, const KvShard& target) {
  const KvLayout& from = source.layout;
  const KvLayout& to = target.layout;
  const bool common_head = std::max(source.first_head, target.first_head) <
                           std::min(source.end_head(), target.end_head());
  if (from.layers == to.layers && from.head_dim == to.head_dim && IsBlockSize(from.block_tokens) &&
      IsBlockSize(to.block_tokens) && common_head) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(
      fmt::format("KV of '{}' cannot become KV of '{}'", source.ToString(), target.ToString()));
}

absl::StatusOr<KvConverter> KvConverter::Create(const KvShard& source, const KvShard& target,
                                                CpuIsa wanted) {
  BATON_RETURN_IF_ERROR(CheckConvertible(source, target));
  BATON_ASSIGN_OR_RETURN(const CpuIsa isa, ResolveCpuIsa(wanted));
  return KvConverter(source, target, isa);
}

KvConverter::KvConverter(const KvShard& source, const KvShard& target, CpuIsa isa)
    : source_(source), target_(target), isa_(isa) {
  if (source.layout.dtype == target.layout.dtype) return;
  scratch_.resize(static_cast<size_t>(KvConversionScratchFloats(source.layout.head_dim)));
}

void KvConverter::Convert(const std::byte* source_block, int32_t source_token, int32_t tokens,
                          std::byte* target_block, int32_t target_token) {
  const KvLayout& from = source_.layout;
  const KvLayout& to = target_.layout;
  BATON_CHECK(source_token >= 0 && target_token >= 0 && tokens >= 0 &&
                  source_token % kTokenStep == 0 && target_token % kTokenStep == 0 &&
                  source_token + tokens <= from.block_tokens &&
                  target_token + tokens <= to.block_tokens,
              "the tokens lie inside both blocks");
  const HeadMove move{from, to, source_token, target_token, tokens};
  KvConversion conversion{.from = from.dtype,
                          .to = to.dtype,
                          .head_dim = from.head_dim,
                          .from_block_tokens = from.block_tokens,
                          .to_block_tokens = to.block_tokens,
                          .from_token = source_token,
                          .to_token = target_token,
                          .tokens = tokens,
                          .from_keys = nullptr,
                          .from_values = nullptr,
                          .to_keys = nullptr,
                          .to_values = nullptr,
                          .scratch = scratch_.data()};
  const int32_t first = std::max(source_.first_head, target_.first_head);
  const int32_t end = std::min(source_.end_head(), target_.end_head());
  for (int32_t layer = 0; layer < from.layers; ++layer) {
    for (int32_t head = first; head < end; ++head) {
      const int32_t from_head = head - source_.first_head;
      const int32_t to_head = head - target_.first_head;
      const std::byte* const keys = source_block + from.key_offset(layer, from_head);
      const std::byte* const values = source_block + from.value_offset(layer, from_head);
      std::byte* const to_keys = target_block + to.key_offset(layer, to_head);
      std::byte* const to_values = target_block + to.value_offset(layer, to_head);
      if (from.dtype == to.dtype) {
        move.Keys(keys, to_keys);
        move.Values(values, to_values);
        continue;
      }
      conversion.from_keys = Bytes(keys);
      conversion.from_values = Bytes(values);
      conversion.to_keys = Bytes(to_keys);
      conversion.to_values = Bytes(to_values);
      KernelsOf(isa_).convert_kv(conversion);
    }
  }
}

}  // namespace baton::kernels
