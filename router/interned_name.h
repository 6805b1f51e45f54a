#pragma once

// A string of which the fleet has few, compared as a number: placement compares those of thousands
// of workers.

#include <string>
#include <string_view>

namespace baton::router {

// Equal for equal text. Every text that was ever named is kept, so they must be few.
class InternedName {
 public:
  InternedName() : InternedName("") {}
  InternedName(std::string_view text);  // NOLINT: a name is its text
  InternedName(const std::string& text) : InternedName(std::string_view(text)) {}  // NOLINT
  InternedName(const char* text) : InternedName(std::string_view(text)) {}         // NOLINT

  const std::string& text() const { return *text_; }
  bool operator==(const InternedName&) const = default;

 private:
  const std::string* text_;
};

}  // namespace baton::router
