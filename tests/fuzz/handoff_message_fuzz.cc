// Any bytes as a message of the handoff, and as the header of its data: as they are, and with a
// checksum that is right, so that what is behind it is reached. What is taken comes back as it was.
//
// Real fuzzing: as chat_template_fuzz.cc, with kv_transfer/messages.cc and -lxxhash.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>

#include "kv_transfer/byte_codec.h"
#include "kv_transfer/messages.h"
#include "kv_transfer/peer_address.h"

namespace baton::kv_transfer {
namespace {

void TakeApart(const std::string& bytes) {
  const std::span<const std::byte> view = std::as_bytes(std::span(bytes));
  if (const auto message = Decode(view); message.ok()) {
    const std::string again = Encode(*message);
    const auto same = Decode(std::as_bytes(std::span(again)));
    if (!same.ok() || !(*same == *message)) std::abort();
  }
  (void)DecodeDataHeader(view);
}

}  // namespace
}  // namespace baton::kv_transfer

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace baton::kv_transfer;
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  TakeApart(bytes);
  ByteWriter sealed;
  sealed.PutRaw(bytes);
  TakeApart(std::move(sealed).Seal());
  return 0;
}
