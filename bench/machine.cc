#include "bench/machine.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

namespace baton::bench {
namespace {

namespace fs = std::filesystem;

std::string FirstLine(const fs::path& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

bool IsCpuFolder(const std::string& name) {
  return name.size() > 3 && name.starts_with("cpu") &&
         std::all_of(name.begin() + 3, name.end(), [](char c) { return c >= '0' && c <= '9'; });
}

}  // namespace

int64_t ParseCacheSize(std::string_view text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || value < 0) return 0;
  const std::string_view unit = text.substr(static_cast<size_t>(end - text.data()));
  if (unit == "K") return value << 10;
  if (unit == "M") return value << 20;
  return unit.empty() ? value : 0;
}

CacheSizes ReadCacheSizes(const std::string& folder) {
  CacheSizes sizes;
  std::set<std::string> counted;  // CPUs that share an L3
  std::error_code error;
  for (const fs::directory_entry& cpu : fs::directory_iterator(folder, error)) {
    if (!IsCpuFolder(cpu.path().filename())) continue;
    std::error_code none;
    for (const fs::directory_entry& cache : fs::directory_iterator(cpu.path() / "cache", none)) {
      const std::string level = FirstLine(cache.path() / "level");
      const int64_t bytes = ParseCacheSize(FirstLine(cache.path() / "size"));
      if (level == "2") sizes.l2_bytes = std::max(sizes.l2_bytes, bytes);
      if (level == "3" && counted.insert(FirstLine(cache.path() / "shared_cpu_list")).second) {
        sizes.l3_bytes += bytes;
      }
    }
  }
  if (sizes.l2_bytes == 0) return {int64_t{1} << 20, int64_t{32} << 20};
  return sizes;
}

int64_t ResidentBytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    std::istringstream words(line);
    std::string key;
    int64_t kib = 0;
    if (words >> key >> kib && key == "VmRSS:") return kib << 10;
  }
  return 0;
}

}  // namespace baton::bench
