"""What a running cluster tells of its KV: paths, handoffs, conversions, fetched prefixes."""

import concurrent.futures
import random
import time
import unittest

from cluster import STATUS_INTERVAL_S, Cluster, wait_until

ANSWER = {"temperature": 0.0, "max_tokens": 4, "ignore_eos": True}
PREFIX_TOKENS = 1600  # a multiple of the block size, but for the last token
FILLER_TOKENS = 4000


class MetricsTest(unittest.TestCase):
    """p0 and p1 have blocks of 16 tokens, d0 of 32: every handoff is converted."""

    @classmethod
    def setUpClass(cls):
        cls.cluster = cluster = Cluster()
        cls.p0, p0 = cluster.start_worker("prefill", "p0")
        _, p1 = cluster.start_worker("prefill", "p1")
        _, d0 = cluster.start_worker("decode", "d0", block_tokens=32)
        cluster.start_router([p0, p1, d0])
        cluster.wait_for_workers(3)
        cls.client = cluster.client

    @classmethod
    def tearDownClass(cls):
        with cls.cluster:
            pass

    def answer(self, tokens, salt=""):
        last = list(self.client.generate(tokens=tokens, sampling=ANSWER, cache_salt=salt))[-1]
        return last.finish.stats

    def value_of(self, name, **labels):
        """Of the only one of its kind."""
        found = [value for has, value in self.client.series(name) if labels.items() <= has.items()]
        self.assertEqual(len(found), 1, f"{name} {labels} in {self.client.series(name)}")
        return found[0]

    def have_a_prefix_fetched(self):
        """p0 has the prefix, and is busy with the filler when it is wanted again."""
        rng = random.Random(1)
        prefix = [rng.randrange(100, 40000) for _ in range(PREFIX_TOKENS + 1)]
        # It begins alike, so that p0 gets it.
        filler = prefix[:400] + [rng.randrange(100, 40000) for _ in range(FILLER_TOKENS)]
        self.assertEqual(self.answer(prefix).prefill_worker, "p0")
        time.sleep(1.5 * STATUS_INTERVAL_S)  # until its speed is known
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            busy = pool.submit(self.answer, filler)
            wait_until(lambda: any(worker.running for worker in self.client.fleet()), 10,
                       "the filler runs")
            stats = self.answer(prefix)
            self.assertEqual(busy.result().prefill_worker, "p0")
        self.assertEqual((stats.prefill_worker, stats.cached_prompt_tokens), ("p1", PREFIX_TOKENS))

    def check_paths(self):
        pairs = {("p0", "d0"), ("p1", "d0"), ("p0", "p1")}
        for source, target in pairs:
            ways = {"source": source, "target": target}
            in_use = {labels["transport"]: value for labels, value
                      in self.client.series("baton_kv_path_in_use") if ways.items() <= labels.items()}
            self.assertEqual(set(in_use), {"shm", "ucx tcp"}, "both were measured")
            self.assertEqual(sorted(in_use.values()), [0, 1])
            for transport in in_use:
                measured = self.value_of("baton_kv_path_bytes_per_second", transport=transport,
                                         **ways)
                expected = self.value_of("baton_kv_path_expected_bytes_per_second",
                                         transport=transport, **ways)
                self.assertTrue(1e6 < measured < 1e12, measured)
                self.assertTrue(1e8 < expected < 1e12, expected)
        self.assertEqual({(labels["source"], labels["target"]) for labels, _
                          in self.client.series("baton_kv_path_in_use")}, pairs)
        fleet = {(path.source, worker.name, path.transport): round(path.bytes_per_s)
                 for worker in self.client.fleet() for path in worker.paths}
        self.assertEqual(fleet, {(labels["source"], labels["target"], labels["transport"]): round(value)
                                 for labels, value
                                 in self.client.series("baton_kv_path_bytes_per_second")})

    def check_counters(self):
        # The second answer to the prefix finds most of its KV at d0.
        self.assertEqual(self.value_of("baton_worker_handoffs_total", worker="d0", result="ok"), 3)
        self.assertEqual(self.value_of("baton_worker_handoffs_total", worker="d0",
                                       result="failed"), 0)
        self.assertEqual(self.value_of("baton_kv_conversions_total", worker="d0"), 3)
        self.assertEqual(self.client.series_sum("baton_kv_checksum_mismatches_total"), 0)
        self.assertEqual(self.value_of("baton_prefix_fetches_total", worker="p1", result="ok"), 1)
        self.assertEqual(self.client.series_sum("baton_prefix_fetches_total"), 1)
        self.assertEqual(self.value_of("baton_prefix_fetched_tokens_total", worker="p1"),
                         PREFIX_TOKENS)
        self.assertGreater(self.value_of("baton_prefix_fetched_bytes_total", worker="p1"),
                           PREFIX_TOKENS * 1000)
        self.assertEqual(self.client.series_sum("baton_handoff_seconds_count"), 3)
        total, moving, exposed = (self.client.series_sum(f"baton_handoff{part}_seconds_sum")
                                  for part in ("", "_moving", "_exposed"))
        self.assertTrue(0 <= exposed <= moving < total, f"{exposed} {moving} {total}")

    def check_that_a_worker_takes_its_series_along(self):
        self.assertEqual(self.p0.stop(), 0)
        def lines_of_p0():
            return [line for line in self.client.metrics().splitlines() if '"p0"' in line]
        wait_until(lambda: not lines_of_p0(), 10, "the series of p0 and of paths from it are gone")
        self.assertEqual({labels["source"] for labels, _
                          in self.client.series("baton_kv_path_in_use")}, {"p1"})

    def test_paths_handoffs_and_prefixes(self):
        self.have_a_prefix_fetched()
        time.sleep(1.5 * STATUS_INTERVAL_S)
        self.check_paths()
        self.check_counters()
        self.check_that_a_worker_takes_its_series_along()


if __name__ == "__main__":
    unittest.main()
