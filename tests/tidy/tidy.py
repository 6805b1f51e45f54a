#!/usr/bin/env python3
"""Checks the house rules that a compiler does not: who may include whom, how long a file and a
function may be, that tests mirror sources. docs/development.md says why.

    tests/tidy/tidy.py [ROOT]    prints findings as path:line: text; exit code 1 when there are any

Standard library only. A rule is a function from a tree (path -> text) to findings, so that
tidy_test.py can show that each one can fail.
"""

import fnmatch
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
    "grammar": {"common"},
    "kernels": {"common"},
    "engine": {"kernels", "model_file", "common"},
    "kv_transfer": {"kernels", "common"},
    "planner": {"common"},
    "kv_disk": {"common"},
    "discovery": {"proto", "common"},
    "worker_link": {"proto", "common"},
    "worker_common": {"engine", "grammar", "kernels", "kv_transfer", "model_file", "text",
                      "worker_link", "common"},
    "prefill_worker": {"worker_common", "engine", "kv_transfer", "kv_disk", "planner", "worker_link",
                       "proto", "common"},
    "decode_worker": {"worker_common", "engine", "kv_transfer", "worker_link", "proto", "common"},
    "router": {"discovery", "grammar", "text", "model_file", "planner", "worker_link", "proto",
               "common"},
    "simulator": {"router", "prefill_worker", "decode_worker", "engine", "worker_link", "planner",
                  "common"},
    "cli": EVERYTHING,
    "bench": EVERYTHING,
    "tests": EVERYTHING,
}

# A room that may include only these of its neighbours: what is pure, so that it needs no gRPC.
PURE_NEIGHBOURS = {"simulator": {
    "router": {"router/held_prefix.h", "router/placement.h", "router/prompts_under_way.h",
               "router/room.h"},
    "prefill_worker": {"prefill_worker/scheduler.h"},
    "decode_worker": {"decode_worker/scheduler.h"},
    "engine": {"engine/step_planner.h"},
    "worker_link": {"worker_link/commands.h"},
}}

# Folders of one room that must not know each other: what is compared with must not be what is used.
FOREIGN_FOLDERS = {"kernels/reference": ["kernels/cpu", "kernels/cuda"],
                   "kernels/cpu": ["kernels/reference", "kernels/cuda"],
                   "kernels/cuda": ["kernels/reference", "kernels/cpu"]}

# First parts of quoted includes that are not Baton's; the second are what protoc makes of proto/.
THIRD_PARTY = {"absl", "gmock", "gtest", "google", "grpcpp"}
GENERATED_PROTO = {"baton", "etcd", "inference"}

# These cost seconds of compile time each, so they stay in .cc files. Protobuf's types moreover stop
# at the service edge.
HEAVY_INCLUDES = ("grpc/", "grpcpp/", "boost/", "spdlog/", "ucp/", "ucs/", "uct/", "CLI/",
                  "yaml-cpp/", "prometheus/", "google/protobuf/", "openssl/", "baton/v1/",
                  "etcd/", "inference/", "google/rpc/")
LIGHT_INCLUDES = {"boost/json/fwd.hpp"}  # declarations only
# Private to a service edge: only .cc files and each other include them.
EDGE_HEADERS = {"discovery/etcd_session.h", "worker_link/convert.h", "worker_link/outbox.h", "router/grpc_convert.h",
                "router/grpc_generate.h", "router/grpc_caller.h", "router/grpc_error.h",
                "router/http_session.h", "router/http_stream.h", "router/kserve_convert.h",
                "router/kserve_infer.h", "router/kserve_service.h", "worker_link/grpc_credentials.h"}


class Limits(NamedTuple):
    file_lines: int
    function_lines: int


DEFAULT_LIMITS = Limits(450, 80)
# A transport is one file, callbacks and all.
LIMITS = {"kernels": Limits(900, 200), "tests": Limits(900, 200), "kv_transfer": Limits(500, 80)}
COLUMNS = 100

# Sources (patterns) whose tests stand under another name: of the whole that they are a part of.
PROVEN_BY = {
    "bench/raw_ucx*.cc": "tests/bench/transfer_bench_test.cc",
    "bench/*_cases.cc": "tests/bench/kernel_bench_test.cc",
    "bench/load_url.cc": "tests/bench/load_client_test.cc",
    "bench/placement_bench.cc": "tests/bench/router_bench_test.cc",
    "bench/simulated_workers.cc": "tests/bench/router_bench_test.cc",
    "common/logging.cc": "tests/e2e/commands_test.py",
    "discovery/etcd_session.cc": "tests/discovery/registration_test.cc",
    "engine/fingerprint.cc": "tests/engine/model_config_test.cc",
    "engine/host_slab.cc": "tests/engine/local_engine_test.cc",
    "engine/model_tensors.cc": "tests/engine/model_config_test.cc",
    "grammar/json_object.cc": "tests/grammar/json_schema_test.cc",
    "decode_worker/loop_ending.cc": "tests/decode_worker/loop_test.cc",
    "router/flow_scores.cc": "tests/router/flow_test.cc",
    "router/flow_tokens.cc": "tests/router/flow_test.cc",
    "worker_common/constraints.cc": "tests/e2e/constraints_test.py",
    "kernels/cpu/cpu_attention.cc": "tests/kernels/attention_test.cc",
    "kernels/cpu/cpu_isa.cc": "tests/kernels/cpu_ops_test.cc",
    "kernels/cpu/cpu_matmul.cc": "tests/kernels/matmul_test.cc",
    "kernels/cpu/amx_matmul.cc": "tests/kernels/amx_test.cc",
    "kernels/cpu/amx_probes.cc": "tests/bench/ceilings_test.cc",
    "kernels/cpu/amx_table.cc": "tests/kernels/amx_test.cc",
    "kernels/cpu/isa_attention.cc": "tests/kernels/attention_test.cc",
    "kernels/cpu/isa_elementwise.cc": "tests/kernels/elementwise_test.cc",
    "kernels/cpu/isa_kv_convert.cc": "tests/kernels/kv_convert_test.cc",
    "kernels/cpu/isa_kv_store.cc": "tests/kernels/attention_test.cc",
    "kernels/cpu/isa_matmul.cc": "tests/kernels/matmul_test.cc",
    "kernels/cpu/isa_probes.cc": "tests/bench/ceilings_test.cc",
    "kernels/cpu/isa_table.cc": "tests/kernels/cpu_ops_test.cc",
    "kernels/cpu/large_buffer.cc": "tests/kernels/cpu_ops_test.cc",
    "kernels/cpu/panel_matrix.cc": "tests/kernels/matmul_test.cc",
    "kernels/cpu/usable_cpus.cc": "tests/kernels/cpu_ops_test.cc",
    "kernels/cuda/attention_plan.cc": "tests/kernels/step_tables_test.cc",
    "kernels/cuda/cuda_absent.cc": "tests/kernels/cuda_ops_test.cc",
    "kernels/cuda/matmul_plan.cc": "tests/kernels/step_tables_test.cc",
    "kernels/cuda/runtime.cc": "tests/kernels/cuda_ops_test.cc",
    "kernels/host_buffer.cc": "tests/engine/kv_mirror_test.cc",
    "kernels/host_matrix.cc": "tests/kernels/dequantize_test.cc",
    "kernels/kv_dtype.cc": "tests/kernels/kv_layout_test.cc",
    "kernels/reference/kv_vector.cc": "tests/kernels/kv_layout_test.cc",
    "kernels/reference/norm.cc": "tests/kernels/elementwise_test.cc",
    "kernels/reference/rope.cc": "tests/kernels/attention_test.cc",
    "kernels/reference/swiglu.cc": "tests/kernels/elementwise_test.cc",
    "kv_transfer/handoff_loop*.cc": "tests/kv_transfer/handoff_explorer_test.cc",
    "kv_transfer/inproc_transport.cc": "tests/kv_transfer/transports_inproc_test.cc",
    "kv_transfer/lane_*.cc": "tests/kv_transfer/nccl_transport_test.cc",
    "kv_transfer/nccl_*.cc": "tests/kv_transfer/nccl_transport_test.cc",
    "kv_transfer/peer_table.cc": "tests/kv_transfer/handoff_service_test.cc",
    "kv_transfer/stream_copy_*.cc": "tests/kv_transfer/stream_copy_test.cc",
    "kv_transfer/ucx_*.cc": "tests/kv_transfer/transports_ucx_test.cc",
    "model_file/gguf_parser.cc": "tests/model_file/gguf_test.cc",
    "planner/*_facts.cc": "tests/planner/cost_model_test.cc",
    "planner/name_lookup.cc": "tests/planner/cost_model_test.cc",
    "planner/pools.cc": "tests/planner/plan_test.cc",
    "prefill_worker/loop_disk.cc": "tests/prefill_worker/disk_test.cc",
    "prefill_worker/loop_prefix.cc": "tests/prefill_worker/loop_test.cc",
    "router/completion_call.cc": "tests/router/http_server_test.cc",
    "router/constraint_fields.cc": "tests/router/openai_request_test.cc",
    "router/error_code.cc": "tests/router/admission_test.cc",
    "router/grpc_*.cc": "tests/router/grpc_server_test.cc",
    "router/http_*.cc": "tests/router/http_server_test.cc",
    "router/json_fields.cc": "tests/router/openai_request_test.cc",
    "router/kserve_*.cc": "tests/router/kserve_test.cc",
    "router/live_request*.cc": "tests/router/dispatcher_test.cc",
    "router/openai_answer_parts.cc": "tests/router/openai_answer_test.cc",
    "router/openai_fields.cc": "tests/router/openai_request_test.cc",
    "router/openai_prompt.cc": "tests/router/openai_request_test.cc",
    "router/registry_duty.cc": "tests/router/registry_test.cc",
    "router/registry_fleet.cc": "tests/router/registry_test.cc",
    "router/text_calls.cc": "tests/router/http_server_test.cc",
    "router/tool_fields.cc": "tests/router/openai_request_test.cc",
    "router/served_model.cc": "tests/router/dispatcher_test.cc",
    "worker_link/grpc_credentials.cc": "tests/e2e/security_test.py",
    "simulator/checked_requests.cc": "tests/simulator/simulation_test.cc",
    "simulator/live_control.cc": "tests/simulator/regret_test.cc",
    "simulator/*_model.cc": "tests/simulator/models_test.cc",
    "simulator/prefix_cache.cc": "tests/simulator/models_test.cc",
    "simulator/request_source.cc": "tests/simulator/simulation_test.cc",
    "simulator/simulated_*.cc": "tests/simulator/simulation_test.cc",
    "text/added_tokens.cc": "tests/text/tokenizer_test.cc",
    "text/*tokenizer.cc": "tests/text/tokenizer_golden_test.cc",
    "text/char_class.cc": "tests/text/pre_tokenizer_test.cc",
    "text/jinja/*.cc": "tests/text/chat_template_test.cc",
    "text/text_index.cc": "tests/text/tokenizer_test.cc",
    "text/vocabulary.cc": "tests/text/tokenizer_test.cc",
}
# Rooms whose sources are proven by programs that run them, not by tests of the same name.
UNMIRRORED_ROOMS = {"cli", "tests"}

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
    if target_room in GENERATED_PROTO:
        target_room = "proto"
    if target_room not in ARROWS:
        yield Finding(path, line, f'"{target}" is in no known room; includes start at the root')
        return
    allowed = ARROWS[room]
    if allowed is not EVERYTHING and target_room != room and target_room not in allowed:
        names = ", ".join(sorted(allowed)) or "nobody"
        yield Finding(path, line, f"{room} includes {target_room}, but may know only: {names}")
    pure = PURE_NEIGHBOURS.get(room, {}).get(target_room)
    if pure is not None and target not in pure:
        yield Finding(path, line, f"{room} includes {target}, but of {target_room} only what is pure: "
                                  f"{', '.join(sorted(pure))}")
    for folder, foreign in FOREIGN_FOLDERS.items():
        for other in foreign:
            if path.startswith(folder + "/") and target.startswith(other + "/"):
                yield Finding(path, line, f"{folder} includes {other}: they are compared in tests")


def check_heavy_includes(tree):
    """Headers do not include what is slow to compile."""
    for path, text in cpp_files(tree).items():
        if not path.endswith(".h") or path in EDGE_HEADERS:
            continue
        for line, _, target in cpp_source.includes(text):
            if target in EDGE_HEADERS:
                yield Finding(path, line, f"a header includes {target}, which is private to .cc files")
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
    used = set()
    for path in cpp_files(tree):
        room = room_of(path)
        if not path.endswith(".cc") or room in UNMIRRORED_ROOMS:
            continue
        inside = path[len(room) + 1:-len(".cc")]
        mirrors = [f"tests/{room}/{inside}_test.cc",
                   f"tests/{room}/{os.path.basename(inside)}_test.cc"]
        if any(mirror in tree for mirror in mirrors):
            continue
        patterns = [pattern for pattern in PROVEN_BY if fnmatch.fnmatchcase(path, pattern)]
        used.update(patterns)
        if not patterns:
            yield Finding(path, 1, f"there is no {mirrors[-1]}")
    for pattern, test in PROVEN_BY.items():
        if pattern not in used:
            yield Finding("tests/tidy/tidy.py", 1, f"PROVEN_BY needs no {pattern}")
        if test not in tree:
            yield Finding("tests/tidy/tidy.py", 1, f"PROVEN_BY names {test}, which is not there")


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
