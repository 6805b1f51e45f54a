#pragma once

// Counts the calls of operator new in a test program that links counting_new.cc.

#include <cstdint>

namespace baton::test {

int64_t Allocations();

}  // namespace baton::test
