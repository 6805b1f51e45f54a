#pragma once

// JSON as a grammar: the values that a schema is made of.
//
// Between the parts of an object or array there may be nothing, one space, or a line's end and up
// to 32 spaces, so that an answer can be indented, but not go on with white space for ever. Numbers
// have at most 16 digits before and after the point.

#include <string_view>
#include <vector>

#include <boost/json/fwd.hpp>

#include "grammar/expression.h"

namespace baton::grammar {

// Makes each kind of value once; what it returns may be used any number of times.
class JsonValues {
 public:
  explicit JsonValues(Grammar* grammar);

  Grammar& grammar() const { return grammar_; }

  ExpressionId Space() const { return space_; }
  ExpressionId Comma() const { return comma_; }          // and the space after it
  ExpressionId Character() const { return character_; }  // of a string, escaped or not
  // One of the characters as it stands in a string: escaped where it must be, and only there.
  ExpressionId Encoded(const CharacterSet& set) const;
  ExpressionId Quoted(ExpressionId characters) const;

  ExpressionId String() const { return string_; }
  ExpressionId Integer() const { return integer_; }
  ExpressionId Number() const { return number_; }
  ExpressionId Value() const { return value_; }
  ExpressionId AnyObject() const { return object_; }
  ExpressionId AnyArray() const { return array_; }

  // '"name":' and the space after it, then the value.
  ExpressionId Member(std::string_view name, ExpressionId value) const;
  // In brackets; `content` is not empty, `may_be_empty` allows nothing instead.
  ExpressionId Bracketed(char open, ExpressionId content, bool may_be_empty, char close) const;
  // `least` to `most` times, with commas between.
  ExpressionId Listed(ExpressionId part, int32_t least, int32_t most) const;
  // A member's name: any string without escapes that is none of these.
  ExpressionId OtherName(std::vector<std::string> names) const;
  // Exactly this value.
  ExpressionId Literal(const boost::json::value& value) const;

 private:
  ExpressionId MakeSpace() const;
  ExpressionId MakeCharacter() const;
  ExpressionId OtherEnding(std::span<const std::string> sorted, size_t begin) const;

  Grammar& grammar_;
  ExpressionId space_, comma_, character_, string_, integer_, number_, value_, object_, array_;
};

}  // namespace baton::grammar
