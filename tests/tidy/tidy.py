#!/usr/bin/env python3
"""Checks the house rules that a compiler does not: who may include whom, how long a file and a
function may be, that tests mirror sources. docs/development.md says why.

    tests/tidy/tidy.py [ROOT]    prints findings as path:line: text; exit code 1 when there are any

Standard library only. A rule is a function from a tree (path -> text) to findings, so that
tidy_test.py can show that each one can fail.
"""

import os
import re
import sys
from typing import NamedTuple

import cpp_source

EVERYTHING = None  # for rooms that may include anything

# Room -> rooms that it may include, beside itself. docs/architecture.md draws the same arrows.
ARROWS = {
    "common": set(),
    "proto": set(),
    "model_file": {"common"},
    "text": {"model_file", "common"},
    "kernels": {"common"},
    "engine": {"kernels", "model_file", "common"},
    "kv_transfer": {"kernels", "common"},
    "planner": {"common"},
    "worker_link": {"proto", "common"},
    "worker_common": {"engine", "kernels", "kv_transfer", "model_file", "worker_link", "common"},
    "prefill_worker": {"worker_common", "engine", "kv_transfer", "worker_link", "proto", "common"},
    "decode_worker": {"worker_common", "engine", "kv_transfer", "worker_link", "proto", "common"},
    "router": {"text", "model_file", "planner", "worker_link", "proto", "common"},
    "cli": EVERYTHING,
    "bench": EVERYTHING,
    "tests": EVERYTHING,
}

# Folders of one room that must not know each other: what is compared with must not be what is used.
FOREIGN_FOLDERS = {"kernels/reference": ["kernels/cpu"], "kernels/cpu": ["kernels/reference"]}

# First parts of quoted includes that are not Baton's; "baton/" is what protoc makes of proto/.
THIRD_PARTY = {"absl", "gmock", "gtest", "google", "grpcpp"}
GENERATED_PROTO = "baton"

# These cost seconds of compile time each, so they stay in .cc files. Protobuf's types moreover stop
# at the service edge.
HEAVY_INCLUDES = ("grpc/", "grpcpp/", "boost/", "spdlog/", "ucp/", "ucs/", "uct/", "CLI/",
                  "yaml-cpp/", "prometheus/", "google/protobuf/", "openssl/", "baton/v1/")
LIGHT_INCLUDES = {"boost/json/fwd.hpp"}  # declarations only
# Private to the room that is the wire's edge; its public headers are plain data.
HEAVY_HEADERS_ALLOWED = {"worker_link/convert.h", "worker_link/outbox.h"}


class Limits(NamedTuple):
    file_lines: int
    function_lines: int


DEFAULT_LIMITS = Limits(450, 80)
LIMITS = {"kernels": Limits(900, 200), "tests": Limits(900, 200)}
COLUMNS = 100

# Sources that another file than their mirror tests.
PROVEN_BY = {
}
# Rooms whose sources are proven by programs that run them, not by tests of the same name.
UNMIRRORED_ROOMS = {"cli", "bench", "tests"}

CPP = (".h", ".cc")
SOURCES = CPP + (".py", ".sh", ".cmake", ".proto", "CMakeLists.txt", ".ci/run")
UNFINISHED = re.compile(r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "X" * 3]) + r")\b")
# Absolute paths of one machine. URLs and route names have a word before the slash.
MACHINE_ROOTS = ["wo" + "rk", "tm" + "p", "ho" + "me"]
MACHINE_PATH = re.compile(r"(?<![\w.})-])/(" + "|".join(MACHINE_ROOTS) + ")/")
# `room/file.ext` in backticks, and [links](to/files).
DOCUMENT_PATH = re.compile(r"`([\w.]+/[\w./]+\.(?:h|cc|py|sh|md|proto|txt|cmake))`")
DOCUMENT_LINK = re.compile(r"\]\(([\w./]+)\)")


class Finding(NamedTuple):
    path: str
    line: int
    text: str

    def __str__(self):
        return f"{self.path}:{self.line}: {self.text}"


def room_of(path):
    return path.split("/", 1)[0] if "/" in path else ""


def cpp_files(tree):
    return {path: text for path, text in tree.items() if path.endswith(CPP)}


def check_includes(tree):
    """Includes follow the arrows."""
    for path, text in cpp_files(tree).items():
        room = room_of(path)
        if room not in ARROWS:
            yield Finding(path, 1, f"'{room or path}' is not a room (ARROWS in tidy.py)")
            continue
        for line, bracket, target in cpp_source.includes(text):
            if bracket == "<":
                continue
            yield from check_quoted_include(path, room, line, target)


def check_quoted_include(path, room, line, target):
    target_room = room_of(target)
    if target_room in THIRD_PARTY:
        return
    if target_room == GENERATED_PROTO:
        target_room = "proto"
    if target_room not in ARROWS:
        yield Finding(path, line, f'"{target}" is in no known room; includes start at the root')
        return
    allowed = ARROWS[room]
    if allowed is not EVERYTHING and target_room != room and target_room not in allowed:
        names = ", ".join(sorted(allowed)) or "nobody"
        yield Finding(path, line, f"{room} includes {target_room}, but may know only: {names}")
    for folder, foreign in FOREIGN_FOLDERS.items():
        for other in foreign:
            if path.startswith(folder + "/") and target.startswith(other + "/"):
                yield Finding(path, line, f"{folder} includes {other}: they are compared in tests")


def check_heavy_includes(tree):
    """Headers do not include what is slow to compile."""
    for path, text in cpp_files(tree).items():
        if not path.endswith(".h") or path in HEAVY_HEADERS_ALLOWED:
            continue
        for line, _, target in cpp_source.includes(text):
            if target.startswith(HEAVY_INCLUDES) and target not in LIGHT_INCLUDES:
                yield Finding(path, line, f"a header includes {target}: keep it in .cc files")


def check_sizes(tree):
    """Files and functions stay short."""
    for path, text in cpp_files(tree).items():
        limits = LIMITS.get(room_of(path), DEFAULT_LIMITS)
        lines = text.count("\n")
        if lines > limits.file_lines:
            yield Finding(path, lines, f"the file has {lines} lines, at most {limits.file_lines}")
        for function in cpp_source.functions(text):
            if function.lines > limits.function_lines:
                yield Finding(path, function.first_line,
                              f"'{function.head}' has {function.lines} lines, "
                              f"at most {limits.function_lines}")


def check_lines(tree):
    """Tabs, trailing space, long lines, unfinished work, paths of one machine."""
    for path, text in tree.items():
        if not path.endswith(SOURCES + (".md",)):
            continue
        cpp = path.endswith(CPP)
        for number, line in enumerate(text.split("\n"), 1):
            if UNFINISHED.search(line):
                yield Finding(path, number, "unfinished work")
            if MACHINE_PATH.search(line):
                yield Finding(path, number, "an absolute path of one machine")
            if not path.endswith(".md") and line != line.rstrip():
                yield Finding(path, number, "trailing space")
            if cpp and "\t" in line:
                yield Finding(path, number, "a tab")
            if cpp and len(line) > COLUMNS and not line.startswith("#include"):
                yield Finding(path, number, f"{len(line)} columns, at most {COLUMNS}")
        if text and not text.endswith("\n"):
            yield Finding(path, text.count("\n") + 1, "the last line has no end")


def check_pragma_once(tree):
    """A header's first line of code is #pragma once."""
    for path, text in cpp_files(tree).items():
        if not path.endswith(".h"):
            continue
        if not cpp_source.without_comments(text).lstrip().startswith("#pragma once\n"):
            yield Finding(path, 1, "a header begins with #pragma once")


def check_tests_mirror(tree):
    """x.cc has tests/<room>/x_test.cc, or PROVEN_BY names the test that proves it."""
    for path in cpp_files(tree):
        room = room_of(path)
        if not path.endswith(".cc") or room in UNMIRRORED_ROOMS:
            continue
        inside = path[len(room) + 1:-len(".cc")]
        mirrors = [f"tests/{room}/{inside}_test.cc",
                   f"tests/{room}/{os.path.basename(inside)}_test.cc"]
        mirrored = any(mirror in tree for mirror in mirrors)
        if not mirrored and path not in PROVEN_BY:
            yield Finding(path, 1, f"there is no {mirrors[-1]}")
        if mirrored and path in PROVEN_BY:
            yield Finding(path, 1, "has a test of its own now: take it out of PROVEN_BY in tidy.py")
    for path, test in PROVEN_BY.items():
        for name in (path, test):
            if name not in tree:
                yield Finding("tests/tidy/tidy.py", 1, f"PROVEN_BY names {name}, which is not there")


def check_cmake_lists(tree):
    """Every .cc is built: the nearest CMakeLists.txt above it names it."""
    for path in cpp_files(tree):
        if not path.endswith(".cc"):
            continue
        folder = os.path.dirname(path)
        while folder and f"{folder}/CMakeLists.txt" not in tree:
            folder = os.path.dirname(folder)
        lists = f"{folder}/CMakeLists.txt" if folder else "CMakeLists.txt"
        relative = os.path.relpath(path, folder or ".")
        names = re.split(r"[\s()]+", re.sub(r"#.*", "", tree.get(lists, "")))
        if relative not in names:
            yield Finding(path, 1, f"{lists} does not name {relative}")


def check_documents(tree):
    """Files that documents name exist."""
    for path, text in tree.items():
        if not path.endswith(".md"):
            continue
        for number, line in enumerate(text.split("\n"), 1):
            linked = [os.path.normpath(os.path.join(os.path.dirname(path), target))
                      for target in DOCUMENT_LINK.findall(line)]
            for named in DOCUMENT_PATH.findall(line) + linked:
                if named not in tree:
                    yield Finding(path, number, f"there is no {named}")


RULES = [check_includes, check_heavy_includes, check_sizes, check_lines, check_pragma_once,
         check_tests_mirror, check_cmake_lists, check_documents]

SKIPPED_FOLDERS = {".git", "build", "models", ".venv", "venv", "__pycache__", "golden"}


def read_tree(root):
    tree = {}
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in SKIPPED_FOLDERS)
        for name in names:
            path = os.path.relpath(os.path.join(folder, name), root)
            tree[path] = ""
            if path.endswith(SOURCES + (".md",)):
                with open(os.path.join(folder, name), encoding="utf-8") as file:
                    tree[path] = file.read()
    return tree


def main(arguments):
    root = arguments[0] if arguments else os.path.join(os.path.dirname(__file__), "..", "..")
    tree = read_tree(root)
    if not cpp_files(tree):
        print(f"tidy: there are no C++ files under {root}")
        return 2
    findings = [finding for rule in RULES for finding in rule(tree)]
    for finding in findings:
        print(finding)
    print(f"tidy: {len(tree)} files, {len(RULES)} rules, {len(findings)} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
