// libFuzzer target for GgufFile::Open. Not part of the default build:
//   clang++ -std=c++20 -g -O1 -fsanitize=fuzzer,address,undefined -I. tests/fuzz/gguf_fuzz.cc
//     model_file/*.cc common/dtype.cc common/status_macros.cc -labsl_status -labsl_statusor -lfmt

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "model_file/gguf.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const int fd = memfd_create("fuzz.gguf", MFD_CLOEXEC);
  if (fd < 0 || write(fd, data, size) != static_cast<ssize_t>(size)) std::abort();
  const auto file = baton::GgufFile::Open("/proc/self/fd/" + std::to_string(fd));
  if (file.ok()) {
    volatile uint64_t sum = 0;
    for (const baton::GgufTensor& tensor : (*file)->tensors()) {
      for (const std::byte b : tensor.data) sum = sum + static_cast<uint64_t>(b);
    }
  }
  close(fd);
  return 0;
}
