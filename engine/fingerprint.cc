#include "engine/fingerprint.h"

#include <fmt/format.h>
#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <memory>
#include <span>

#include "common/status_macros.h"

namespace baton::engine {

std::string Fingerprint(const GgufFile& file) {
  constexpr size_t kSampleBytes = 4096;
  const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(),
                                                                        &EVP_MD_CTX_free);
  bool ok = context != nullptr && EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr) == 1;
  const auto update = [&](std::span<const std::byte> bytes) {
    ok = ok && EVP_DigestUpdate(context.get(), bytes.data(), bytes.size()) == 1;
  };
  const int64_t file_bytes = file.file_bytes();
  update(std::as_bytes(std::span(&file_bytes, 1)));
  update(file.directory());
  for (const GgufTensor& tensor : file.tensors()) {
    const size_t sample = std::min(kSampleBytes, tensor.data.size());
    update(tensor.data.first(sample));
    update(tensor.data.subspan((tensor.data.size() - sample) / 2, sample));
    update(tensor.data.last(sample));
  }
  std::array<uint8_t, 32> digest;
  ok = ok && EVP_DigestFinal_ex(context.get(), digest.data(), nullptr) == 1;
  BATON_CHECK(ok, "OpenSSL computes SHA-256");
  return fmt::format("{:02x}", fmt::join(digest, ""));
}

}  // namespace baton::engine
