#pragma once

// Numbers between bounds, as JSON writes them.

#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "grammar/expression.h"

namespace baton::grammar {

// -12.5 is {true, "12", "5"}. No zeros in front of `whole` ("0" alone stands) nor behind
// `fraction`.
struct Decimal {
  bool negative = false;
  std::string whole = "0";
  std::string fraction;

  bool is_zero() const { return whole == "0" && fraction.empty(); }
};

// InvalidArgument for what is no plain decimal, or has more than 16 digits before or behind its
// point.
absl::StatusOr<Decimal> ParseDecimal(std::string_view text);

struct NumberBounds {
  std::optional<Decimal> low, high;
  bool low_open = false;  // the bound itself is outside
  bool high_open = false;
};

// Without an exponent; with at most 16 digits before, and with `integer` none, else at most 16
// behind the point. Minus zero is not among them.
ExpressionId BoundedNumber(const NumberBounds& bounds, bool integer, Grammar* grammar);

}  // namespace baton::grammar
