#pragma once

#include <string>

namespace baton {

// Whether HOST:PORT is of this machine only. Names other than localhost are taken for others'.
bool IsLoopback(const std::string& address);

}  // namespace baton
