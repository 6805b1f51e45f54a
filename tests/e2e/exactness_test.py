"""Law 1: a cluster's answers equal the single process' token for token, whatever its shape, block
size, chunk size and transport, whoever else is in the batch, and whether a prefix was cached.

BATON_E2E_FULL=1 runs all 200 requests in every configuration of the whole matrix instead of a
pairwise one; BATON_E2E_SEED chooses other requests.
"""

import concurrent.futures
import itertools
import json
import os
import tempfile
import unittest

import baton_proto
import workload
from cluster import Cluster, run_baton, MODEL

SEED = int(os.environ.get("BATON_E2E_SEED", "20240607"))
FULL = os.environ.get("BATON_E2E_FULL") == "1"

SHAPES = [(1, 1), (2, 1), (1, 2), (3, 2)]
BLOCKS = [8, 16, 32]
CHUNKS = [16, 256]
TRANSPORTS = ["shm", "ucx", "inproc"]

REQUESTS = 200
LONG_LENGTHS = [3000, 2049, 1500, 1024]
FEW = 24 + len(LONG_LENGTHS)  # of them, without the long ones, in each configuration


def pairwise():
    """Every pair of values of two of the four dimensions, in 12 configurations instead of 72."""
    for (i, shape), (j, block) in itertools.product(enumerate(SHAPES), enumerate(BLOCKS)):
        yield shape, block, CHUNKS[(i + j) % 2], TRANSPORTS[(i + j) % 3]


def reference(requests):
    """The answers of `baton run`: one process, one request at a time."""
    with tempfile.NamedTemporaryFile("w", prefix="baton-requests-", suffix=".jsonl") as file:
        for request in requests:
            file.write(json.dumps(request) + "\n")
        file.flush()
        result = run_baton("run", "--model", MODEL, "--requests", file.name, "--json", timeout=900)
    if result.returncode != 0:
        raise AssertionError(f"baton run ended with {result.returncode}: {result.stderr}")
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    if len(answers) != len(requests):
        raise AssertionError(f"{len(answers)} answers to {len(requests)} requests")
    return answers


def cluster_answer(client, request, salt):
    """One streamed answer in the form of `baton run`, with its stats."""
    tokens, text, logprobs, finish = [], "", [], None
    for response in client.generate(tokens=request["tokens"], sampling=request["sampling"],
                                    cache_salt=salt):
        if finish is not None:
            raise AssertionError("something came after the finish")
        if response.HasField("finish"):
            finish = response.finish
            continue
        if response.delta.tokens and response.delta.index != len(tokens):
            raise AssertionError(f"token {response.delta.index} came after {len(tokens)} tokens")
        tokens += response.delta.tokens
        text += response.delta.text
        logprobs += [logprob.logprob for logprob in response.delta.logprobs]
    if finish is None:
        raise AssertionError("the stream ended without a finish")
    reason = {baton_proto.messages.FINISH_REASON_STOP: "stop",
              baton_proto.messages.FINISH_REASON_LENGTH: "length"}[finish.reason]
    return {"output_tokens": tokens, "text": text, "finish_reason": reason, "logprobs": logprobs,
            "usage": (finish.prompt_tokens, finish.output_tokens), "stats": finish.stats}


class ExactnessTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        print(f"seed {SEED}", flush=True)
        cls.requests = workload.requests(SEED, REQUESTS, LONG_LENGTHS + workload.EDGE_LENGTHS)
        cls.expected = reference(cls.requests)

    def assert_equal_answers(self, client, indices, salted=False):
        """All at once; returns the stats by index. `salted`: each is a tenant of its own."""
        def answer_to(index):
            salt = f"tenant {index}" if salted else ""
            return cluster_answer(client, self.requests[index], salt)
        with concurrent.futures.ThreadPoolExecutor(len(indices)) as pool:
            answers = list(pool.map(answer_to, indices))
        stats = {}
        for index, answer in zip(indices, answers):
            request, expected = self.requests[index], self.expected[index]
            with self.subTest(request=index, prompt_tokens=len(request["tokens"]),
                              sampling=request["sampling"]):
                self.assertEqual(answer["output_tokens"], expected["output_tokens"])
                self.assertEqual(answer["text"], expected["text"])
                self.assertEqual(answer["finish_reason"], expected["finish_reason"])
                self.assertEqual(answer["usage"],
                                 (len(request["tokens"]), len(expected["output_tokens"])))
                self.assert_equal_logprobs(answer["logprobs"], expected["logprobs"])
            stats[index] = answer["stats"]
        return stats

    def assert_equal_logprobs(self, found, expected):
        expected = [row["logprob"] for row in expected or []]
        self.assertEqual(len(found), len(expected))
        for one, other in zip(found, expected):
            # Printed in decimal once, kept as 32-bit float on the wire.
            self.assertAlmostEqual(one, other, delta=1e-6 * max(1.0, abs(other)))

    def check_configuration(self, shape, block, chunk, transport, indices):
        prefill, decode = shape
        workers = prefill + decode
        with Cluster.up(prefill, decode, transport=transport, block_tokens=block,
                        chunk_tokens=chunk, threads=2 if workers == 2 else 1) as cluster:
            cold = self.assert_equal_answers(cluster.client, indices)
            self.assert_handed_over(cold, transport)
            cluster.check_idle()
            warm = self.assert_equal_answers(cluster.client, indices)
            self.assertGreater(sum(stats.cached_prompt_tokens for stats in warm.values()), 0,
                               "the second pass found no cached prefix")
            cluster.check_idle()
            few = [i for i in indices if len(self.requests[i]["tokens"]) > 60][:6]
            salted = self.assert_equal_answers(cluster.client, few, salted=True)
            self.assertEqual({one.cached_prompt_tokens for one in salted.values()}, {0})
            self.assertEqual(len({one.prefill_worker for one in cold.values()}), prefill)
            self.assertEqual(len({one.decode_worker for one in cold.values()}), decode)

    def assert_handed_over(self, stats, transport):
        """Prefill and decode were apart, and KV went the way that was asked for."""
        moved = [s for s in stats.values() if s.kv_blocks_moved > 0]
        self.assertGreater(len(moved), 0, "no KV moved")
        for one in moved:
            self.assertNotEqual(one.prefill_worker, one.decode_worker)
            self.assertGreater(one.kv_bytes_moved, 0)
            self.assertTrue(one.transport.startswith(transport), one.transport)

    def test_shapes_blocks_chunks_transports(self):
        if FULL:
            matrix = itertools.product(SHAPES, BLOCKS, CHUNKS, TRANSPORTS)
            indices = list(range(REQUESTS))
        else:
            matrix = pairwise()
            indices = list(range(len(LONG_LENGTHS), FEW))
        for shape, block, chunk, transport in matrix:
            with self.subTest(shape=shape, block=block, chunk=chunk, transport=transport):
                print(f"{shape[0]}x{shape[1]} block {block} chunk {chunk} {transport}", flush=True)
                self.check_configuration(shape, block, chunk, transport, indices)

    def test_200_concurrent_requests(self):
        """Lengths from 1 to 3,000, greedy and sampled, more than the pools hold at once."""
        with Cluster.up(3, 2, threads=1, kv_mb=192) as cluster:
            self.assert_equal_answers(cluster.client, list(range(REQUESTS)))
            cluster.check_idle()

    def test_decode_worker_that_prefills_itself(self):
        """No prefill worker at all: the same answers, and nothing moves."""
        with Cluster.up(0, 1, threads=2) as cluster:
            stats = self.assert_equal_answers(cluster.client, list(range(len(LONG_LENGTHS), FEW)))
            for one in stats.values():
                self.assertEqual((one.kv_blocks_moved, one.transport), (0, ""))
                self.assertEqual(one.prefill_worker, one.decode_worker)

    def test_http_gives_the_same_tokens(self):
        with Cluster.up(1, 1) as cluster:
            for index in range(len(LONG_LENGTHS), FEW):
                request = self.requests[index]
                sampling = {k: v for k, v in request["sampling"].items() if k != "logprobs"}
                status, answer = cluster.client.post("/v1/completions", {
                    "model": cluster.model, "prompt": request["tokens"], "return_token_ids": True,
                    **sampling})
                self.assertEqual(status, 200, answer)
                choice = answer["choices"][0]
                self.assertEqual(choice["token_ids"], self.expected[index]["output_tokens"])
                self.assertEqual(choice["text"], self.expected[index]["text"])
                self.assertEqual(choice["finish_reason"], self.expected[index]["finish_reason"])


if __name__ == "__main__":
    unittest.main()
