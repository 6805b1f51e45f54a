#pragma once

// Early return on errors, and CHECK for bugs.
//
//   BATON_RETURN_IF_ERROR(expression giving absl::Status);
//   BATON_ASSIGN_OR_RETURN(auto value, expression giving absl::StatusOr<T>);
//   BATON_CHECK(condition) << is not supported: BATON_CHECK(condition, "why it must hold").
//
// Operating errors (bad input, a lost peer) are absl::Status. A failed BATON_CHECK is a bug in
// Baton: it prints where, and aborts, in every build type.

#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace baton {

[[noreturn]] void CheckFailed(const char* file, int line, const char* condition,
                              std::string_view why);

}  // namespace baton

#define BATON_CONCAT_INNER(a, b) a##b
#define BATON_CONCAT(a, b) BATON_CONCAT_INNER(a, b)

#define BATON_RETURN_IF_ERROR(expression)                     \
  do {                                                        \
    if (absl::Status status_ = (expression); !status_.ok()) { \
      return status_;                                         \
    }                                                         \
  } while (false)

#define BATON_ASSIGN_OR_RETURN(declaration, expression) \
  BATON_ASSIGN_OR_RETURN_INNER(BATON_CONCAT(status_or_, __LINE__), declaration, expression)
#define BATON_ASSIGN_OR_RETURN_INNER(holder, declaration, expression) \
  auto holder = (expression);                                         \
  if (!holder.ok()) return std::move(holder).status();                \
  declaration = *std::move(holder)

#define BATON_CHECK(condition, why)                              \
  do {                                                           \
    if (!(condition)) [[unlikely]] {                             \
      ::baton::CheckFailed(__FILE__, __LINE__, #condition, why); \
    }                                                            \
  } while (false)
