#pragma once

// Memory for weights, cut from large mappings on huge pages: matrices of less than a huge page each
// would otherwise lie on small pages, over which a processor fetches ahead badly.

#include <cstddef>
#include <cstdint>
#include <vector>

namespace baton::kernels {

// One thread at a time.
class WeightArena {
 public:
  WeightArena() = default;
  ~WeightArena();
  WeightArena(const WeightArena&) = delete;
  WeightArena& operator=(const WeightArena&) = delete;

  // Zero-filled memory, aligned to 64 bytes, until the arena goes. Ends the process when there is
  // none.
  uint8_t* Allocate(size_t bytes);

 private:
  struct Mapping {
    uint8_t* data;
    size_t bytes;
  };
  void Map(size_t bytes);

  std::vector<Mapping> mappings_;
  uint8_t* next_ = nullptr;  // in the last mapping
  size_t left_ = 0;
};

}  // namespace baton::kernels
