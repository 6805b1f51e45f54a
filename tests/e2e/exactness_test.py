"""Law 1: a cluster's answers equal the single process' token for token, whatever its shape, block
size, chunk size and transport, whoever else is in the batch, and whether a prefix was cached.

BATON_E2E_FULL=1 runs all 200 requests in every configuration of the whole matrix instead of a
pairwise one; BATON_E2E_SEED chooses other requests.
"""

import concurrent.futures
import contextlib
import itertools
import os
import time
import unittest

import baton_proto
import workload
from cluster import Cluster, reference, wait_until, STATUS_INTERVAL_S

SEED = int(os.environ.get("BATON_E2E_SEED", "20240607"))
FULL = os.environ.get("BATON_E2E_FULL") == "1"

SHAPES = [(1, 1), (2, 1), (1, 2), (3, 2)]
BLOCKS = [8, 16, 32]
CHUNKS = [16, 256]
TRANSPORTS = [{"transport": "shm"}, {"transport": "ucx"}, {"transport": "inproc"}]
UCX_SHARED_MEMORY = {"transport": "ucx", "ucx_tls": "posix,self"}

REQUESTS = 200
LONG_LENGTHS = [3000, 2049, 1500, 1024]
FEW = 24 + len(LONG_LENGTHS)  # of them, without the long ones, in each configuration


def pairwise():
    """Every pair of values of two of the four dimensions, in 12 configurations instead of 72."""
    for (i, shape), (j, block) in itertools.product(enumerate(SHAPES), enumerate(BLOCKS)):
        yield shape, block, CHUNKS[(i + j) % 2], TRANSPORTS[(i + j) % 3]


@contextlib.contextmanager
def unlike_workers(prefill, decode, **both):
    """One prefill and one decode worker with flags of their own."""
    with Cluster() as cluster:
        workers = [cluster.start_worker(role, f"{role}-0", **flags, **both)[1]
                   for role, flags in (("prefill", prefill), ("decode", decode))]
        cluster.start_router(workers)
        cluster.wait_for_workers(2)
        yield cluster


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

    def check_configuration(self, shape, block, chunk, way, indices):
        prefill, decode = shape
        workers = prefill + decode
        with Cluster.up(prefill, decode, block_tokens=block, chunk_tokens=chunk,
                        threads=2 if workers == 2 else 1, **way) as cluster:
            cold = self.assert_equal_answers(cluster.client, indices)
            self.assert_handed_over(cold, way["transport"])
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

    def check_matrix(self, matrix, indices):
        for shape, block, chunk, way in matrix:
            with self.subTest(shape=shape, block=block, chunk=chunk, **way):
                print(f"{shape[0]}x{shape[1]} block {block} chunk {chunk} "
                      f"{' '.join(way.values())}", flush=True)
                self.check_configuration(shape, block, chunk, way, indices)

    def test_shapes_blocks_chunks_transports(self):
        if FULL:
            self.check_matrix(itertools.product(SHAPES, BLOCKS, CHUNKS, TRANSPORTS),
                              list(range(REQUESTS)))
        else:
            self.check_matrix(pairwise(), list(range(len(LONG_LENGTHS), FEW)))

    def test_ucx_over_its_own_shared_memory(self):
        self.check_matrix([((2, 1), 16, 256, UCX_SHARED_MEMORY), ((1, 2), 8, 16, UCX_SHARED_MEMORY)],
                          list(range(REQUESTS) if FULL else range(len(LONG_LENGTHS), FEW)))

    def test_unlike_block_sizes(self):
        """KV is converted where it arrives, and not a bit of an answer changes."""
        indices = list(range(len(LONG_LENGTHS), FEW))
        for from_tokens, to_tokens, way in [(8, 32, "shm"), (32, 8, "ucx")]:
            with self.subTest(blocks=f"{from_tokens} to {to_tokens}", way=way):
                with unlike_workers({"block_tokens": from_tokens}, {"block_tokens": to_tokens},
                                    transport=way) as cluster:
                    cold = self.assert_equal_answers(cluster.client, indices)
                    self.assert_handed_over(cold, way)
                    cluster.check_idle()
                    warm = self.assert_equal_answers(cluster.client, indices)
                    self.assertGreater(sum(s.cached_prompt_tokens for s in warm.values()), 0)

    def test_unlike_kv_formats(self):
        """The first token is the one that `baton run` gives with the prefill worker's format; the
        rest, over converted KV, is the same each time, cached prefix or not."""
        indices = list(range(len(LONG_LENGTHS), FEW))
        expected = reference([self.requests[i] for i in indices], "--kv-dtype", "f32")
        with unlike_workers({"kv_dtype": "f32", "block_tokens": 8}, {"kv_dtype": "int8"},
                            transport="shm") as cluster:
            def answer_to(index):
                return cluster_answer(cluster.client, self.requests[index], "")
            for index, right in zip(indices, expected):
                with self.subTest(request=index):
                    cold, warm = answer_to(index), answer_to(index)
                    self.assert_handed_over({index: cold["stats"]}, "shm")
                    self.assertEqual(cold["output_tokens"][:1], right["output_tokens"][:1])
                    self.assertEqual(warm["output_tokens"], cold["output_tokens"])
                    self.assertEqual(warm["finish_reason"], cold["finish_reason"])

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

    def test_a_prefix_that_another_prefill_worker_has_is_fetched(self):
        """While the worker that has it is busy with a long prompt, the other one takes the request,
        and its KV from there; the answer is the same."""
        request = next(r for r in self.requests if len(r["tokens"]) == LONG_LENGTHS[-1])
        # It begins alike, so that the same worker gets it.
        filler = {**request, "tokens": request["tokens"][:512] + self.requests[0]["tokens"]}
        with Cluster.up(2, 1, threads=1) as cluster:
            first = cluster_answer(cluster.client, request, "")
            time.sleep(1.5 * STATUS_INTERVAL_S)  # until its speed is known
            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                busy = pool.submit(cluster_answer, cluster.client, filler, "")
                wait_until(lambda: any(worker.running for worker in cluster.client.fleet()), 10,
                           "the long prompt runs")
                second = cluster_answer(cluster.client, request, "")
                self.assertEqual(busy.result()["stats"].prefill_worker,
                                 first["stats"].prefill_worker)
            self.assertEqual(second["output_tokens"], first["output_tokens"])
            self.assertEqual(second["text"], first["text"])
            self.assertNotEqual(second["stats"].prefill_worker, first["stats"].prefill_worker)
            self.assertGreaterEqual(second["stats"].cached_prompt_tokens, LONG_LENGTHS[-1] - 32)

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
