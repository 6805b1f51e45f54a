#include "kv_transfer/peer_address.h"

#include <fmt/format.h>

#include "kernels/kv_convert.h"
#include "kv_transfer/byte_codec.h"
#include "kv_transfer/messages.h"

namespace baton::kv_transfer {
namespace {

constexpr uint32_t kAddressMagic = 0x414B5442;  // "BTKA"
constexpr uint8_t kAddressVersion = 2;
constexpr uint32_t kMaxTextBytes = 1'024;
constexpr int64_t kMaxBlockBytes = int64_t{1} << 32;

absl::Status Differ(std::string_view what, const PeerAddress& ours, const PeerAddress& theirs,
                    std::string_view our_value, std::string_view their_value) {
  return absl::FailedPreconditionError(
      fmt::format("KV cannot move between '{}' and '{}': {} '{}' here, '{}' there", ours.name,
                  theirs.name, what, our_value, their_value));
}

bool LayoutsFit(const PeerAddress& ours, const PeerAddress& theirs) {
  if (ours.layout == theirs.layout) return ours.block_bytes == theirs.block_bytes;
  const auto our_layout = kernels::KvLayout::FromString(ours.layout);
  const auto their_layout = kernels::KvLayout::FromString(theirs.layout);
  return our_layout.ok() && their_layout.ok() && our_layout->block_bytes() == ours.block_bytes &&
         their_layout->block_bytes() == theirs.block_bytes &&
         our_layout->kv_heads == their_layout->kv_heads &&
         kernels::CheckConvertible({.layout = *their_layout}, {.layout = *our_layout}).ok();
}

}  // namespace

absl::StatusOr<std::string> EncodeAddress(const PeerAddress& address) {
  ByteWriter out;
  out.Put(kAddressMagic);
  out.Put(kAddressVersion);
  out.Put(address.incarnation);
  out.PutText(address.name);
  out.PutText(address.family);
  out.PutText(address.endpoint);
  out.PutText(address.layout);
  out.PutText(address.model_fingerprint);
  out.Put(address.block_count);
  out.Put(address.block_bytes);
  out.Put(static_cast<uint8_t>(address.slab_file.has_value()));
  const SlabFile file = address.slab_file.value_or(SlabFile{});
  out.PutText(file.host);
  out.Put(file.pid);
  out.Put(file.fd);
  out.Put(static_cast<uint8_t>(address.gpu.has_value()));
  const GpuAddress gpu = address.gpu.value_or(GpuAddress{});
  out.PutText(gpu.machine);
  out.PutText(gpu.bus_id);
  out.PutText(gpu.name);
  out.Put(gpu.index);
  out.Put(gpu.nccl_version);
  std::string bytes = std::move(out).Seal();
  if (bytes.size() > kMaxAddressBytes) {
    return absl::InvalidArgumentError(
        fmt::format("the handoff address of '{}' takes {} bytes, at most {} are allowed",
                    address.name, bytes.size(), kMaxAddressBytes));
  }
  return bytes;
}

absl::StatusOr<PeerAddress> DecodeAddress(std::string_view bytes) {
  ByteReader in(Unseal(AsBytes(bytes)));
  PeerAddress address;
  const auto magic = in.Get<uint32_t>();
  const auto version = in.Get<uint8_t>();
  if (!in.ok() || magic != kAddressMagic || version != kAddressVersion) {
    return absl::InvalidArgumentError(
        fmt::format("{} bytes are not a handoff address of version {}, or are damaged",
                    bytes.size(), kAddressVersion));
  }
  address.incarnation = in.Get<uint64_t>();
  address.name = in.GetText(kMaxNameBytes);
  address.family = in.GetText(kMaxNameBytes);
  address.endpoint = in.GetText(kMaxAddressBytes);
  address.layout = in.GetText(kMaxTextBytes);
  address.model_fingerprint = in.GetText(kMaxTextBytes);
  address.block_count = in.GetInRange(1, INT32_MAX);
  address.block_bytes = in.Get<int64_t>();
  const bool mappable = in.Get<uint8_t>() != 0;
  SlabFile file;
  file.host = in.GetText(kMaxTextBytes);
  file.pid = in.Get<int32_t>();
  file.fd = in.Get<int32_t>();
  if (mappable) address.slab_file = std::move(file);
  const bool has_gpu = in.Get<uint8_t>() != 0;
  GpuAddress gpu;
  gpu.machine = in.GetText(kMaxTextBytes);
  gpu.bus_id = in.GetText(kMaxTextBytes);
  gpu.name = in.GetText(kMaxTextBytes);
  gpu.index = in.GetInRange(0, INT32_MAX);
  gpu.nccl_version = in.GetInRange(0, INT32_MAX);
  if (has_gpu) address.gpu = std::move(gpu);
  if (!in.complete() || address.block_bytes < 1 || address.block_bytes > kMaxBlockBytes) {
    return absl::InvalidArgumentError(fmt::format(
        "handoff address of {} bytes does not fit its own counts and bounds", bytes.size()));
  }
  return address;
}

absl::Status CheckCompatible(const PeerAddress& ours, const PeerAddress& theirs) {
  if (ours.family != theirs.family) {
    return Differ("transport", ours, theirs, ours.family, theirs.family);
  }
  if (ours.model_fingerprint != theirs.model_fingerprint) {
    return Differ("model", ours, theirs, ours.model_fingerprint, theirs.model_fingerprint);
  }
  if (!LayoutsFit(ours, theirs)) {
    return Differ("KV layout", ours, theirs, ours.layout, theirs.layout);
  }
  return absl::OkStatus();
}

}  // namespace baton::kv_transfer
