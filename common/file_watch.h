#pragma once

// Tells when files have changed, by looking at them again.

#include <string>
#include <vector>

namespace baton {

// Sees a file that was written anew, and one that another was renamed over (size, time and inode).
// Not thread-safe.
class FileWatch {
 public:
  explicit FileWatch(std::vector<std::string> paths);

  // Whether any of them is not as it was at the last call, or at construction.
  bool Changed();

 private:
  std::string Look() const;

  const std::vector<std::string> paths_;
  std::string seen_;
};

}  // namespace baton
