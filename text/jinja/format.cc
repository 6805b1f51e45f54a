// How values look as text: Python's str() and repr(), and JSON.

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "text/jinja/value.h"
#include "text/utf8.h"

namespace baton::text::jinja {
namespace {

std::string FloatText(double d) {
  if (std::isnan(d)) return "nan";
  if (std::isinf(d)) return d > 0 ? "inf" : "-inf";
  std::string text = fmt::format("{}", d);
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

// A quoted Python string literal; prefers single quotes.
void AppendQuoted(const Text& text, Text& out) {
  const std::string_view bytes = text.bytes();
  const bool use_double =
      bytes.find('\'') != std::string_view::npos && bytes.find('"') == std::string_view::npos;
  const char quote = use_double ? '"' : '\'';
  out.AppendTemplate(std::string_view(&quote, 1));
  for (size_t at = 0; at < bytes.size(); ++at) {
    const char c = bytes[at];
    if (c == quote || c == '\\') {
      out.AppendAs(std::string{'\\', c}, text, at);
    } else if (c == '\n') {
      out.AppendAs("\\n", text, at);
    } else if (c == '\r') {
      out.AppendAs("\\r", text, at);
    } else if (c == '\t') {
      out.AppendAs("\\t", text, at);
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) {
      out.AppendAs(fmt::format("\\x{:02x}", c), text, at);
    } else {
      out.Append(text, at, 1);
    }
  }
  out.AppendTemplate(std::string_view(&quote, 1));
}

void AppendRepr(const Value& value, Text& out) {
  if (const Text* text = value.text()) {
    AppendQuoted(*text, out);
  } else if (const List* list = value.list()) {
    out.AppendTemplate(list->is_tuple ? "(" : "[");
    for (size_t i = 0; i < list->items.size(); ++i) {
      if (i > 0) out.AppendTemplate(", ");
      AppendRepr(list->items[i], out);
    }
    if (list->is_tuple && list->items.size() == 1) out.AppendTemplate(",");
    out.AppendTemplate(list->is_tuple ? ")" : "]");
  } else if (const Dict* dict = value.dict()) {
    out.AppendTemplate("{");
    bool first = true;
    for (const auto& [key, item] : dict->entries) {
      if (!first) out.AppendTemplate(", ");
      first = false;
      AppendRepr(key, out);
      out.AppendTemplate(": ");
      AppendRepr(item, out);
    }
    out.AppendTemplate("}");
  } else if (value.IsUndefined()) {
    out.AppendTemplate("Undefined");
  } else {
    out.Append(ToText(value));
  }
}

void AppendJsonString(const Text& text, Text& out) {
  out.AppendTemplate("\"");
  const std::string_view bytes = text.bytes();
  for (size_t at = 0; at < bytes.size(); ++at) {
    switch (const char c = bytes[at]) {
      case '"':
        out.AppendAs("\\\"", text, at);
        break;
      case '\\':
        out.AppendAs("\\\\", text, at);
        break;
      case '\n':
        out.AppendAs("\\n", text, at);
        break;
      case '\r':
        out.AppendAs("\\r", text, at);
        break;
      case '\t':
        out.AppendAs("\\t", text, at);
        break;
      case '\b':
        out.AppendAs("\\b", text, at);
        break;
      case '\f':
        out.AppendAs("\\f", text, at);
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20) {
          out.AppendAs(fmt::format("\\u{:04x}", c), text, at);
        } else {
          out.Append(text, at, 1);
        }
    }
  }
  out.AppendTemplate("\"");
}

class JsonWriter {
 public:
  JsonWriter(int indent, bool sort_keys, Text& out)
      : indent_(indent), sort_keys_(sort_keys), out_(out) {}

  bool Write(const Value& value, int level) {
    if (const Text* text = value.text()) {
      AppendJsonString(*text, out_);
    } else if (const List* list = value.list()) {
      return WriteList(*list, level);
    } else if (const Dict* dict = value.dict()) {
      return WriteDict(*dict, level);
    } else if (value.IsNone()) {
      out_.AppendTemplate("null");
    } else if (value.Is<bool>()) {
      out_.AppendTemplate(value.Truthy() ? "true" : "false");
    } else if (value.IsNumber()) {
      out_.Append(ToText(value));
    } else {
      return false;
    }
    return true;
  }

 private:
  // Before each item, and (with `last`) before the closing bracket.
  void Break(bool first, bool last, int level) {
    if (!first && !last) out_.AppendTemplate(indent_ < 0 ? ", " : ",");
    if (indent_ < 0) return;
    out_.AppendTemplate("\n" + std::string(static_cast<size_t>(indent_) * level, ' '));
  }

  bool WriteList(const List& list, int level) {
    out_.AppendTemplate("[");
    for (size_t i = 0; i < list.items.size(); ++i) {
      Break(i == 0, false, level + 1);
      if (!Write(list.items[i], level + 1)) return false;
    }
    if (!list.items.empty()) Break(false, true, level);
    out_.AppendTemplate("]");
    return true;
  }

  bool WriteDict(const Dict& dict, int level) {
    auto entries = dict.entries;
    if (sort_keys_) {
      std::stable_sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) {
        return ToText(a.first).bytes() < ToText(b.first).bytes();
      });
    }
    out_.AppendTemplate("{");
    bool first = true;
    for (const auto& [key, item] : entries) {
      if (key.text() == nullptr) return false;
      Break(first, false, level + 1);
      first = false;
      AppendJsonString(*key.text(), out_);
      out_.AppendTemplate(": ");
      if (!Write(item, level + 1)) return false;
    }
    if (!first) Break(false, true, level);
    out_.AppendTemplate("}");
    return true;
  }

  const int indent_;
  const bool sort_keys_;
  Text& out_;
};

}  // namespace

Text ToText(const Value& value) {
  if (const Text* text = value.text()) return *text;
  if (value.IsUndefined()) return Text();
  if (value.IsNone()) return Text::Template("None");
  if (value.Is<bool>()) return Text::Template(value.Truthy() ? "True" : "False");
  if (value.IsInteger()) return Text::Template(std::to_string(value.AsInteger()));
  if (value.IsNumber()) return Text::Template(FloatText(value.AsDouble()));
  if (value.list() != nullptr || value.dict() != nullptr) return Repr(value);
  return Text::Template(fmt::format("<{}>", value.TypeName()));
}

Text Repr(const Value& value) {
  Text out;
  AppendRepr(value, out);
  return out;
}

bool ToJson(const Value& value, int indent, bool sort_keys, Text& out) {
  return JsonWriter(indent, sort_keys, out).Write(value, 0);
}

}  // namespace baton::text::jinja
