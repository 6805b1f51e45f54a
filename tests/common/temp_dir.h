#pragma once

#include <cstdlib>
#include <filesystem>
#include <string>
#include <string_view>

#include "common/status_macros.h"

namespace baton::test {

// A directory of its own under the system's temporary directory, removed at the end: tests that
// ctest runs beside each other never share a file.
class TempDir {
 public:
  TempDir() {
    std::string name = (std::filesystem::temp_directory_path() / "baton_test_XXXXXX").string();
    BATON_CHECK(mkdtemp(name.data()) != nullptr, "the temporary directory is writable");
    path_ = name;
  }
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  std::string File(std::string_view name) const { return path_ + "/" + std::string(name); }

 private:
  std::string path_;
};

}  // namespace baton::test
