#include "common/block_hash.h"

#include <openssl/evp.h>

#include <cstring>
#include <memory>

#include "common/status_macros.h"

namespace baton {
namespace {

// SHA-256 over length-prefixed parts, so that no two lists of parts give the same bytes.
BlockHash Sha256(std::initializer_list<std::span<const uint8_t>> parts) {
  const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(),
                                                                        &EVP_MD_CTX_free);
  BlockHash hash;
  bool ok = context != nullptr && EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr) == 1;
  for (const std::span<const uint8_t> part : parts) {
    const uint64_t bytes = part.size();
    ok = ok && EVP_DigestUpdate(context.get(), &bytes, sizeof bytes) == 1 &&
         EVP_DigestUpdate(context.get(), part.data(), part.size()) == 1;
  }
  ok = ok && EVP_DigestFinal_ex(context.get(), hash.data(), nullptr) == 1;
  BATON_CHECK(ok, "OpenSSL computes SHA-256");
  return hash;
}

std::span<const uint8_t> Bytes(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

}  // namespace

BlockHash ChainRoot(std::string_view fingerprint, std::string_view salt) {
  return Sha256({Bytes("baton kv chain"), Bytes(fingerprint), Bytes(salt)});
}

BlockHash ChainBlock(const BlockHash& previous, std::span<const TokenId> tokens) {
  return Sha256({previous, {reinterpret_cast<const uint8_t*>(tokens.data()), tokens.size_bytes()}});
}

std::vector<BlockHash> ChainFullBlocks(const BlockHash& root, std::span<const TokenId> tokens,
                                       int block_tokens) {
  BATON_CHECK(block_tokens > 0, "a block holds tokens");
  std::vector<BlockHash> hashes;
  hashes.reserve(tokens.size() / block_tokens);
  BlockHash previous = root;
  for (size_t end = block_tokens; end <= tokens.size(); end += block_tokens) {
    previous = ChainBlock(previous, tokens.subspan(end - block_tokens, block_tokens));
    hashes.push_back(previous);
  }
  return hashes;
}

size_t BlockHashHasher::operator()(const BlockHash& hash) const {
  size_t value;
  std::memcpy(&value, hash.data(), sizeof value);
  return value;
}

}  // namespace baton
