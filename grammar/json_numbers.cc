#include "grammar/json_numbers.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace baton::grammar {
namespace {

constexpr size_t kMaxDigits = 16;

bool AllZeros(std::string_view digits, size_t from) {
  return from >= digits.size() || digits.find_first_not_of('0', from) == std::string_view::npos;
}

// Texts of numbers from zero on between two bounds, digit by digit: as long as the digits so far
// are those of a bound ("tight"), it bounds the next one, too.
class Magnitude {
 public:
  Magnitude(NumberBounds bounds, bool integer, Grammar* grammar)
      : bounds_(std::move(bounds)), integer_(integer), grammar_(*grammar) {}

  ExpressionId Make() {
    const size_t least = bounds_.low->whole.size();
    const size_t most = bounds_.high ? bounds_.high->whole.size() : kMaxDigits;
    std::vector<ExpressionId> lengths;
    for (length_ = least; length_ <= most; ++length_) {
      const bool tight_low = length_ == least;
      const bool tight_high = bounds_.high && length_ == most;
      lengths.push_back(Whole(0, tight_low, tight_high));
    }
    return grammar_.Choice(std::move(lengths));
  }

 private:
  ExpressionId Digit(int low, int high) {
    return grammar_.Character(
        {{static_cast<uint32_t>('0' + low), static_cast<uint32_t>('0' + high)}});
  }

  static int DigitAt(std::string_view digits, size_t at) {
    return at < digits.size() ? digits[at] - '0' : 0;
  }

  // One digit between those of the bounds, then what `rest` gives for the bounds still tight.
  template <typename Rest>
  ExpressionId OneDigit(int low, int high, bool tight_low, bool tight_high, Rest rest) {
    if (low > high) return grammar_.Nothing();
    if (tight_low && tight_high && low == high) {
      return grammar_.Sequence({Digit(low, low), rest(true, true)});
    }
    std::vector<ExpressionId> choices;
    if (tight_low) {
      choices.push_back(grammar_.Sequence({Digit(low, low), rest(true, false)}));
      ++low;
    }
    if (tight_high) {
      choices.push_back(grammar_.Sequence({Digit(high, high), rest(false, true)}));
      --high;
    }
    if (low <= high) {
      choices.push_back(grammar_.Sequence({Digit(low, high), rest(false, false)}));
    }
    return grammar_.Choice(std::move(choices));
  }

  // From digit `at` of the whole part on.
  ExpressionId Whole(size_t at, bool tight_low, bool tight_high) {
    if (at == length_) return Point(tight_low, tight_high);
    const int least = at == 0 && length_ > 1 ? 1 : 0;
    if (at > 0 && !tight_low && !tight_high) {
      const auto left = static_cast<int32_t>(length_ - at);
      return grammar_.Sequence({grammar_.Repeat(Digit(0, 9), left, left), Point(false, false)});
    }
    const int low = tight_low ? DigitAt(bounds_.low->whole, at) : least;
    const int high = tight_high ? DigitAt(bounds_.high->whole, at) : 9;
    return OneDigit(low, high, tight_low, tight_high,
                    [&](bool l, bool h) { return Whole(at + 1, l, h); });
  }

  // Whether the number may end after `digits` digits of its fraction.
  bool MayEnd(size_t digits, bool tight_low, bool tight_high) const {
    if (tight_low) {
      const bool equal = AllZeros(bounds_.low->fraction, digits);
      if (!equal || bounds_.low_open) return false;
    }
    return !(tight_high && bounds_.high_open && AllZeros(bounds_.high->fraction, digits));
  }

  ExpressionId Point(bool tight_low, bool tight_high) {
    std::vector<ExpressionId> choices;
    if (MayEnd(0, tight_low, tight_high)) choices.push_back(grammar_.Empty());
    if (!integer_) {
      choices.push_back(
          grammar_.Sequence({grammar_.Bytes("."), Fraction(0, tight_low, tight_high)}));
    }
    return grammar_.Choice(std::move(choices));
  }

  // At least one more digit of the fraction.
  ExpressionId Fraction(size_t at, bool tight_low, bool tight_high) {
    if (at == kMaxDigits) return grammar_.Nothing();
    const auto left = static_cast<int32_t>(kMaxDigits - at);
    if (!tight_low && !tight_high) return grammar_.Repeat(Digit(0, 9), 1, left);
    const int low = tight_low ? DigitAt(bounds_.low->fraction, at) : 0;
    const int high = tight_high ? DigitAt(bounds_.high->fraction, at) : 9;
    return OneDigit(low, high, tight_low, tight_high, [&](bool l, bool h) {
      std::vector<ExpressionId> choices;
      if (MayEnd(at + 1, l, h)) choices.push_back(grammar_.Empty());
      choices.push_back(Fraction(at + 1, l, h));
      return grammar_.Choice(std::move(choices));
    });
  }

  const NumberBounds bounds_;
  const bool integer_;
  Grammar& grammar_;
  size_t length_ = 1;  // digits of the whole part
};

Decimal Opposite(Decimal value) {
  value.negative = !value.negative;
  return value;
}

}  // namespace

absl::StatusOr<Decimal> ParseDecimal(std::string_view text) {
  Decimal decimal;
  std::string_view digits = text;
  if (digits.starts_with('-')) {
    decimal.negative = true;
    digits.remove_prefix(1);
  }
  const size_t point = digits.find('.');
  decimal.whole = digits.substr(0, point);
  if (point != std::string_view::npos) decimal.fraction = digits.substr(point + 1);
  const auto plain = [](std::string_view part) {
    return part.find_first_not_of("0123456789") == std::string_view::npos;
  };
  if (decimal.whole.empty() || !plain(decimal.whole) || !plain(decimal.fraction) ||
      decimal.whole.size() > kMaxDigits || decimal.fraction.size() > kMaxDigits) {
    return absl::InvalidArgumentError(
        fmt::format("the bound {} is no decimal of at most {} digits before and behind its point",
                    text, kMaxDigits));
  }
  decimal.whole.erase(0, std::min(decimal.whole.find_first_not_of('0'), decimal.whole.size() - 1));
  decimal.fraction.resize(decimal.fraction.find_last_not_of('0') + 1);
  if (decimal.is_zero()) decimal.negative = false;
  return decimal;
}

ExpressionId BoundedNumber(const NumberBounds& bounds, bool integer, Grammar* grammar) {
  std::vector<ExpressionId> signs;
  const bool high_is_negative = bounds.high && bounds.high->negative;
  if (!high_is_negative) {
    NumberBounds from_zero = bounds;
    if (!bounds.low || bounds.low->negative) {
      from_zero.low = Decimal{};
      from_zero.low_open = false;
    }
    signs.push_back(Magnitude(std::move(from_zero), integer, grammar).Make());
  }
  if (!bounds.low || bounds.low->negative) {
    NumberBounds below_zero;
    below_zero.low = high_is_negative ? Opposite(*bounds.high) : Decimal{};
    below_zero.low_open = high_is_negative ? bounds.high_open : true;
    if (bounds.low) below_zero.high = Opposite(*bounds.low);
    below_zero.high_open = bounds.low_open;
    signs.push_back(grammar->Sequence(
        {grammar->Bytes("-"), Magnitude(std::move(below_zero), integer, grammar).Make()}));
  }
  return grammar->Choice(std::move(signs));
}

}  // namespace baton::grammar
