#pragma once

// JSON appended to a string. Streams write one small object a token, so nothing here builds a tree
// or allocates beyond the output itself.

#include <cstdint>
#include <string>
#include <string_view>

namespace baton::router {

// `text` as a JSON string, with its quotes. Bytes that are not UTF-8 become U+FFFD (one for each
// maximal broken part), so the output is always valid JSON.
void AppendJsonString(std::string_view text, std::string* out);

// The same without the quotes.
void AppendJsonEscaped(std::string_view text, std::string* out);

// The shortest decimal that reads back as `value`. JSON has no infinities: they and NaN are written
// as -9999, 9999 and null.
void AppendJsonNumber(double value, std::string* out);
void AppendJsonNumber(float value, std::string* out);
void AppendJsonInt(int64_t value, std::string* out);

// Length in bytes of the well-formed UTF-8 character that `text` starts with (RFC 3629: no
// overlong forms, no surrogates); 0 when it starts with none.
size_t Utf8CharBytes(std::string_view text);
bool IsUtf8(std::string_view text);

}  // namespace baton::router
