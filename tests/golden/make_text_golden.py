#!/usr/bin/env python3
"""Writes the golden data of tests/text with independent implementations: Hugging Face `tokenizers`
for token ids, `jinja2` (set up as apply_chat_template does) for chat templates.

usage: make_text_golden.py [MODEL.gguf]      default: models/SmolLM2-135M-Instruct.Q4_1.gguf
needs: pip install tokenizers jinja2 gguf

Lines hold fields between tabs; bytes outside printable ASCII, and the backslash, are \\xNN.
"""
import datetime
import json
import os
import pathlib
import sys
import time

import gguf
import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers,
                        trainers)

HERE = pathlib.Path(__file__).resolve().parent / "text"
MODEL = sys.argv[1] if len(sys.argv) > 1 else "models/SmolLM2-135M-Instruct.Q4_1.gguf"
NOW = 1750000000  # what strftime_now prints, in UTC

TEXTS = [
    "", " ", "  ", "   ", "\n", "\n\n", "\n\n\n", "\t", "\t\t", "\r\n", "\r\n\r\n", " \n", "\n ",
    " \n \n ", "  \n  x", "a", "A", " a", "a ", "  a  ", "\ta\tb", "a\nb", "a\r\nb", "a \n b",
    "Hello, world!", "Hello World", " Hello World !", "The quick brown fox jumps over the lazy dog.",
    "I'm you're he's she'll they've we'd don't can't 'tis", "I'M YOU'RE HE'S SHE'LL THEY'VE WE'D DON'T",
    "I'm I'M i'M 'S 's ''s '''s s' 'sx 'lLx 'rE 'D", "it\u2019s not the same", "'\u017f '\u017fx x'\u017f",
    "1", "12", "123", "1234", "12345", "123456", "1234567890", " 1", " 12 34", "1,234.56", "3.14159",
    "2024-01-31T12:00:00Z", "v1.2.3-rc4", "a1b2c3", "x86_64", "0xDEADBEEF", "1\u00bd\u00b2\u2163\u0663",
    "\u0661\u0662\u0663\u0664", "\u0967\u0968\u0969", "\uff11\uff12\uff13", " \u0661 1 \u00bd", "  5", "   42 apples",
    "foo.bar(baz) == [1, 2, 3];", "if (x > 0) {\n    return -x;\n}\n", "\tdef f(self):\n\t\treturn None\n",
    "for i in range(10):\n        print(i)\n\n\n    # end", "<html><body>&nbsp;</body></html>",
    "!!!", "...", "?!?!", "-----", "=====\n", "*** bold ***", "#!/bin/sh\n", "$100 \u20ac200 \u00a3300 \u00a5400",
    "user@example.com https://example.com/a/b?c=d&e=f#g", "C:\\Users\\x", "\\n \\t \\\\", "a/b//c///d",
    "caf\u00e9 na\u00efve \u00fcber stra\u00dfe \u00c5ngstr\u00f6m", "cafe\u0301 nai\u0308ve", "\u0130stanbul \u0131", "\u01c5 \u01c4",
    "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440! \u041a\u0430\u043a \u0434\u0435\u043b\u0430?", "\u0393\u03b5\u03b9\u03ac \u03c3\u03bf\u03c5 \u039a\u03cc\u03c3\u03bc\u03b5", "\u0395\u039b\u039b\u0397\u039d\u0399\u039a\u0391",
    "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645\u060c \u0643\u064a\u0641 \u062d\u0627\u0644\u0643\u061f", "\u0627\u0644\u0633\u0651\u064e\u0644\u064e\u0627\u0645\u064f \u0639\u064e\u0644\u064e\u064a\u0652\u0643\u064f\u0645\u0652", "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd", "\u067e\u06cc\u0634\u200c\u0631\u0641\u062a",
    "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35\u0e0a\u0e32\u0e27\u0e42\u0e25\u0e01", "\u0e20\u0e32\u0e29\u0e32\u0e44\u0e17\u0e22 \u0e51\u0e52\u0e53", "\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e", "\u0bb5\u0ba3\u0b95\u0bcd\u0b95\u0bae\u0bcd", "\u10d2\u10d0\u10db\u10d0\u10e0\u10ef\u10dd\u10d1\u10d0",
    "\u4f60\u597d\uff0c\u4e16\u754c\uff01", "\u3053\u3093\u306b\u3061\u306f\u4e16\u754c", "\u30ab\u30bf\u30ab\u30ca\u3068\u3072\u3089\u304c\u306a", "\uc548\ub155\ud558\uc138\uc694 \uc138\uacc4", "\u7e41\u9ad4\u5b57\u8207\u7b80\u4f53\u5b57", "\u4e2d\u6587English\u6df7\u5408123\u6570\u5b57",
    "\U00020000\U0002A6DF\U00030000", "\U0001F600", "\U0001F600\U0001F601\U0001F602", " \U0001F600 \U0001F680", "\U0001F468\u200d\U0001F469\u200d\U0001F467\u200d\U0001F466", "\U0001F469\U0001F3FD\u200d\U0001F4BB",
    "\U0001F1E9\U0001F1EA\U0001F1EB\U0001F1F7", "\u2764\ufe0f\u200d\U0001F525", "\U0001F3F4\U000E0067\U000E0062\U000E0065\U000E006E\U000E0067\U000E007F", "1\ufe0f\u20e3 #\ufe0f\u20e3", "\u2603\u2604\u2605",
    "a\u180eb \u180e", "\u00a0x", "x\u00a0y", "\u3000\u5168\u89d2\u3000", "\u2003em\u2009thin\u200bzero", "\u2028line\u2029para", "\u0085nel", "\x0b\x0c", "\x1c\x1d\x1e\x1f",
    "\x00", "a\x00b", "\x01\x02\x7f", "\ufeffBOM", "\u200e\u200f\u202a", "\ufffd\ufffd", "\ue000\uf8ff", "\ufdd0",
    "Z\u0361\u034a\u0351a\u0321\u0334l\u0337g\u0338o\u0335", "e\u0301" * 5, "\u0327\u0301x",
    "<|im_start|>user\nHi<|im_end|>\n", "<|im_end|>", "<|im_end|><|im_end|>", " <|im_end|> ", "<|im_end", "<|im_end|", "|im_end|>",
    "<<|im_end|>>", "<|im_<|im_end|>end|>", "x<|endoftext|>y", "<|im_start|> <|im_start|>", "<repo_name>a/b<file_sep>", "< |im_end|>",
    "<s>[INST] Hi [/INST]</s>", "<unk>", "<0x0A>", "<0xFF>", "\u2581", "\u2581a \u2581\u2581b", "<tool>", "a<tool>b <tool> c",
    "a" * 100, "ab" * 200, "supercalifragilisticexpialidocious" * 8, "\u4e16\u754c" * 100, " " * 100, "\n" * 50, "x " * 60,
    "=" * 77, "_" * 130, "\u00e9" * 90, "\U0001F600" * 40, "1" * 64, "'" * 33, ("word" * 30 + " ") * 3,
]

FRAGMENTS = [
    "a", "e", "t", "the", " the", "ing", " of", "Hello", " World", "don't", "WE'LL", "'s", "'", "''", " ", "  ", "    ",
    "\n", "\n\n", "\r\n", "\t", " \n", "1", "23", "456", " 7", ".", ",", "...", "!?", " -", "--", "(", ")", "[]", "{}",
    "\u00e9", "\u00df", "\u0301", "\u0416", "\u0436\u0438", " \u043c\u0438\u0440", "\u03a9", "\u4e16", "\u754c\u4eba", "\u3042\u3044", "\ud55c\uad6d", "\u0e01\u0e33", "\u0645\u0631", "\u05e9",
    "\u0928\u0940", "\u00bd", "\u0663", "\u2163", "\U0001F600", "\u200d", "\U0001F468", "\ufe0f", "\u00a0", "\u3000", "\u2028", "\x00", "\x7f",
    "\u017f", "\u212a", "<|", "|>", "im_end", "<", ">", "_", "=", "==", "/", "//", "\\", "foo_bar", "HTTPServer", "x86",
    "\U00020000", "\ue000", "\ufffd", "\u2581", "\u2019s", "$", "%", "#", "@", "&", "*", "+", "~", "`", "^", "\"",
]

SENTENCES = """The quick brown fox jumps over the lazy dog. The dog sleeps, and the fox runs on.
A language model reads tokens and writes tokens; between them lie words, and between words lie spaces.
There is nothing that the reader of this sentence should remember, other than that it trains a vocabulary.
She said that they would come again when the weather was better, but nobody has seen them since then.
Numbers like 1, 22, 333 and 4,444.55 are written with digits; dates like 2024-01-31 are as well.
def main(argument):\n    return argument + 1\n\nfor item in items:\n    print(item, end=' ')\n
Der schnelle braune Fuchs springt \u00fcber den faulen Hund. Das Wetter ist sch\u00f6n, die Stra\u00dfe ist lang.
Le renard brun saute par-dessus le chien paresseux. \u00c7a va tr\u00e8s bien, merci beaucoup \u00e0 tous.
\u0411\u044b\u0441\u0442\u0440\u0430\u044f \u043b\u0438\u0441\u0430 \u043f\u0440\u044b\u0433\u0430\u0435\u0442 \u0447\u0435\u0440\u0435\u0437 \u0441\u043e\u0431\u0430\u043a\u0443. \u042d\u0442\u043e \u0431\u044b\u043b\u043e \u0434\u0430\u0432\u043d\u043e \u0438 \u043d\u0435\u043f\u0440\u0430\u0432\u0434\u0430.
What is it? It's what it is! Don't worry: we'll see; they've seen, and I'm sure he'd say so.
Other words for other things: under, over, through, without, within, international, understanding.
""" * 2

CONVERSATIONS = [
    [("user", "Hello there")],
    [("system", "You are terse.  \n"), ("user", "  Hi <|im_end|>\n "), ("assistant", "Yes. "), ("user", "Why?")],
    [("user", "a"), ("assistant", "<think>\nhm\n</think>\n\nb"), ("user", "c"), ("assistant", "<think>x</think>d")],
    [("user", "one"), ("user", "two")],
    [("system", "s"), ("assistant", "x")],
    [("user", "tool please"), ("assistant", "ok"), ("tool", "{\"a\": 1}"), ("user", "\u65e5\u672c\u8a9e \U0001F600 'q' \"dq\" \\ back")],
    [],
    [("system", "only system \u3000")],
    [("user", ""), ("assistant", ""), ("user", " \u00a0 ")],
    [("user", "q1"), ("assistant", "a1"), ("user", "q2"), ("assistant", "a2"), ("user", "q3"), ("assistant", "a3")],
]

# Rendered with the second conversation as `messages`, and add_generation_prompt true.
SNIPPETS = r"""
{{ 1 + 2 * 3 }} {{ (1 + 2) * 3 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 ** 10 }} {{ 2 ** -1 }} {{ -2 ** 2 }}
{{ 7.5 // 2 }} {{ 7.5 % 2 }} {{ -7.5 % 2 }} {{ 1e3 }} {{ 1.5e-7 }} {{ 1e16 }} {{ 123456789012345.0 }} {{ 1_000 }} {{ 0.1 + 0.2 }}
{{ 'a' + "b" }} {{ 'a' 'b' }} {{ 'a' ~ 1 ~ none ~ true ~ 1.0 }} {{ 'ab' * 3 }} {{ [1] + [2] }} {{ [0] * 3 }} {{ (1,) + (2,) }}
{{ 'tab\there' }} {{ 'nl\nhere' }} {{ "q\"q" }} {{ 'q\'q' }} {{ 'back\\slash' }} {{ '\x41\u00e9\U0001F600\101' }} {{ '\q' }}
{{ 'line\
continued' }}
{{ true }} {{ True }} {{ false }} {{ none }} {{ None }} {{ undefined_thing }}|
{{ [1, 'a', "it's", none, true, 1.5, [], {}, ()] }} {{ (1,) }} {{ {'a': 1, 'b': [2]} }} {{ ['a\nb', 'q"q\'q'] }}
{{ 1 < 2 }} {{ 1 < 2 < 3 }} {{ 3 > 2 > 2 }} {{ 1 == 1.0 }} {{ true == 1 }} {{ 'a' < 'b' }} {{ [1, 2] < [1, 3] }} {{ [1] == (1,) }} {{ 1 != 2 }}
{{ 'a' in 'abc' }} {{ 'x' not in 'abc' }} {{ 1 in [1, 2] }} {{ 'k' in {'k': 1} }} {{ 1 in () }} {{ '' in 'abc' }} {{ 'a' in undefined_thing }}
{{ not true }} {{ not not 1 }} {{ 1 and 2 }} {{ 0 or 'x' }} {{ '' or none }} {{ 1 and not 0 or 2 }} {{ not 1 == 2 }}
{{ 'yes' if true else 'no' }} {{ 'yes' if false }}| {{ 1 if 0 else 2 if 0 else 3 }} {{ ('a' if true else 'b') ~ 'c' }}
{{ messages[0].role }} {{ messages[0]['role'] }} {{ messages[-1].content }} {{ messages[99] }}| {{ messages[0].nothing }}| {{ messages|length }}
{{ messages[1:]|length }} {{ messages[::-1][0].role }} {{ messages[:2][1]['role'] }} {{ 'abcdef'[1:4] }} {{ 'abcdef'[::-1] }} {{ 'abcdef'[-2:] }} {{ 'abcdef'[:-2] }} {{ 'abcdef'[::2] }} {{ 'abcdef'[5:1:-2] }} {{ 'abc'[10:] }}| {{ 'h\u00e9llo'[1] }} {{ 'h\u00e9llo'[1:3] }} {{ 'abc'[-1] }}
{{ [1,2,3][1:] }} {{ [1,2,3][-1] }} {{ (1,2,3)[:2] }} {{ [1,2,3][none:2] }} {{ {'a': {'b': 3}}.a.b }} {{ {'a': 1}['b'] }}| {{ {1: 'x'}[1] }}
{{ ' a b '|trim }}| {{ 'xxaxx'|trim('x') }} {{ 'abc'|upper }} {{ 'ABC'|lower }} {{ 'hello world'|title }} {{ 'hELLO'|capitalize }} {{ 'abc'|length }} {{ 'abc'|first }} {{ 'abc'|last }} {{ 'abc'|reverse }} {{ 'abc'|list }} {{ 'a-b'|replace('-', '+') }} {{ 'aaa'|replace('a', 'b', 2) }}
{{ [3,1,2]|sort }} {{ [3,1,2]|sort(reverse=true) }} {{ ['b','A','c']|sort }} {{ ['b','A']|sort(case_sensitive=true) }} {{ [1,2,3]|sum }} {{ [1,2]|join }} {{ [1,2]|join(', ') }} {{ [1,none]|join('-') }} {{ [1,1,2]|unique|list }} {{ [1,2]|min }} {{ [1,2]|max }} {{ [1,2]|reverse|list }} {{ []|first }}| {{ [1,2]|last }}
{{ messages|map(attribute='role')|list }} {{ messages|map(attribute='role')|join(',') }} {{ ['a','b']|map('upper')|list }} {{ messages|selectattr('role', 'equalto', 'user')|map(attribute='content')|list }} {{ messages|rejectattr('role', 'in', ['user', 'system'])|list|length }} {{ [1,2,3,4]|select('even')|list }} {{ [0,1]|select|list }} {{ [0,1]|reject|list }} {{ [1,2,3]|reject('odd')|list }} {{ messages|selectattr('content')|list|length }}
{{ 1|string + 'x' }} {{ '12'|int + 1 }} {{ 'x'|int }} {{ 'x'|int(7) }} {{ '1.5'|float }} {{ '3.7'|int }} {{ 3.7|int }} {{ -3|abs }} {{ 2.567|round(2) }} {{ 2.5|round }} {{ 3.2|round(method='ceil') }} {{ true|int }}
{{ nothing|default('d') }} {{ ''|default('d') }}| {{ ''|default('d', true) }} {{ none|default('d') }} {{ 0|d(5, boolean=true) }} {{ nothing|length }} {{ nothing|trim }}| {{ nothing|list }} {{ nothing|upper }}|
{{ {'b': 1, 'a': [1, none, true, 1.5, 'x"\n\u00e9']}|tojson }} {{ [1, {'a': {}}, []]|tojson(indent=2) }} {{ 'x'|tojson }} {{ none|tojson }} {{ {'b': 1, 'a': 2}|tojson(sort_keys=true) }} {{ messages[1]|tojson }}
{{ {'b': 1, 'a': 2}|dictsort }} {{ {'b': 1}|items|list }} {{ {'b': 1, 'c': 2}|list }} {{ {'b': 1}.items()|list }} {{ {'b': 1}.keys()|list }} {{ {'b': 1}.values()|list }} {{ {'b': 1}.get('b') }} {{ {'b': 1}.get('x') }} {{ {'b': 1}.get('x', 9) }} {{ dict(a=1, b=2) }}
{{ 'a\nb\n\nc'|indent(2) }} {{ 'a\nb'|indent(2, true) }} {{ 'a\n\nb'|indent(width=1, blank=true) }}
{{ '  x y '.strip() }}| {{ 'xxaxx'.strip('x') }} {{ 'xa'.lstrip('x') }} {{ 'ax\n'.rstrip('\n') }} {{ 'a,b,c'.split(',') }} {{ 'a b  c'.split() }} {{ 'a,b,c'.split(',', 1) }} {{ 'a,b,c'.rsplit(',', 1) }} {{ 'a b c'.rsplit(none, 1) }} {{ 'a\nb\r\nc'.splitlines() }} {{ ''.split() }} {{ ''.split(',') }} {{ 'a</think>b</think>c'.split('</think>')[-1] }}
{{ 'abc'.startswith('ab') }} {{ 'abc'.endswith(('x', 'bc')) }} {{ 'abcabc'.find('c') }} {{ 'abcabc'.rfind('c') }} {{ 'abc'.find('x') }} {{ 'aXbX'.replace('X', '--') }} {{ 'aaa'.replace('a', 'b', 1) }} {{ 'abc'.replace('', '.') }} {{ 'aXbX'.count('X') }} {{ 'Ab'.upper() }} {{ 'Ab'.lower() }} {{ 'ab cd'.title() }} {{ 'aB'.capitalize() }} {{ '-'.join(['a', 'b']) }} {{ '123'.isdigit() }} {{ 'a1'.isalnum() }} {{ 'a1'.isalpha() }} {{ 'abc'.index('c') }}
{{ 1 is defined }} {{ x is defined }} {{ x is undefined }} {{ none is none }} {{ 1 is not none }} {{ 'a' is string }} {{ 1 is string }} {{ 1 is number }} {{ 1.5 is float }} {{ 1 is integer }} {{ true is integer }} {{ true is boolean }} {{ {} is mapping }} {{ [] is mapping }} {{ [] is iterable }} {{ 'a' is iterable }} {{ 1 is iterable }} {{ [] is sequence }} {{ true is true }} {{ 1 is true }} {{ false is false }} {{ 4 is even }} {{ 4 is odd }} {{ 6 is divisibleby 3 }} {{ 6 is divisibleby(4) }} {{ 1 is eq 1 }} {{ 2 is gt 1 }} {{ 1 is in [1] }} {{ 'a' is lower }} {{ 'A' is upper }} {{ 'aB' is upper }} {{ range is callable }} {{ x is defined and x }} {{ not x is defined }} {{ 'a' is equalto 'a' }} {{ none is sameas none }}
{% for i in [1,2,3] %}{{ i }}{% if not loop.last %}, {% endif %}{% endfor %}
{% for i in [1,2,3] %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.depth }}{{ loop.cycle('a', 'b') }};{% endfor %}
{% for i in [] %}x{% else %}empty{% endfor %} {% for i in [1] %}x{% else %}empty{% endfor %} {% for i in nothing %}x{% else %}none{% endfor %}
{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}={{ v }};{% endfor %} {% for k in {'a': 1} %}{{ k }}{% endfor %} {% for c in 'h\u00e9' %}[{{ c }}]{% endfor %} {% for (a, b) in [(1, 2)] %}{{ a }}{{ b }}{% endfor %}
{% for i in range(5) if i is odd %}{{ i }}/{{ loop.length }} {% endfor %} {% for i in range(10) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 5 %}{% break %}{% endif %}{{ i }}{% endfor %} {{ range(3)|list }} {{ range(1, 10, 4)|list }} {{ range(3, 0, -1)|list }}
{% for i in [1,2] %}{% for j in [1,2] %}{{ loop.index }}{{ loop.depth }}{% endfor %}{{ loop.index }} {% endfor %} {% for i in [1,2] %}{% set outer = loop %}{% for j in [1] %}{{ outer.index }}{% endfor %}{% endfor %}
{% set x = 1 %}{% for i in [1] %}{% set x = 2 %}{{ x }}{% endfor %}{{ x }} {% if true %}{% set x = 3 %}{% endif %}{{ x }} {% set ns = namespace(n=0, s='') %}{% for i in [1,2,3] %}{% set ns.n = ns.n + i %}{% set ns.s = ns.s ~ i %}{% endfor %}{{ ns.n }}{{ ns.s }} {% set a, b = 1, 2 %}{{ a }}{{ b }} {% set t = 1, 2 %}{{ t }}
{% set block %}in {{ 1 + 1 }} block{% endset %}[{{ block }}] {% with a=1, b=2 %}{{ a + b }}{% endwith %}{{ a is defined }} {% generation %}g{% set z = 1 %}{% endgeneration %}{{ z is defined }}
{% macro m(a, b='B', c=none) %}<{{ a }}{{ b }}{{ c }}>{% endmacro %}{{ m(1) }}{{ m(1, 2) }}{{ m(a=5, c='C') }}{{ m() }} {% macro fact(n) %}{% if n <= 1 %}1{% else %}{{ n * fact(n - 1)|int }}{% endif %}{% endmacro %}{{ fact(5) }} {% set y = 7 %}{% macro see() %}{{ y }}{% endmacro %}{% for y in [1] %}{{ see() }}{% endfor %} {{ m(*[1, 2]) }}
{% if 0 %}a{% elif '' %}b{% elif [] %}c{% elif {} %}d{% elif none %}e{% elif 0.0 %}f{% else %}g{% endif %} {% if 'x' %}y{% endif %}
a {#- comment -#} b {# c #} d {% raw %}{{ not }} {% if %}{% endraw %} e {{- ' f ' -}} g {%- if true -%} h {%- endif -%} i {%+ if true %} j {% endif +%} k
  {% if true %}
  x
  {% endif %}
y
{%- for i in [1, 2] %}
    {{- i }}
    {%- if loop.last %} last
    {% endif %}
{%- endfor %}
    {# comment line #}
z
    {{ 'indented' }}
  {%+ if true %}
kept{% endif %}
{{ '{{' }} {{ '%}' }} { { } } {{ {'a': {'b': 1}} }} {{ "{%" }}
{{ messages[1].content|trim }}| {{ messages[1].content|tojson }} {{ messages[0]|length }} {{ messages[0] }} {{ bos_token }}{{ eos_token }} {{ add_generation_prompt }} {{ tools }} {{ documents }} {{ strftime_now('%Y-%m-%d %d %b %Y %H') }}
{{ 1/0 }}
{{ undefined_thing.attr }}
{{ undefined_thing + 'x' }}
{{ undefined_thing['x'] }}
{{ undefined_thing() }}
{{ none + 'x' }}
{{ 'x' + 1 }}
{{ 1 < 'a' }}
{{ 1 in 5 }}
{{ none|length }}
{% for i in none %}{% endfor %}
{{ raise_exception('no') }}
{{ messages.append(1) }}
{{ 'x' | nosuchfilter }}
{{ 'x' is nosuchtest }}
{{ [1, 'a']|sort }}
{{ 'abc'.nosuch() }}
{{ 'abc'.index('x') }}
{{ 'a'.split('') }}
{{ [1][::0] }}
{{ range() }}
{% set x.y = 1 %}
{% set a, b = [1] %}{{ a }}
{{ undefined_thing|tojson }}
{{ (1 }}
{{ 1 + }}
{{ 'unterminated }}
{% if true %}
{% endif %}
{% for x %}{% endfor %}
{% unknown %}
{{ }}
{% if true %}{% else %}{% elif %}{% endif %}
{% endfor %}
{{ a b }}
{# unterminated
{{ [1, 2 }}
{% break %}
{% macro %}{% endmacro %}
""".strip("\n")
# Lines that belong together in one snippet, by first line.
MULTILINE = {"{{ 'line\\": 2, "  {% if true %}": 14}


class Generation(Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return nodes.CallBlock(self.call_method("_run"), [], [], body).set_lineno(line)

    def _run(self, caller):
        return caller()


def environment():
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                        extensions=[Generation, loopcontrols])

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators,
                          sort_keys=sort_keys)

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda f: datetime.datetime.fromtimestamp(NOW).strftime(f)
    return env


def escape(data):
    raw = data if isinstance(data, bytes) else data.encode()
    return "".join(chr(b) if 0x20 <= b < 0x7F and b != 0x5C else "\\x%02x" % b for b in raw)


def write(name, lines):
    (HERE / name).write_text("".join(line + "\n" for line in lines))
    print(name, len(lines), "lines")


def render(env, source, conversation, add_generation_prompt):
    """The text, or None where jinja2 refuses."""
    messages = [{"role": role, "content": content} for role, content in conversation]
    try:
        return env.from_string(source).render(
            messages=messages, add_generation_prompt=add_generation_prompt, tools=None,
            documents=None, bos_token="<BOS>", eos_token="<EOS>")
    except Exception:
        return None


def chat_golden():
    env = environment()
    lines = []
    for path in sorted((HERE / "templates").glob("*.jinja")):
        for conversation in CONVERSATIONS:
            for generate in (False, True):
                text = render(env, path.read_text(), conversation, generate)
                fields = [path.name, str(int(generate)), "!" if text is None else "=" + escape(text)]
                fields += [escape(part) for message in conversation for part in message]
                lines.append("\t".join(fields))
    write("chat.txt", lines)


def snippet_golden():
    env = environment()
    lines, pending = [], SNIPPETS.split("\n")
    while pending:
        count = MULTILINE.get(pending[0], 1)
        source, pending = "\n".join(pending[:count]), pending[count:]
        text = render(env, source, CONVERSATIONS[1], True)
        lines.append(escape(source) + "\t" + ("!" if text is None else "=" + escape(text)))
    write("snippets.txt", lines)


def byte_level(tokens, merges, pre, specials):
    vocab = {token: i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab, merges, ignore_merges=pre == "llama-bpe"))
    level = pre_tokenizers.ByteLevel
    if pre == "smollm":
        parts = [pre_tokenizers.Digits(individual_digits=True), level(add_prefix_space=False)]
    elif pre == "gpt-2":
        parts = [level(add_prefix_space=False)]
    else:
        digits = r"\p{N}{1,3}" if pre == "llama-bpe" else r"\p{N}"
        pattern = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|" + digits +
                   r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
        parts = [pre_tokenizers.Split(Regex(pattern), "isolated", False),
                 level(add_prefix_space=False, use_regex=False)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(parts)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in specials])
    return tokenizer


def ids_of(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False).ids


def token_lines(plain, special):
    lines = []
    for text in TEXTS:
        for kind, tokenizer in (("plain", plain), ("special", special)):
            ids = ids_of(tokenizer, text)
            decoded = special.decode(ids, skip_special_tokens=True)
            lines.append("\t".join([kind, escape(text), " ".join(map(str, ids)), escape(decoded)]))
    return lines


def random_text(seed, count):
    """`count` fragments picked by splitmix64."""
    mask, parts = (1 << 64) - 1, []
    for _ in range(count):
        seed = (seed + 0x9E3779B97F4A7C15) & mask
        z = seed
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        parts.append(FRAGMENTS[(z ^ (z >> 31)) % len(FRAGMENTS)])
    return "".join(parts)


def fnv1a(ids):
    value = 0xCBF29CE484222325
    for i in ids:
        for byte in i.to_bytes(4, "little"):
            value = ((value ^ byte) * 0x100000001B3) & ((1 << 64) - 1)
    return value


def random_line(name, tokenizer, seed, count):
    ids = ids_of(tokenizer, random_text(seed, count))
    return f"{name}\t{seed}\t{count}\t{len(ids)}\t{fnv1a(ids):016x}"


def byte_level_golden():
    fields = gguf.GGUFReader(MODEL).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    types = fields["tokenizer.ggml.token_type"].contents()
    merges = [tuple(m.split(" ")) for m in fields["tokenizer.ggml.merges"].contents()]
    specials = [token for token, kind in zip(tokens, types) if kind == 3]
    # The demo vocabulary has no token of two digits, so it cannot tell one digit from up to three.
    digits = "0123456789"
    extra = [(a, b) for a in digits for b in digits] + [(a + b, c) for a in "12" for b in digits
                                                        for c in digits]
    tokens += [a + b for a, b in extra]
    merges += extra
    lines = []
    for pre in ("smollm", "llama-bpe", "qwen2", "gpt-2"):
        plain = byte_level(tokens, merges, pre, [])
        write(f"tokens_{pre}.txt", token_lines(plain, byte_level(tokens, merges, pre, specials)))
        lines += [random_line(pre, plain, seed, 20000) for seed in range(1, 9)]
    return lines


def sentence_piece_vocab():
    """(text, score, GGUF token type) of a small Llama-style vocabulary."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    trained.train_from_iterator(SENTENCES.split("\n"), trainers.BpeTrainer(
        vocab_size=600, show_progress=False))
    pieces = sorted(trained.get_vocab().items(), key=lambda item: item[1])
    multi = [piece for piece, _ in pieces if len(piece) > 1] + ["\u2581\u2581", "\u2581\u2581\u2581\u2581"]
    single = [piece for piece, _ in pieces if len(piece) == 1]
    vocab = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3)]
    vocab += [("<0x%02X>" % byte, 0.0, 6) for byte in range(256)]
    vocab += [(piece, -float(i), 1) for i, piece in enumerate(multi + single)]
    return vocab + [("<tool>", 0.0, 4)]


def sentence_piece(vocab, specials):
    ids = {piece: i for i, (piece, _, _) in enumerate(vocab)}
    merges = []
    for piece, score, kind in vocab:
        for cut in range(1, len(piece) if kind == 1 else 0):
            if piece[:cut] in ids and piece[cut:] in ids:
                merges.append((-score, piece[:cut], piece[cut:]))
    merges.sort(key=lambda merge: merge[0])
    tokenizer = Tokenizer(models.BPE(ids, [merge[1:] for merge in merges], unk_token="<unk>",
                                     fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(),
         decoders.Strip(" ", 1, 0)])
    tokenizer.add_tokens([AddedToken("<tool>", normalized=False)])
    tokenizer.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in specials])
    return tokenizer


def sentence_piece_golden():
    vocab = sentence_piece_vocab()
    write("sentence_piece_vocab.txt", [f"{escape(p)}\t{score}\t{kind}" for p, score, kind in vocab])
    plain = sentence_piece(vocab, [])
    write("tokens_sentence_piece.txt",
          token_lines(plain, sentence_piece(vocab, ["<unk>", "<s>", "</s>"])))
    return [random_line("sentence_piece", plain, seed, 2000) for seed in range(1, 9)]


def main():
    os.environ["TZ"] = "UTC"
    time.tzset()
    HERE.mkdir(exist_ok=True)
    chat_golden()
    snippet_golden()
    lines = ["fragments\t" + "\t".join(escape(f) for f in FRAGMENTS)]
    write("random.txt", lines + byte_level_golden() + sentence_piece_golden())


if __name__ == "__main__":
    main()
