#include <fmt/format.h>

#include "common/status_macros.h"
#include "worker_link/convert.h"

namespace baton::worker_link {
namespace {

constexpr auto kMemory = static_cast<size_t>(CacheTier::kMemory);
constexpr auto kDisk = static_cast<size_t>(CacheTier::kDisk);

absl::Status CheckLevel(const char* field, int32_t level) {
  if (level >= 0 && level <= kMaxKeyLevel) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("{} is {}, but must be in [0, {}]", field, level, kMaxKeyLevel));
}

}  // namespace

void ToWire(const BlockNews& news, v1::WireBlocks* wire) {
  wire->set_number(news.number);
  wire->set_restart(news.restart);
  wire->set_memory_level(news.levels[kMemory]);
  wire->set_disk_level(news.levels[kDisk]);
  wire->mutable_memory()->Add(news.changes[kMemory].begin(), news.changes[kMemory].end());
  wire->mutable_disk()->Add(news.changes[kDisk].begin(), news.changes[kDisk].end());
}

absl::StatusOr<BlockNews> FromWire(const v1::WireBlocks& wire) {
  BATON_RETURN_IF_ERROR(CheckLevel("memory_level", wire.memory_level()));
  BATON_RETURN_IF_ERROR(CheckLevel("disk_level", wire.disk_level()));
  const auto changes = static_cast<size_t>(wire.memory_size() + wire.disk_size());
  BATON_RETURN_IF_ERROR(CheckLength("blocks", changes, BlockJournal::kMaxChanges, "changes"));
  BlockNews news;
  news.number = wire.number();
  news.restart = wire.restart();
  news.levels = {wire.memory_level(), wire.disk_level()};
  news.changes[kMemory].assign(wire.memory().begin(), wire.memory().end());
  news.changes[kDisk].assign(wire.disk().begin(), wire.disk().end());
  return news;
}

}  // namespace baton::worker_link
