"""The command line: what it prints, and how it refuses. Exit codes: 0 done, 1 failed, 2 bad usage;
errors are the last line on standard error, "baton: ...", after those of child processes."""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import tempfile
import unittest

from cluster import (BATON, CONTEXT_TOKENS, MODEL, ROOT, Cluster, environment, run_baton,
                     wait_until)


class RunTest(unittest.TestCase):
    def run_json(self, *arguments):
        result = run_baton("run", "-m", MODEL, "--json", *arguments)
        self.assertEqual(result.returncode, 0, result.stderr)
        return json.loads(result.stdout)

    def test_json_has_the_promised_form(self):
        answer = self.run_json("-p", "The capital of France is", "-n", 4, "--temperature", 0,
                               "--logprobs", 2)
        self.assertEqual(set(answer), {"prompt_tokens", "output_tokens", "text", "finish_reason",
                                       "logprobs", "timings"})
        self.assertEqual(set(answer["timings"]), {"prefill_s", "decode_s", "prefill_tokens_per_s",
                                                  "decode_tokens_per_s"})
        self.assertIn("Paris", answer["text"])
        self.assertEqual(len(answer["output_tokens"]), 4)
        self.assertEqual(answer["finish_reason"], "length")
        for token, row in zip(answer["output_tokens"], answer["logprobs"]):
            self.assertEqual(row["token"], token)
            self.assertEqual(len(row["top"]), 2)
            self.assertEqual(row["top"][0]["token"], token)

    def test_tokens_and_text_agree(self):
        by_text = self.run_json("-p", "One two three", "-n", 8, "--temperature", 0)
        ids = ",".join(map(str, by_text["prompt_tokens"]))
        by_tokens = self.run_json("--tokens", ids, "-n", 8, "--temperature", 0)
        self.assertEqual(by_text["output_tokens"], by_tokens["output_tokens"])

    def test_bits_do_not_depend_on_block_chunk_and_threads(self):
        ids = ",".join(str(100 + i * 7 % 40000) for i in range(150))
        answers = [self.run_json("--tokens", ids, "-n", 16, "--temperature", 0, "--logprobs", 0,
                                 "--block-tokens", block, "--chunk-tokens", chunk,
                                 "--threads", threads)
                   for block, chunk, threads in ((8, 16, 1), (16, 256, 2), (32, 7, 2))]
        for answer in answers[1:]:
            self.assertEqual(answer["output_tokens"], answers[0]["output_tokens"])
            self.assertEqual(answer["logprobs"], answers[0]["logprobs"])

    def test_chat_ends_by_itself(self):
        answer = self.run_json("--chat", "Say hello.", "--temperature", 0, "-n", 200)
        self.assertEqual(answer["finish_reason"], "stop")
        self.assertNotIn("<|im_end|>", answer["text"])

    def test_eval(self):
        result = run_baton("eval", "--ppl", ROOT / "LICENSE", "-m", MODEL, "--window", 128,
                           "--json", timeout=300)
        self.assertEqual(result.returncode, 0, result.stderr)
        answer = json.loads(result.stdout)
        self.assertEqual(set(answer), {"tokens", "mean_nll"})
        self.assertGreater(answer["tokens"], 1000)
        self.assertTrue(0.5 < answer["mean_nll"] < 5, answer)


class BenchTest(unittest.TestCase):
    def rows(self, *arguments):
        result = run_baton("bench", *arguments, "--json")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(result.stderr, "", "no progress where there is no terminal")
        return [json.loads(line) for line in result.stdout.splitlines()]

    def test_kernels(self):
        rows = self.rows("kernels", "--filter", "rms_norm", "--repeat", 1, "--threads", 1)
        self.assertEqual({row["name"] for row in rows},
                         {"rms_norm", "ceiling_dram", "ceiling_l3", "ceiling_l2", "ceiling_dot"})
        for row in rows:
            self.assertEqual(list(row), ["name", "shape", "type", "threads", "value", "unit",
                                         "ceiling", "share"])
            self.assertEqual(row["threads"], 1)
            self.assertGreater(row["value"], 0)
            self.assertAlmostEqual(row["share"], row["value"] / row["ceiling"], places=3)

    def test_engine(self):
        rows = self.rows("engine", "-m", MODEL, "--batch", "1,2", "--prompt", 16, "--generate", 4,
                         "--repeat", 1, "--threads", 2)
        self.assertEqual([row["batch"] for row in rows], [1, 2])
        for row in rows:
            self.assertEqual(list(row), ["model", "threads", "batch", "prompt_tokens",
                                         "generated_tokens", "prefill_tokens_per_s",
                                         "decode_tokens_per_s"])
            self.assertEqual((row["model"], row["threads"], row["prompt_tokens"],
                              row["generated_tokens"]), (MODEL.name, 2, 16, 4))
            self.assertGreater(row["prefill_tokens_per_s"], 0)
            self.assertGreater(row["decode_tokens_per_s"], 0)

    def test_transfer(self):
        rows = self.rows("transfer", "--block-bytes", "16384,65536", "--transfer-bytes", 1 << 20,
                         "--slab-bytes", 4 << 20, "--repeat", 3)
        self.assertEqual([row["transport"] for row in rows],
                         ["shm", "shm", "ucx tcp", "ucx tcp", "inproc", "inproc"])
        for row, block_bytes in zip(rows, (16384, 65536) * 3):
            self.assertEqual(list(row), ["transport", "block_bytes", "blocks", "bytes", "gb_per_s",
                                         "p50_us", "p99_us", "baseline_gb_per_s", "share"])
            self.assertEqual((row["block_bytes"], row["blocks"], row["bytes"]),
                             (block_bytes, (1 << 20) // block_bytes, 1 << 20))
            self.assertGreater(row["p50_us"], 0)
            self.assertGreaterEqual(row["p99_us"], row["p50_us"])
            self.assertAlmostEqual(row["share"], row["gb_per_s"] / row["baseline_gb_per_s"],
                                   places=3)

    def test_help_lists_the_benchmarks(self):
        for arguments, code in ((["bench"], 2), (["bench", "--help"], 0), (["bench", "-h"], 0)):
            result = run_baton(*arguments)
            self.assertEqual(result.returncode, code)
            self.assertIn("bench kernels", result.stdout)
            self.assertIn("bench engine", result.stdout)
            self.assertNotIn("worker", result.stdout)
        for benchmark in ("kernels", "engine", "transfer"):
            result = run_baton("bench", benchmark, "--help")
            self.assertEqual(result.returncode, 0)
            self.assertIn("--repeat", result.stdout)
            self.assertNotIn("--peer", result.stdout)

    def test_an_interrupt_ends_it(self):
        with subprocess.Popen([BATON, "bench", "kernels"], cwd=ROOT, env=environment(), text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            process.stdout.readline()  # the table's head comes with the first row
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 1)
        self.assertEqual(errors, "baton: interrupted\n")


class PlanTest(unittest.TestCase):
    BOOK = ("plan", "--model", "llama-3-70b", "--hardware", "tpu-v5e", "--chips", 16, "--input", 8192,
            "--output", 512, "--weights-dtype", "bf16", "--kv-dtype", "bf16")
    CHAT = ("plan", "--model", "llama-3-70b", "--hardware", "h100", "--chips", 4, "--rate", 10,
            "--ttft-slo", 2, "--itl-slo", 0.03)

    def plan(self, *arguments):
        result = run_baton(*arguments, "--json")
        self.assertEqual(result.returncode, 0, result.stderr)
        return json.loads(result.stdout)

    def test_the_books_tables(self):
        answer = self.plan(*self.BOOK, "--batch", 32, "--book")
        for key, value in {"kv_bytes_per_token": 327680, "weights_bytes": 140e9, "batch_max": 43,
                           "prefill_s": 0.90964, "decode_step_s": 0.017218,
                           "ratio_prefill_per_decode": 3.302, "prefill": 4,
                           "prefill_utilisation": 0.8255}.items():
            self.assertAlmostEqual(answer[key] / value, 1, delta=0.001, msg=key)
        self.assertNotIn("ttft_p99_s", answer)
        three = self.plan(*self.BOOK, "--batch", 32, "--book", "--prefill", 3, "--decode", 1,
                          "--decode-step-s", 0.019)
        self.assertAlmostEqual(three["prefill_utilisation"], 0.9974, delta=0.0001)
        explained = run_baton(*self.BOOK, "--batch", 32, "--book", "--explain").stdout
        self.assertIn("in whole numbers P = 3G", explained)

    def test_percentiles_goodput_and_what_binds(self):
        plan = self.plan(*self.BOOK, "--batch", 32)
        for key in ("ttft_p50_s", "ttft_p99_s", "itl_p50_s", "itl_p99_s", "goodput_per_s"):
            self.assertGreater(plan[key], 0, key)
        self.assertIn(plan["binding_resource"], plan["resources"])
        self.assertGreater(plan["ttft_p99_s"], plan["ttft_p50_s"])
        overloaded = self.plan(*self.BOOK, "--batch", 32, "--prefill", 2, "--decode", 1)
        self.assertIsNone(overloaded["ttft_p50_s"])
        self.assertIn("do not keep up", overloaded["findings"][0])

    def test_a_trace_and_a_page(self):
        with tempfile.TemporaryDirectory(prefix="baton-plan-") as folder:
            trace, page = pathlib.Path(folder, "trace.csv"), pathlib.Path(folder, "plan.html")
            rows = [f"2023-11-16 18:{i // 600:02}:{i // 10 % 60:02}.{i * 37 % 10}000000,"
                    f"{500 + i * 997 % 4000},{20 + i * 13 % 500}" for i in range(2000)]
            trace.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens",
                                        *sorted(rows)]))
            plan = self.plan(*self.CHAT, "--trace", trace, "--html", page)
            self.assertEqual(plan["rate_per_s"], 10)
            self.assertGreaterEqual(plan["goodput_per_s"], 10)
            self.assertLessEqual(plan["ttft_p99_s"], 2)
            text = page.read_text()
            self.assertEqual(text.count("<svg"), 3)
            self.assertNotIn("<script", text)

    def test_a_simulation_agrees_with_its_plan(self):
        load = ("--model", "llama-3-8b", "--hardware", "h100", "--input", 2000, "--input-cv", 0.7,
                "--output", 200, "--rate", 40)
        plan = self.plan("plan", *load, "--chips", 1, "--prefill", 5, "--decode", 2)
        runs = [run_baton("simulate", *load, "--fleet", "5:2", "--requests", 50000, "--json")
                for _ in range(2)]
        self.assertEqual(runs[0].returncode, 0, runs[0].stderr)
        self.assertEqual(runs[0].stdout, runs[1].stdout, "one seed, one run")
        simulated = json.loads(runs[0].stdout)
        for kind in ("ttft", "itl"):
            for percentile in ("p50", "p99"):
                self.assertAlmostEqual(plan[f"{kind}_{percentile}_s"] /
                                       simulated[f"{kind}_s"][percentile], 1, delta=0.1)
        for arguments, words in (((*load, "--fleet", "5"), "as in 3:1"),
                                 ((*load[:-2], "--fleet", "5:2"), "--rate is needed")):
            result = run_baton("simulate", *arguments)
            self.assertEqual(result.returncode, 2)
            self.assertIn(words, result.stderr)

    def test_refusals(self):
        base = ("plan", "--model", "llama-3-70b", "--hardware", "h100")
        lengths = ("--input", 2000, "--output", 300)
        for code, arguments, words in (
                (2, (*base, "--input", 2000, "--output", 0), "must be a number above 0"),
                (2, (*base, *lengths, "--rate", "nan"), "must be a number above 0"),
                (2, base, "--input and --output are needed, or a --trace"),
                (2, (*base, *lengths, "--book", "--rate", 3), "--book is without rates"),
                (2, ("plan", "--model", "llama-3-70b", "--hardware", "h10", *lengths),
                 "there is no hardware 'h10'; nearest: h100"),
                (1, (*base, *lengths, "--ttft-slo", 0.01), "no plan gives a first token"),
                (1, (*base, *lengths, "--chips", 1), "does not fit: 141.1 GB of weights"),
                (1, (*base, "--trace", ROOT / "LICENSE"), "must be TIMESTAMP")):
            result = run_baton(*arguments)
            self.assertEqual(result.returncode, code, f"{arguments}: {result.stderr}")
            self.assertIn(words, result.stderr)


class RefusalsTest(unittest.TestCase):
    def assert_fails(self, code, *arguments, words=(), **more):
        result = run_baton(*arguments, **more)
        self.assertEqual(result.returncode, code, f"{arguments}: {result.stdout}{result.stderr}")
        errors = [line for line in result.stderr.splitlines() if line.startswith("baton: ")]
        self.assertEqual(errors[-1:], result.stderr.splitlines()[-1:], "an error comes last")
        for word in words:
            self.assertIn(str(word), "\n".join(errors))
        self.assertEqual(result.stdout, "")

    def model_file(self, content):
        file = tempfile.NamedTemporaryFile(suffix=".gguf")
        self.addCleanup(file.close)
        file.write(content)
        file.flush()
        return file.name

    def test_truncated_model(self):
        content = MODEL.read_bytes()
        for keep in (0, 3, 20, 5000, len(content) // 2, len(content) - 1):
            path = self.model_file(content[:keep])
            with self.subTest(keep=keep):
                for command in (["run", "-m", path, "-p", "x"], ["up", "--model", path, "--http",
                                "127.0.0.1:0", "--grpc", "127.0.0.1:0"]):
                    self.assert_fails(1, *command, words=[pathlib.Path(path).name])

    def test_text_file_as_model(self):
        path = self.model_file(b"Once upon a time there was no model.\n" * 100)
        for command in ("run", "worker", "router", "up"):
            more = {"run": ["-p", "x"], "worker": ["--role", "decode", "--listen", "127.0.0.1:0"],
                    "router": ["--workers", "127.0.0.1:1", "--http", "127.0.0.1:0", "--grpc",
                               "127.0.0.1:0"],
                    "up": ["--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"]}[command]
            with self.subTest(command=command):
                self.assert_fails(1, command, "--model", path, *more, words=["not a GGUF file"])

    def test_missing_model(self):
        self.assert_fails(1, "run", "-m", "models/none.gguf", "-p", "x", words=["models/none.gguf"])

    def test_prompt_over_the_context(self):
        ids = ",".join(["5"] * (CONTEXT_TOKENS + 8))
        result = run_baton("run", "-m", MODEL, "--tokens", ids)
        self.assertEqual(result.returncode, 1)
        text = result.stderr.replace(",", "")
        self.assertIn(str(CONTEXT_TOKENS), text)
        self.assertIn(str(CONTEXT_TOKENS + 8), text)

    def test_benchmarks_of_nothing(self):
        engine = ["bench", "engine", "-m", MODEL]
        self.assert_fails(1, *engine, "--batch", 0, words=["batch of 0"])
        self.assert_fails(1, *engine, "--prompt", CONTEXT_TOKENS, "--generate", 8,
                          words=[CONTEXT_TOKENS, CONTEXT_TOKENS + 8])
        self.assert_fails(1, "bench", "engine", "-m", "models/none.gguf",
                          words=["models/none.gguf"])
        self.assert_fails(1, "bench", "kernels", "--filter", "pigeon", words=["pigeon", "matmul"])
        self.assert_fails(1, "bench", "transfer", "--block-bytes", 5000, words=["5000", "4096"])
        self.assert_fails(1, "bench", "transfer", "--transport", "nccl", words=["nccl"])

    def test_port_taken(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            free = "127.0.0.1:0"
            for http, grpc in ((address, free), (free, address)):
                result = run_baton("up", "--model", MODEL, "--http", http, "--grpc", grpc)
                self.assertEqual(result.returncode, 1, result.stderr)
                self.assertIn(address, result.stderr)
                self.assertEqual(result.stdout, "")
            self.assert_fails(1, "worker", "--role", "decode", "--model", MODEL, "--listen",
                              address, words=[address])

    def test_bad_usage(self):
        self.assert_fails(2, "upp", words=["'up'"])
        self.assert_fails(2, "up", "--prefil", "1", words=["--prefill"])
        self.assert_fails(2, "bench", "kernel", words=["'bench kernels'"])
        self.assert_fails(2, "bench", "engine", "--bach", 1, words=["--batch"])
        self.assert_fails(2, "bench", "engine", "--batch", "many")
        self.assert_fails(2, "run", "-m", MODEL)
        self.assert_fails(2, "run", "-m", MODEL, "-p", "x", "-n", "many")
        self.assert_fails(2, "worker", "--role", "cook", "--model", MODEL)
        self.assert_fails(1, "up", "--transport", "pigeon", "--model", MODEL, words=["pigeon"])
        self.assert_fails(1, "run", "-m", MODEL, "-p", "x", "--kv-dtype", "q8",
                          words=["'q8'", "f32, f16, bf16, int8, fp8"])

    def test_bad_values(self):
        for flags in (["--temperature", -1], ["--top-p", 7], ["-n", 0], ["--block-tokens", 7],
                      ["--chunk-tokens", 0]):
            with self.subTest(flags=flags):
                result = run_baton("run", "-m", MODEL, "-p", "x", *flags)
                self.assertIn(result.returncode, (1, 2), result.stderr)
                self.assertTrue(result.stderr.startswith("baton: "), result.stderr)

    def test_unknown_configuration_names_the_nearest(self):
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            file.write("chunk-token: 16\n")
            file.flush()
            self.assert_fails(2, "run", "--config", file.name, "-m", MODEL, "-p", "x",
                              words=["chunk-token", "'chunk-tokens'"])
        result = subprocess.run([BATON, "run", "-m", MODEL, "-p", "x"], text=True,
                                env={**environment(), "BATON_CHUNK_TOKEN": "16"},
                                capture_output=True, timeout=60)
        self.assertEqual(result.returncode, 2)
        self.assertIn("BATON_CHUNK_TOKENS", result.stderr)

    def test_unknown_model_to_pull(self):
        self.assert_fails(1, "pull", "smollm3", words=["smollm2-135m"])


class ModelsTest(unittest.TestCase):
    def test_pull_of_a_model_that_is_there_is_quick_and_offline(self):
        result = run_baton("pull", "smollm2-135m", "--python", "no-such-python", timeout=30)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(os.path.basename(result.stdout.strip()), MODEL.name)

    def test_models_lists_it(self):
        result = run_baton("models")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("smollm2-135m", result.stdout)


class ClusterCommandsTest(unittest.TestCase):
    def test_question_with_stats(self):
        with Cluster.up(1, 1) as cluster:
            result = run_baton("chat", "--url", f"http://{cluster.client.http_address}", "--stats",
                               "--max-tokens", 40, "Who wrote Romeo and Juliet?")
            self.assertEqual(result.returncode, 0, result.stderr)
            self.assertIn("Shakespeare", result.stdout)
            for worker in cluster.client.fleet():
                self.assertIn(worker.name, result.stdout)
            for row in ("prompt", "output", "blocks", "TTFT", "ITL", "tokens/s"):
                self.assertIn(row.lower(), result.stdout.lower())

    def test_every_kv_format_answers_as_one_process(self):
        prompt = [100 + i * 7 % 40000 for i in range(150)]
        for kv_dtype in ("f32", "bf16", "int8", "fp8"):
            with self.subTest(kv_dtype=kv_dtype):
                alone = run_baton("run", "-m", MODEL, "--json", "--tokens",
                                  ",".join(map(str, prompt)), "-n", 24, "--temperature", 0,
                                  "--kv-dtype", kv_dtype)
                self.assertEqual(alone.returncode, 0, alone.stderr)
                with Cluster.up(1, 1, kv_dtype=kv_dtype, chunk_tokens=40) as cluster:
                    status, answer = cluster.client.post("/v1/completions", {
                        "model": cluster.model, "prompt": prompt, "return_token_ids": True,
                        "max_tokens": 24, "temperature": 0})
                    self.assertEqual(status, 200, answer)
                self.assertEqual(answer["choices"][0]["token_ids"],
                                 json.loads(alone.stdout)["output_tokens"])

    def test_log_lines_carry_level_and_who_says_it_once(self):
        workers = ["prefill-0", "decode-0"]
        for transport, names in (("auto", ["up", "router", *workers]), ("inproc", ["up", *workers])):
            with Cluster.up(1, 1, log_level="info", transport=transport) as cluster:
                status, _ = cluster.client.post("/v1/completions", {
                    "model": cluster.model, "prompt": "Once", "max_tokens": 2})
                self.assertEqual(status, 200)
                # Measured beside the first handoff, and perhaps told after the answer.
                measured = r"info decode-0: KV from 'prefill-0' by \w+: \S+ GB/s measured"
                wait_until(lambda: re.search(measured, cluster.processes[0].log_tail(1000)), 10,
                           "the path is measured")
                log = cluster.processes[0].log_tail(1000)
                for name in names:
                    self.assertRegex(log, rf"(?m)^\d{{4}}-\d\d-\d\dT\S+ info {name}: ")
                self.assertNotRegex(log, r"(?m)info (\S+): .*\b\1: ")
        with Cluster.up(1, 1, log_level="error") as cluster:
            self.assertNotIn(" info ", cluster.processes[0].log_tail(1000))

    def test_nobody_there(self):
        for command in (["chat", "--url", "http://127.0.0.1:1", "Hello"],
                        ["drain", "--admin", "127.0.0.1:1", "decode-0"],
                        ["role", "--admin", "http://127.0.0.1:1", "decode-0", "prefill"]):
            with self.subTest(command=command[0]):
                result = run_baton(*command)
                self.assertEqual(result.returncode, 1)
                self.assertIn("127.0.0.1:1", result.stderr)


if __name__ == "__main__":
    unittest.main()
