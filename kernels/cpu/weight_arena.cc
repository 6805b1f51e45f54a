#include "kernels/cpu/weight_arena.h"

#include <sys/mman.h>

#include <algorithm>

#include "common/status_macros.h"

namespace baton::kernels {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kMappingBytes = size_t{256} << 20;  // address space: only what is used is resident

size_t RoundUp(size_t value, size_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

}  // namespace

WeightArena::~WeightArena() {
  for (const Mapping& mapping : mappings_) munmap(mapping.data, mapping.bytes);
}

uint8_t* WeightArena::Allocate(size_t bytes) {
  const size_t rounded = RoundUp(bytes, 64);
  if (rounded > left_) Map(rounded);
  uint8_t* const memory = next_;
  next_ += rounded;
  left_ -= rounded;
  return memory;
}

void WeightArena::Map(size_t bytes) {
  const size_t wanted = RoundUp(std::max(bytes, kMappingBytes), kHugePage);
  const size_t mapped = wanted + kHugePage;
  void* const memory = mmap(nullptr, mapped, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  BATON_CHECK(memory != MAP_FAILED, "memory for weights");
  mappings_.push_back({static_cast<uint8_t*>(memory), mapped});
  const auto address = reinterpret_cast<uintptr_t>(memory);
  next_ = reinterpret_cast<uint8_t*>(RoundUp(address, kHugePage));
  left_ = wanted;
  madvise(next_, left_, MADV_HUGEPAGE);  // best effort
}

}  // namespace baton::kernels
