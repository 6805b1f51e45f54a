#pragma once

// Which of the bugs that mutate.py seeds is there; none at first.

#include <string_view>

namespace baton::kv_transfer {

inline std::string_view active_mutant;

inline bool MutantIs(std::string_view name) { return name == active_mutant; }

}  // namespace baton::kv_transfer
