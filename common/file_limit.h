#pragma once

#include <cstdint>

namespace baton {

// Lets this process have as many files and sockets open as it may; gives how many that are.
int64_t RaiseFileLimit();

}  // namespace baton
