// Keys and values into the cache, rounded to its format.

#include "kernels/cpu/isa_functions.h"
#include "kernels/cpu/kv_store_vector.h"

namespace baton::kernels::BATON_ISA {
namespace {

template <KvDType kDType>
void StoreToken(const KvToken& token) {
  using Format = KvFormat<kDType>;
  constexpr int kTogether = Format::kTogether;
  constexpr int kUnitBytes = kTogether * Format::kBytes;
  const int32_t units = (token.head_dim + kTogether - 1) / kTogether;
  const int64_t scale =
      int64_t{token.block_tokens} * units * kUnitBytes + token.index * int64_t{sizeof(float)};
  StoreVector<kDType, kTogether>(token.key, token.head_dim, token.block_tokens * kUnitBytes,
                                 token.keys + token.index * kUnitBytes, token.keys + scale);
  const int64_t row = int64_t{token.index / kTogether} * token.head_dim;
  StoreVector<kDType, 1>(token.value, token.head_dim, kUnitBytes,
                         token.values + row * kUnitBytes + token.index % kTogether * Format::kBytes,
                         token.values + scale);
}

}  // namespace

void StoreKv(const KvToken& token) {
  switch (token.dtype) {
    case KvDType::kF32:
      return StoreToken<KvDType::kF32>(token);
    case KvDType::kF16:
      return StoreToken<KvDType::kF16>(token);
    case KvDType::kBF16:
      return StoreToken<KvDType::kBF16>(token);
    case KvDType::kInt8:
      return StoreToken<KvDType::kInt8>(token);
    case KvDType::kFp8:
      return StoreToken<KvDType::kFp8>(token);
  }
}

}  // namespace baton::kernels::BATON_ISA
