#include "router/interned_name.h"

#include <mutex>

#include "absl/container/node_hash_set.h"

namespace baton::router {

InternedName::InternedName(std::string_view text) {
  static std::mutex mutex;
  static absl::node_hash_set<std::string>& names = *new absl::node_hash_set<std::string>();
  const std::lock_guard lock(mutex);
  text_ = &*names.emplace(text).first;
}

}  // namespace baton::router
