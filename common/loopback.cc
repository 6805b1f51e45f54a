#include "common/loopback.h"

namespace baton {

bool IsLoopback(const std::string& address) {
  return address.starts_with("127.") || address.starts_with("[::1]:") ||
         address.starts_with("localhost:");
}

}  // namespace baton
