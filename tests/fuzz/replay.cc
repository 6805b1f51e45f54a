// A main for fuzz targets where libFuzzer is not at hand: runs the target on each file given (or in
// each folder given), and on damaged copies of it. A finding is a crash, a sanitizer report or a
// hang.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

constexpr size_t kMaxBytes = 4 << 20;  // of a file: its head, where parsers decide
constexpr int kCopies = 100;           // damaged ones of each file
constexpr unsigned kSeed = 1;

std::string ReadHead(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::string bytes(kMaxBytes, '\0');
  file.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  bytes.resize(static_cast<size_t>(file.gcount()));
  return bytes;
}

// Changes a few bytes, mostly near the start; now and then cuts the end off.
std::string Damage(std::string bytes, std::mt19937* random) {
  const auto below = [random](size_t n) {
    return std::uniform_int_distribution<size_t>(0, n - 1)(*random);
  };
  for (size_t count = 1 + below(8); count > 0; --count) {
    const size_t reach = std::max<size_t>(1, bytes.size() >> below(16));
    bytes[below(reach)] = static_cast<char>(below(256));
  }
  if (below(4) == 0) bytes.resize(1 + below(bytes.size()));
  return bytes;
}

void Run(const std::string& bytes) {
  LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::filesystem::path> files;
  for (int i = 1; i < argc; ++i) {
    if (!std::filesystem::is_directory(argv[i])) {
      files.emplace_back(argv[i]);
      continue;
    }
    for (const auto& entry : std::filesystem::directory_iterator(argv[i])) {
      files.push_back(entry.path());
    }
  }
  std::sort(files.begin(), files.end());
  std::mt19937 random(kSeed);
  std::printf("seed %u\n", kSeed);
  size_t inputs = 0;
  for (const std::filesystem::path& path : files) {
    const std::string bytes = ReadHead(path);
    if (bytes.empty()) {
      std::fprintf(stderr, "cannot read %s, or it is empty\n", path.c_str());
      return 1;
    }
    Run(bytes);
    for (int copy = 0; copy < kCopies; ++copy) Run(Damage(bytes, &random));
    inputs += 1 + kCopies;
  }
  std::printf("%zu inputs from %zu files\n", inputs, files.size());
  return inputs > 0 ? 0 : 1;
}
