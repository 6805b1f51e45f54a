"""Where requests go: conversations to the workers that hold them, short prompts past long ones."""

import concurrent.futures
import random
import time
import unittest

from cluster import VOCAB_SIZE, Cluster, reference, wait_until

BLOCK_TOKENS = 16
ANSWER_TOKENS = 24
GREEDY = {"temperature": 0.0, "max_tokens": ANSWER_TOKENS, "ignore_eos": True}
SESSIONS = 4
TURNS = 3
ANSWER_TOLD_S = 0.3  # by when routers know what an answer has left in the caches


def some_tokens(rng, count):
    return [rng.randrange(20, VOCAB_SIZE) for _ in range(count)]


class ConversationTest(unittest.TestCase):
    """2 prefill and 2 decode workers, conversations of several turns side by side."""

    def setUp(self):
        seed = random.randrange(1 << 32)
        print(f"conversations of seed {seed}")
        self.rng = random.Random(seed)

    def turn(self, client, history):
        responses = list(client.generate(tokens=history, sampling=GREEDY))
        tokens = [token for response in responses for token in response.delta.tokens]
        self.assertEqual(len(tokens), ANSWER_TOKENS)
        return tokens, responses[-1].finish.stats

    def converse(self, cluster):
        """Every turn's (prompt, answer, stats, tokens that some worker held of its prompt)."""
        turns = []
        common = some_tokens(self.rng, 200)
        histories = [common + some_tokens(self.rng, 40 + 30 * i) for i in range(SESSIONS)]
        held = [0] * SESSIONS
        with concurrent.futures.ThreadPoolExecutor(SESSIONS) as pool:
            for turn in range(TURNS):
                answers = list(pool.map(lambda one: self.turn(cluster.client, one), histories))
                for i, (tokens, stats) in enumerate(answers):
                    turns.append((histories[i], tokens, stats, held[i]))
                    # The prompt's full blocks, which a prefill worker keeps.
                    held[i] = len(histories[i]) // BLOCK_TOKENS * BLOCK_TOKENS
                    histories[i] = histories[i] + tokens + some_tokens(self.rng, 30 + 10 * turn)
                time.sleep(ANSWER_TOLD_S)
        return turns

    def check(self, **flags):
        with Cluster.up(2, 2, threads=1, **flags) as cluster:
            turns = self.converse(cluster)
            hits = cluster.client.series_sum("vllm:prefix_cache_hits_total")
            asked = cluster.client.series_sum("vllm:prefix_cache_queries_total")
            known = cluster.client.series_sum("baton_prefix_index_entries")
        expected = reference([{"tokens": prompt, "sampling": GREEDY} for prompt, *_ in turns])
        for (prompt, tokens, _, _), one in zip(turns, expected):
            self.assertEqual(tokens, list(one["output_tokens"]), f"{len(prompt)} tokens")
        cached = sum(stats.cached_prompt_tokens for _, _, stats, _ in turns)
        could_be = sum(held for *_, held in turns)
        print(f"{cached} of {could_be} tokens that some prefill worker held were cached "
              f"({cached / could_be:.1%}), of {asked:.0f} in all")
        self.assertGreaterEqual(cached, 0.95 * could_be)
        self.assertEqual(hits, cached)
        self.assertGreater(known, 0)
        return turns

    def test_prefill_workers_are_found_again(self):
        turns = self.check(local_uncached_tokens=0)
        self.assertTrue(all(stats.kv_blocks_moved > 0 for _, _, stats, _ in turns))

    def test_so_are_decode_workers_that_do_what_is_left_themselves(self):
        turns = self.check(local_uncached_tokens=256)
        # The first turns, of which nobody holds anything, go to prefill workers.
        for _, _, stats, _ in turns[:SESSIONS]:
            self.assertNotEqual(stats.prefill_worker, stats.decode_worker)


class LongPromptTest(unittest.TestCase):
    def test_a_long_prompt_does_not_hold_up_short_ones(self):
        rng = random.Random(1)
        long = {"tokens": some_tokens(rng, 7500), "sampling": {**GREEDY, "max_tokens": 1}}
        with Cluster.up(1, 1, threads=1) as cluster:
            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                running = pool.submit(lambda: list(cluster.client.generate(**long)))
                wait_until(lambda: any(worker.running for worker in cluster.client.fleet()), 20,
                           "the long prompt runs")
                for _ in range(3):
                    short = {"tokens": some_tokens(rng, 40), "sampling": {**GREEDY, "max_tokens": 1}}
                    self.assertTrue(list(cluster.client.generate(**short))[-1].HasField("finish"))
                self.assertFalse(running.done(), "the short ones were answered first")
                self.assertTrue(running.result()[-1].HasField("finish"))


if __name__ == "__main__":
    unittest.main()
