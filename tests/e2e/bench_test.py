"""`baton bench router` and `baton bench serve`, with small counts: that they measure what they say,
and refuse what makes no sense. No number is compared with a target: this machine may be slow."""

import json
import pathlib
import tempfile
import unittest
import xml.etree.ElementTree

from cluster import MODEL, ClusterTestCase, free_port, run_baton

COSTS = {"cpu_ms_per_request": "ms", "cpu_ms_per_request_unary": "ms", "requests_per_s": "requests/s",
         "requests_per_s_per_core": "requests/s", "added_ttft_p50_ms": "ms",
         "added_ttft_p99_ms": "ms", "placement_us_1000": "us", "placement_us_10000": "us",
         "prompt_100k_text_ms": "ms", "prompt_100k_ids_ms": "ms", "idle_streams": "streams",
         "idle_streams_bytes_each": "bytes", "memory_growth_percent": "%"}


class BenchRouterTest(unittest.TestCase):
    def test_every_row_is_there(self):
        result = run_baton("bench", "router", "-m", MODEL, "--requests", 60, "--generate", 4,
                           "--concurrency", 8, "--unary-concurrency", 4, "--long-prompts", 1,
                           "--idle-streams", 40, "--growth-requests", 80, "--repeat", 1, "--json")
        self.assertEqual(result.returncode, 0, result.stderr)
        rows = {}
        for line in result.stdout.splitlines():
            row = json.loads(line)
            self.assertEqual(list(row), ["name", "value", "unit"])
            self.assertNotIn(row["name"], rows)
            rows[row["name"]] = row
        for name, unit in COSTS.items():
            self.assertEqual(rows[name]["unit"], unit)
        self.assertEqual(rows["idle_streams"]["value"], 40)
        for name in ("placement_us_1000", "added_ttft_p50_ms", "prompt_100k_text_ms"):
            self.assertGreater(rows[name]["value"], 0)
        self.assertGreaterEqual(rows["added_ttft_p99_ms"]["value"],
                                rows["added_ttft_p50_ms"]["value"])

    def test_a_part_alone_as_a_table(self):
        result = run_baton("bench", "router", "-m", MODEL, "--only", "placement", "--repeat", 1)
        self.assertEqual(result.returncode, 0, result.stderr)
        head, first, second = result.stdout.splitlines()
        self.assertEqual(head.split(), ["name", "value", "unit", "target"])
        self.assertTrue(first.startswith("placement_us_1000 "))
        self.assertTrue(second.startswith("placement_us_10000 "))

    def test_nonsense_is_refused(self):
        for arguments, code, word in ((("--only", "pigeons"), 2, "pigeons"),
                                      (("--requests", 0), 2, "--requests"),
                                      (("--only", "unary", "--router-flag=--pigeon=1"), 1,
                                       "did not start")):
            result = run_baton("bench", "router", "-m", MODEL, *arguments)
            self.assertEqual(result.returncode, code, result.stderr)
            self.assertIn(word, result.stderr)
        result = run_baton("bench", "router", "-m", "models/none.gguf")
        self.assertEqual(result.returncode, 1)
        self.assertIn("models/none.gguf", result.stderr)


class BenchServeTest(ClusterTestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def file(self, name, text=None):
        path = pathlib.Path(self.folder.name) / name
        if text is not None:
            path.write_text(text)
        return path

    def serve(self, *arguments):
        result = run_baton("bench", "serve", "--url", f"http://{self.client.http_address}", *arguments,
                           "--json")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(result.stderr, "", "no progress where there is no terminal")
        return [json.loads(line) for line in result.stdout.splitlines()]

    def test_a_sweep_of_rates_and_its_report(self):
        html = self.file("report.html")
        rows = self.serve("--rate", "20,40", "--requests", 8, "--input", 24, "--output", 5,
                          "--slo-ttft-ms", 1e8, "--slo-itl-ms", 1e8, "--html", html)
        self.assertEqual([row["rate"] for row in rows], [20, 40])
        for row in rows:
            self.assertEqual((row["requests"], row["ok"], row["errors"]), (8, 8, {}))
            self.assertEqual(row["mean_output_tokens"], 5)
            self.assertGreater(row["mean_input_tokens"], 20)
            self.assertEqual(row["goodput_share"], 1)
            self.assertGreater(row["ttft_ms"]["p50"], 0)
            self.assertLessEqual(row["ttft_ms"]["p50"], row["ttft_ms"]["p99"])
            self.assertLessEqual(row["ttft_ms"]["p99"], row["e2e_ms"]["max"])
        page = html.read_text()
        root = xml.etree.ElementTree.fromstring(page.split("\n", 1)[1].replace(
            '<meta charset="utf-8">', ""))
        self.assertEqual(root.tag, "html")
        for title in ("Throughput against time to the first token",
                      "Workers that had something to compute", "KV blocks that requests hold"):
            self.assertIn(title, page)
        self.assertNotIn("<script", page)

    def test_closed_loops_of_completions_with_shared_prefixes(self):
        before = self.client.series_sum("vllm:prefix_cache_hits_total")
        row, = self.serve("--concurrency", 3, "--requests", 9, "--input", 80, "--shared-prefix", 64,
                          "--output", 3, "--endpoint", "completions", "--slo-ttft-ms", 1e-6)
        self.assertEqual((row["concurrency"], row["ok"]), (3, 9))
        self.assertEqual(row["goodput_share"], 0)
        self.assertGreater(self.client.series_sum("vllm:prefix_cache_hits_total"), before)

    def test_traces_of_both_forms(self):
        azure = self.file("trace.csv", "TIMESTAMP,ContextTokens,GeneratedTokens\n"
                          "2023-11-16 18:15:46.0000000,300,7\n"
                          "2023-11-16 18:15:47.0000000,90,400\n")
        row, = self.serve("--trace", azure, "--speed", 10, "--max-input", 50, "--max-output", 4)
        self.assertEqual((row["requests"], row["ok"], row["mean_output_tokens"]), (2, 2, 4))
        mooncake = self.file("trace.jsonl", "".join(
            json.dumps({"timestamp": 100 * i, "input_length": 700, "output_length": 20,
                        "hash_ids": [0, i + 1]}) + "\n" for i in range(3)))
        row, = self.serve("--trace", mooncake, "--token-scale", 0.1, "--trace-requests", 2)
        self.assertEqual((row["requests"], row["ok"], row["mean_output_tokens"]), (2, 2, 2))

    def test_errors_are_counted_by_kind(self):
        result = run_baton("bench", "serve", "--url", f"http://{self.client.http_address}", "--rate", 50,
                           "--requests", 3, "--model", "pigeon", "--warmup", 0, "--json")
        self.assertEqual(result.returncode, 1)
        self.assertIn("no request was answered", result.stderr)
        self.assertEqual(json.loads(result.stdout)["errors"], {"http 404": 3})
        result = run_baton("bench", "serve", "--url", f"http://{self.client.http_address}", "--rate", 50,
                           "--model", "pigeon")
        self.assertEqual(result.returncode, 1)
        self.assertIn("pigeon", result.stderr)


class BenchServeUsageTest(unittest.TestCase):
    def test_nonsense_is_refused(self):
        nobody = f"http://127.0.0.1:{free_port()}"
        for arguments, word in (((), "--rate"),
                                (("--rate", 1, "--concurrency", 1), "--concurrency"),
                                (("--rate", 1, "--url", "ftp://a"), "ftp://a"),
                                (("--rate", 1, "--url", nobody), nobody[7:]),
                                (("--rate", 1, "--arrivals", "pigeon"), "poisson"),
                                (("--trace", "none.csv"), "none.csv")):
            result = run_baton("bench", "serve", *arguments)
            self.assertEqual(result.returncode, 1, result.stderr)
            self.assertIn(word, result.stderr)
        self.assertEqual(run_baton("bench", "serve", "--rate", 0).returncode, 2)


if __name__ == "__main__":
    unittest.main()
