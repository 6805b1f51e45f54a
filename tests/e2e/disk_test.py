"""KV on disk: what the pool has forgotten, a restart has not. Every token equals `baton run`'s."""

import pathlib
import random
import re
import tempfile
import unittest

from cluster import MODEL, VOCAB_SIZE, Cluster, free_port, reference, run_baton, wait_until

PROMPTS = 4
PROMPT_TOKENS = 600
POOL_MB = 24  # 68 blocks of 16 tokens: one prompt and most of another
GREEDY = {"temperature": 0.0, "max_tokens": 12, "ignore_eos": True}
BLOCK_BYTES = 368640


def prompts(seed):
    rng = random.Random(seed)
    return [{"tokens": [rng.randrange(20, VOCAB_SIZE) for _ in range(PROMPT_TOKENS + index)],
             "sampling": GREEDY} for index in range(PROMPTS)]


class DiskTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        seed = random.randrange(1 << 32)
        print(f"prompts of seed {seed}")
        cls.requests = prompts(seed)
        cls.expected = reference(cls.requests)

    def setUp(self):
        directory = tempfile.TemporaryDirectory(prefix="baton-kv-disk-")
        self.addCleanup(directory.cleanup)
        self.directory = pathlib.Path(directory.name)
        self.address = f"127.0.0.1:{free_port()}"

    def start_prefill(self, cluster, **flags):
        flags = {"kv_mb": POOL_MB, "kv_disk": self.directory, "kv_disk_gb": 0.125, **flags}
        return cluster.start_worker("prefill", "p0", listen=self.address, **flags)[0]

    def start_rest(self, cluster):
        _, decode = cluster.start_worker("decode", "d0")
        cluster.start_router([self.address, decode])
        cluster.wait_for_workers(2)

    def events(self, cluster):
        """What the disk cache has counted, as the router tells it."""
        return {name: float(count) for name, count in re.findall(
            r'baton_kv_disk_events_total\{worker="p0",event="(\w+)"\} (\d+)',
            cluster.client.metrics())}

    def answer_all(self, cluster):
        """The prompts one after the other: how many of their tokens were cached."""
        cached = 0
        for request, expected in zip(self.requests, self.expected):
            responses = list(cluster.client.generate(**request))
            tokens = [token for response in responses for token in response.delta.tokens]
            self.assertEqual(tokens, list(expected["output_tokens"]))
            stats = responses[-1].finish.stats
            self.assertEqual(stats.prefill_worker, "p0", "the decode worker did not compute it")
            cached += stats.cached_prompt_tokens
        return cached

    def restart(self, cluster, process, kill=False):
        if kill:
            process.kill()
            cluster.processes.remove(process)
        else:
            self.assertEqual(process.stop(), 0, process.log_tail())
        wait_until(lambda: cluster.ready_workers() == 1, 10, "p0 is lost")
        process = self.start_prefill(cluster)
        cluster.wait_for_workers(2)
        return process

    def test_goes_on_with_what_the_pool_has_forgotten_and_over_a_restart(self):
        with Cluster() as cluster:
            process = self.start_prefill(cluster)
            self.start_rest(cluster)
            self.assertEqual(self.answer_all(cluster), 0)
            cluster.check_idle_for_sure()
            self.assertGreater(self.answer_all(cluster), 0.9 * PROMPTS * PROMPT_TOKENS)
            cluster.check_idle_for_sure()
            events = self.events(cluster)
            self.assertGreater(events["written"], 0.9 * PROMPTS * PROMPT_TOKENS / 16)
            self.assertGreater(events["read"], 0)
            self.restart(cluster, process)
            self.assertGreater(self.answer_all(cluster), 0.9 * PROMPTS * PROMPT_TOKENS)
            cluster.check_idle_for_sure()
            events = self.events(cluster)
            self.assertGreater(events["read"], 0.9 * PROMPTS * PROMPT_TOKENS / 16)
            self.assertEqual((events["written"], events["damaged"]), (0, 0))
            self.assertEqual((self.directory / "p0.kvcache").stat().st_mode & 0o777, 0o600)

    def test_damage_and_a_kill_cost_time_not_the_answer(self):
        with Cluster() as cluster:
            process = self.start_prefill(cluster)
            self.start_rest(cluster)
            self.answer_all(cluster)
            process = self.restart(cluster, process, kill=True)  # perhaps while it writes
            self.answer_all(cluster)
            cluster.check_idle_for_sure()
            self.assertEqual(process.stop(), 0)
            path = self.directory / "p0.kvcache"
            with path.open("r+b") as file:  # in the midst of every other block, whatever is there
                for offset in range(BLOCK_BYTES, path.stat().st_size, 2 * BLOCK_BYTES):
                    file.seek(offset)
                    file.write(b"damage")
            wait_until(lambda: cluster.ready_workers() == 1, 10, "p0 is lost")
            self.start_prefill(cluster)
            cluster.wait_for_workers(2)
            self.answer_all(cluster)
            cluster.check_idle_for_sure()
            self.assertGreater(self.events(cluster)["damaged"], 0)

    def test_kv_of_another_format_is_not_taken(self):
        with Cluster() as cluster:
            process = self.start_prefill(cluster, kv_dtype="int8")
            self.start_rest(cluster)
            for request in self.requests:
                list(cluster.client.generate(**request))
            cluster.check_idle_for_sure()
            process = self.restart(cluster, process)
            self.assertEqual(self.answer_all(cluster), 0)
            self.assertIn("is started over", process.log_tail(1000))

    def test_says_why_it_cannot_start(self):
        def refusal(*flags):
            result = run_baton("worker", "--model", MODEL, "--threads", 1, *flags)
            self.assertIn(result.returncode, (1, 2))
            return result.stderr
        prefill = ("--role", "prefill", "--name", "p0")
        self.assertIn("No such file or directory",
                      refusal(*prefill, "--kv-disk", self.directory / "missing"))
        self.assertIn("--kv-disk is of prefill workers",
                      refusal("--role", "decode", "--kv-disk", self.directory))
        self.assertIn("bytes are free",
                      refusal(*prefill, "--kv-disk", self.directory, "--kv-disk-gb", 100000))
        (self.directory / "p0.kvcache").write_text("somebody's notes")
        self.assertIn("is not a KV disk cache", refusal(*prefill, "--kv-disk", self.directory))
        self.assertEqual((self.directory / "p0.kvcache").read_text(), "somebody's notes")
        (self.directory / "p0.kvcache").unlink()
        with Cluster() as cluster:
            self.start_prefill(cluster)
            self.start_rest(cluster)
            self.assertIn("in use by another process",
                          refusal(*prefill, "--kv-disk", self.directory))


if __name__ == "__main__":
    unittest.main()
