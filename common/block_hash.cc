#include "common/block_hash.h"

#include <openssl/evp.h>

#include <cstring>
#include <memory>

#include "common/status_macros.h"

namespace baton {
namespace {

// What OpenSSL looks up and allocates for a hash takes longer than the hash of one block.
class Sha256Context {
 public:
  Sha256Context() {
    const std::unique_ptr<EVP_MD, decltype(&EVP_MD_free)> sha256(
        EVP_MD_fetch(nullptr, "SHA256", nullptr), &EVP_MD_free);
    BATON_CHECK(context_ != nullptr && sha256 != nullptr &&
                    EVP_DigestInit_ex2(context_.get(), sha256.get(), nullptr) == 1,
                "OpenSSL has SHA-256");
  }

  BlockHash Hash(std::span<const uint8_t> bytes) {
    BlockHash hash;
    // Without a digest the context begins anew with the one that it has.
    const bool ok = EVP_DigestInit_ex2(context_.get(), nullptr, nullptr) == 1 &&
                    EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size()) == 1 &&
                    EVP_DigestFinal_ex(context_.get(), hash.data(), nullptr) == 1;
    BATON_CHECK(ok, "OpenSSL computes SHA-256");
    return hash;
  }

 private:
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_{EVP_MD_CTX_new(),
                                                                   &EVP_MD_CTX_free};
};

// SHA-256 over length-prefixed parts, so that no two lists of parts give the same bytes.
BlockHash Sha256(std::initializer_list<std::span<const uint8_t>> parts) {
  static thread_local Sha256Context context;
  static thread_local std::vector<uint8_t> bytes;
  bytes.clear();
  for (const std::span<const uint8_t> part : parts) {
    const uint64_t size = part.size();
    const auto* const prefix = reinterpret_cast<const uint8_t*>(&size);
    bytes.insert(bytes.end(), prefix, prefix + sizeof size);
    bytes.insert(bytes.end(), part.begin(), part.end());
  }
  return context.Hash(bytes);
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
