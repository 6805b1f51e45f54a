#!/usr/bin/env python3
"""Each rule of tidy.py finds what it is for, and lets sound code pass."""

import unittest
from unittest import mock

import cpp_source
import tidy

CLEAN_TREE = {
    "common/clock.h": "// Time.\n#pragma once\n\n#include <chrono>\n",
    "common/clock.cc": '#include "common/clock.h"\n\nint Now() { return 1; }\n',
    "common/CMakeLists.txt": "baton_library(common SRCS clock.cc)\n",
    "engine/model.cc": '#include "absl/status/status.h"\n#include "kernels/ops.h"\n',
    "engine/CMakeLists.txt": "baton_library(engine SRCS model.cc)\n",
    "kernels/ops.h": '#pragma once\n\n#include "common/clock.h"\n',
    "tests/common/clock_test.cc": '#include "common/clock.h"\n',
    "tests/common/CMakeLists.txt": "baton_test(common_test SRCS clock_test.cc)\n",
    "tests/engine/model_test.cc": '#include "engine/model.h"\n',
    "tests/engine/CMakeLists.txt": "baton_test(engine_test SRCS model_test.cc)\n",
}


def function_of(lines, head="void Long() {"):
    return head + "\n" + "  Step();\n" * (lines - 2) + "}\n"


class TidyTest(unittest.TestCase):
    def setUp(self):
        patch = mock.patch.multiple(tidy, PROVEN_BY={}, EDGE_HEADERS={"router/edge.h"})
        patch.start()
        self.addCleanup(patch.stop)

    def findings(self, rule, **changes):
        tree = dict(CLEAN_TREE)
        for path, text in changes.get("tree", {}).items():
            tree[path] = text
        return [str(finding) for finding in rule(tree)]

    def assert_finds(self, rule, tree, *expected):
        self.assertEqual(self.findings(rule), [], "the clean tree must pass")
        found = self.findings(rule, tree=tree)
        self.assertEqual(len(found), len(expected), found)
        for finding, text in zip(found, expected):
            self.assertIn(text, finding)

    def test_include_against_the_arrow(self):
        self.assert_finds(tidy.check_includes, {"kernels/ops.h": '#include "engine/model.h"\n'},
                          "kernels/ops.h:1: kernels includes engine, but may know only: common")

    def test_workers_do_not_know_each_other(self):
        self.assert_finds(tidy.check_includes,
                          {"decode_worker/loop.cc": '#include "prefill_worker/loop.h"\n'},
                          "decode_worker includes prefill_worker")

    def test_the_simulator_knows_only_what_is_pure(self):
        self.assert_finds(tidy.check_includes,
                          {"simulator/a.cc": '#include "router/placement.h"\n'
                                             '#include "router/registry.h"\n'},
                          "simulator/a.cc:2: simulator includes router/registry.h, but of router only")

    def test_generated_proto_counts_as_proto(self):
        self.assert_finds(tidy.check_includes,
                          {"kv_transfer/wire.cc": '#include "baton/v1/worker.pb.h"\n'},
                          "kv_transfer includes proto")
        self.assertEqual(
            self.findings(tidy.check_includes,
                          tree={"router/grpc.cc": '#include "baton/v1/baton.pb.h"\n'}), [])

    def test_reference_and_fast_kernels_stay_apart(self):
        self.assert_finds(tidy.check_includes,
                          {"kernels/cpu/norm.cc": '#include "kernels/reference/norm.h"\n'},
                          "kernels/cpu includes kernels/reference")

    def test_unknown_room(self):
        self.assert_finds(tidy.check_includes, {"helpers/text.cc": "\n"}, "'helpers' is not a room")

    def test_include_that_is_not_from_the_root(self):
        self.assert_finds(tidy.check_includes, {"common/ids.cc": '#include "ids.h"\n'},
                          '"ids.h" is in no known room')

    def test_include_in_a_comment_is_none(self):
        self.assertEqual(self.findings(tidy.check_includes, tree={
            "common/ids.cc": '// #include "engine/model.h"\n'}), [])

    def test_heavy_include_in_a_header(self):
        self.assert_finds(tidy.check_heavy_includes,
                          {"router/a.h": "#pragma once\n#include <boost/json.hpp>\n",
                           "router/b.h": '#pragma once\n#include "baton/v1/baton.pb.h"\n',
                           "router/c.cc": "#include <boost/json.hpp>\n"},
                          "router/a.h:2: a header includes boost/json.hpp",
                          "router/b.h:2: a header includes baton/v1/baton.pb.h")

    def test_edge_header_stays_with_its_sources(self):
        edge = {"router/edge.h": "#pragma once\n#include <boost/asio.hpp>\n",
                "router/edge.cc": '#include "router/edge.h"\n'}
        self.assertEqual(self.findings(tidy.check_heavy_includes, tree=edge), [])
        self.assert_finds(tidy.check_heavy_includes,
                          {**edge, "router/a.h": '#pragma once\n#include "router/edge.h"\n'},
                          "router/a.h:2: a header includes router/edge.h, which is private")

    def test_long_file(self):
        self.assertEqual(self.findings(tidy.check_sizes, tree={"common/a.cc": "\n" * 450}), [])
        self.assert_finds(tidy.check_sizes, {"common/a.cc": "\n" * 451}, "451 lines, at most 450")
        self.assert_finds(tidy.check_sizes, {"kernels/a.cc": "\n" * 901}, "at most 900")

    def test_long_function(self):
        self.assertEqual(self.findings(tidy.check_sizes, tree={"common/a.cc": function_of(80)}), [])
        self.assert_finds(tidy.check_sizes,
                          {"common/a.cc": "namespace baton {\n" + function_of(81) + "}\n"},
                          "common/a.cc:2: 'void Long()' has 81 lines, at most 80")
        self.assert_finds(tidy.check_sizes, {"tests/a.cc": function_of(201)}, "at most 200")

    def test_lines(self):
        self.assert_finds(tidy.check_lines, {"common/a.cc": "int a; \n"}, "a.cc:1: trailing space")
        self.assert_finds(tidy.check_lines, {"common/a.cc": "\tint a;\n"}, "a tab")
        self.assert_finds(tidy.check_lines, {"common/a.cc": "//" + "x" * 99 + "\n"}, "101 columns")
        self.assert_finds(tidy.check_lines, {"common/a.cc": "int a;"}, "no end")
        self.assert_finds(tidy.check_lines, {"docs/a.md": "TO" + "DO: more\n"}, "unfinished")
        self.assert_finds(tidy.check_lines, {"tests/run.sh": "cd /wo" + "rk/a\n"}, "absolute path")
        self.assertEqual(self.findings(tidy.check_lines, tree={
            "router/a.cc": '"/v1/home/x", "prefill/work/x", "/workers"\n'}), [])

    def test_pragma_once(self):
        self.assert_finds(tidy.check_pragma_once,
                          {"common/a.h": "#include <chrono>\n#pragma once\n",
                           "common/b.h": "// #pragma once\n"},
                          "common/a.h:1: a header begins with #pragma once", "common/b.h:1")

    def test_source_without_a_test(self):
        self.assert_finds(tidy.check_tests_mirror, {"common/ids.cc": ""},
                          "common/ids.cc:1: there is no tests/common/ids_test.cc")
        self.assertEqual(self.findings(tidy.check_tests_mirror, tree={"cli/main.cc": ""}), [])
        self.assertEqual(self.findings(tidy.check_tests_mirror, tree={
            "kernels/cpu/norm.cc": "", "tests/kernels/norm_test.cc": ""}), [])

    def test_source_that_another_test_proves(self):
        proof = "tests/common/clock_test.cc"
        with mock.patch.object(tidy, "PROVEN_BY", {"common/id*.cc": proof}):
            self.assertEqual(self.findings(tidy.check_tests_mirror, tree={"common/ids.cc": ""}), [])
        listed = {"common/clock.cc": proof, "common/i*.cc": "tests/common/gone.cc"}
        with mock.patch.object(tidy, "PROVEN_BY", listed):
            found = self.findings(tidy.check_tests_mirror, tree={"common/ids.cc": ""})
        self.assertEqual(len(found), 2, found)
        self.assertIn("PROVEN_BY needs no common/clock.cc", found[0])
        self.assertIn("tests/common/gone.cc, which is not there", found[1])

    def test_source_that_is_not_built(self):
        self.assert_finds(tidy.check_cmake_lists, {"common/ids.cc": ""},
                          "common/CMakeLists.txt does not name ids.cc")
        self.assert_finds(tidy.check_cmake_lists,
                          {"common/CMakeLists.txt": "baton_library(common SRCS)  # clock.cc\n"},
                          "does not name clock.cc")
        self.assertEqual(self.findings(tidy.check_cmake_lists, tree={
            "kernels/cpu/norm.cc": "",
            "kernels/CMakeLists.txt": "baton_library(kernels SRCS cpu/norm.cc)\n"}), [])

    def test_document_that_names_a_missing_file(self):
        self.assert_finds(tidy.check_documents, {"docs/a.md": "see `common/gone.h` and `a/b`\n"},
                          "docs/a.md:1: there is no common/gone.h")
        self.assert_finds(tidy.check_documents, {"docs/a.md": "[b](b.md), [web](https://x.org/)\n"},
                          "there is no docs/b.md")
        self.assertEqual(self.findings(tidy.check_documents, tree={
            "docs/a.md": "`common/clock.h` [b](../common/clock.cc)\n"}), [])

    def test_every_rule_is_tested_here(self):
        with open(__file__, encoding="utf-8") as file:
            source = file.read()
        for rule in tidy.RULES:
            self.assertIn(f"assert_finds(tidy.{rule.__name__}", source)


class FunctionsTest(unittest.TestCase):
    def functions(self, text):
        return [(function.first_line, function.lines) for function in cpp_source.functions(text)]

    def test_initializer_list_with_braces(self):
        text = "Foo::Foo(int a)\n    : a_{a},\n      b_(1) {\n  Step();\n}\nvoid G() {\n}\n"
        self.assertEqual(self.functions(text), [(1, 5), (6, 2)])

    def test_methods_inside_a_class(self):
        text = "class Foo final : public Bar {\n public:\n  int a() const { return a_; }\n};\n"
        self.assertEqual(self.functions(text), [(3 - 1, 2)])

    def test_tables_and_enums_are_no_functions(self):
        text = "enum class A { kB };\nconstexpr int kTable[Size(2)] = {\n  1,\n};\nint x = 3;\n"
        self.assertEqual(self.functions(text), [])

    def test_braces_in_literals_and_comments(self):
        text = 'void F() {\n  // }\n  Call("}", \'}\', R"(}})");  /* } */\n  int a = 1\'000;\n}\n'
        self.assertEqual(self.functions(text), [(1, 5)])

    def test_template_and_struct_return(self):
        text = "template <typename T>\nstruct Foo MakeFoo(T t) {\n  return {t};\n}\n"
        self.assertEqual(self.functions(text), [(1, 4)])

    def test_lambda_arguments_and_defaults(self):
        text = "void F(int a = 3, std::function<void()> f = {}) {\n  G([&] { H(); });\n}\n"
        self.assertEqual(self.functions(text), [(1, 3)])

    def test_macros_do_not_count(self):
        text = "#define A(x) \\\n  do { x; \\\n  } while (0)\nvoid F() {\n}\n"
        self.assertEqual(self.functions(text), [(4, 2)])


if __name__ == "__main__":
    unittest.main()
