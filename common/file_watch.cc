#include "common/file_watch.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <iterator>
#include <utility>

namespace baton {

FileWatch::FileWatch(std::vector<std::string> paths) : paths_(std::move(paths)), seen_(Look()) {}

std::string FileWatch::Look() const {
  std::string seen;
  for (const std::string& path : paths_) {
    struct stat about {};
    if (stat(path.c_str(), &about) != 0) {
      seen += "none;";
      continue;
    }
    fmt::format_to(std::back_inserter(seen), "{} {} {} {}.{};", about.st_dev, about.st_ino,
                   about.st_size, about.st_mtim.tv_sec, about.st_mtim.tv_nsec);
  }
  return seen;
}

bool FileWatch::Changed() {
  std::string now = Look();
  if (now == seen_) return false;
  seen_ = std::move(now);
  return true;
}

}  // namespace baton
