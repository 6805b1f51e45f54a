#pragma once

// Memory aligned to 64 bytes; large ones are on huge pages where the kernel gives them.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>

namespace baton::kernels {

class LargeBuffer {
 public:
  LargeBuffer() = default;
  // Zero-filled.
  explicit LargeBuffer(size_t bytes);

  uint8_t* data() { return data_.get(); }
  const uint8_t* data() const { return data_.get(); }
  size_t bytes() const { return bytes_; }

  // At least `bytes` large afterwards; the contents are lost when it grows, and it grows by half
  // or more, so that a slowly growing need allocates rarely.
  void Reserve(size_t bytes) {
    if (bytes > bytes_)
      *this = LargeBuffer(bytes > bytes_ + bytes_ / 2 ? bytes : bytes_ + bytes_ / 2);
  }

 private:
  struct Free {
    void operator()(uint8_t* memory) const { std::free(memory); }
  };
  std::unique_ptr<uint8_t[], Free> data_;
  size_t bytes_ = 0;
};

}  // namespace baton::kernels
