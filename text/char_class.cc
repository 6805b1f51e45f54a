#include "text/char_class.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <map>
#include <memory>
#include <string>

#include "common/status_macros.h"

namespace baton::text {
namespace {

constexpr char32_t kCodePoints = 0x110000;

// Every code point but the surrogates, in order.
std::string AllCharacters() {
  std::string all;
  all.reserve(kCodePoints * 4);
  for (char32_t code = 0; code < kCodePoints; ++code) {
    if (code < 0xD800 || code > 0xDFFF) AppendUtf8(code, all);
  }
  return all;
}

// Marks in `classes` every character of `all` that `pattern` matches.
void Mark(const char* pattern, CharClass kind, const std::string& all,
          std::vector<CharClass>& classes) {
  int error = 0;
  PCRE2_SIZE error_offset = 0;
  const std::unique_ptr<pcre2_code, decltype(&pcre2_code_free)> code(
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern), PCRE2_ZERO_TERMINATED,
                    PCRE2_UTF | PCRE2_UCP, &error, &error_offset, nullptr),
      &pcre2_code_free);
  BATON_CHECK(code != nullptr, "the pattern is a constant");
  const std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> match(
      pcre2_match_data_create_from_pattern(code.get(), nullptr), &pcre2_match_data_free);
  const PCRE2_SIZE* const bounds = pcre2_get_ovector_pointer(match.get());
  for (PCRE2_SIZE start = 0; start < all.size();) {
    const int found = pcre2_match(code.get(), reinterpret_cast<PCRE2_SPTR>(all.data()), all.size(),
                                  start, PCRE2_NO_UTF_CHECK, match.get(), nullptr);
    if (found == PCRE2_ERROR_NOMATCH) return;
    BATON_CHECK(found > 0, "a plain class pattern cannot fail otherwise");
    for (PCRE2_SIZE at = bounds[0]; at < bounds[1];) {
      const Utf8Char c = DecodeUtf8(all, at);
      classes[c.code] = kind;
      at += c.bytes;
    }
    start = bounds[1];
  }
}

}  // namespace

CharClasses::CharClasses() {
  const std::string all = AllCharacters();
  std::vector<CharClass> classes(kCodePoints, CharClass::kOther);
  Mark("\\p{L}+", CharClass::kLetter, all, classes);
  Mark("\\p{N}+", CharClass::kNumber, all, classes);
  for (char32_t code = 0; code < kCodePoints; ++code) {
    if (IsUnicodeSpace(code)) classes[code] = CharClass::kSpace;
  }
  std::map<Page, uint16_t> known;
  for (size_t page = 0; page < kCodePoints >> kPageBits; ++page) {
    Page content;
    for (size_t i = 0; i < kPageSize; ++i) content[i] = classes[(page << kPageBits) + i];
    const auto [entry, is_new] = known.emplace(content, static_cast<uint16_t>(pages_.size()));
    if (is_new) pages_.push_back(content);
    page_of_.push_back(entry->second);
  }
  for (size_t code = 0; code < ascii_.size(); ++code) ascii_[code] = classes[code];
}

const CharClasses& CharClasses::Get() {
  static const CharClasses* const classes = new CharClasses();
  return *classes;
}

}  // namespace baton::text
