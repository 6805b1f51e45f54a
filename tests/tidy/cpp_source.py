"""Just enough C++ for tidy.py: comments and literals blanked out, includes, and where functions
begin and end. It reads code in Google style, not any C++."""

import re
from typing import NamedTuple

_LITERALS = re.compile(
    r'//[^\n]*'                                     # comment to the line's end
    r'|/\*.*?\*/'                                   # comment
    r'|(?:u8|[uUL])?R"([^\s()\\]{0,16})\(.*?\)\1"'  # raw string
    r'|"(?:\\.|[^"\\\n])*"'                         # string
    r"|(?<![0-9a-fA-F])'(?:\\.|[^'\\\n])+'",        # character, but not the ' in 1'000
    re.DOTALL)
_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]+(["<])([^">]+)[">]', re.MULTILINE)
_PREPROCESSOR = re.compile(r'^[ \t]*#(?:[^\n\\]|\\.|\\\n)*', re.MULTILINE | re.DOTALL)
_SCOPE = re.compile(r'\b(namespace|class|struct|union|enum|extern)\b')


def _blank(text):
    return re.sub(r"[^\n]", " ", text)


def without_comments(text):
    """The text with comments as spaces; literals stay. Line numbers stay."""
    def replace(match):
        return _blank(match[0]) if match[0].startswith(("//", "/*")) else match[0]
    return _LITERALS.sub(replace, text)


def includes(text):
    """(line, '"' or '<', path) of every #include."""
    code = without_comments(text)
    for match in _INCLUDE.finditer(code):
        yield code.count("\n", 0, match.start()) + 1, match[1], match[2]


class Function(NamedTuple):
    head: str
    first_line: int
    lines: int


def _bare_code(text):
    """Only what has structure: comments, literals and preprocessor lines are spaces."""
    code = _LITERALS.sub(lambda match: _blank(match[0]), text)
    return _PREPROCESSOR.sub(lambda match: _blank(match[0]), code)


def _matching_brace(code, opening):
    depth = 0
    for position in range(opening, len(code)):
        if code[position] == "{":
            depth += 1
        elif code[position] == "}":
            depth -= 1
            if depth == 0:
                return position
    return len(code) - 1


def _is_scope(head):
    """A namespace, class or enum, not a function that returns or takes a `struct x`."""
    head = re.sub(r"^\s*template\s*<.*?>\s*(?=\w)", "", head, flags=re.DOTALL)
    head = re.sub(r"\b(alignas|__attribute__|final|requires)\b\s*(\(.*?\))?", " ", head)
    head = re.sub(r"\b(public|protected|private)\s*:(?!:)", " ", head)
    return bool(_SCOPE.match(head.strip()) and "(" not in head.split(":")[0])


def _is_function(head):
    head = head.strip()
    balanced = "(" in head and head.count("(") == head.count(")")
    return balanced and not head.endswith(("=", ",", "return"))


def functions(text):
    """Function definitions at namespace and class level, with constructor initializers and all."""
    code = _bare_code(text)
    position, head_start = 0, 0
    while position < len(code):
        character = code[position]
        if character in ";}":
            head_start = position + 1
        elif character == "{":
            head = code[head_start:position]
            if head.count("(") > head.count(")"):  # a default argument; the head goes on
                position = _matching_brace(code, position) + 1
                continue
            if not _is_scope(head):
                end = _matching_brace(code, position)
                # `: a_{1}, b_(2) {`: braces of an initializer list, the body is still to come.
                while _is_function(head) and (more := re.compile(r"\s*[,{]").match(code, end + 1)):
                    opening = code.find("{", more.start())
                    if opening < 0:
                        break
                    end = _matching_brace(code, opening)
                if _is_function(head):
                    yield _function(text, code, head_start, head, end)
                position = end
            head_start = position + 1
        position += 1


def _function(text, code, head_start, head, end):
    start = head_start + len(head) - len(head.lstrip())
    first_line = code.count("\n", 0, start) + 1
    last_line = code.count("\n", 0, end) + 1
    name = " ".join(text[start:head_start + len(head)].split())[:60]
    return Function(name, first_line, last_line - first_line + 1)
