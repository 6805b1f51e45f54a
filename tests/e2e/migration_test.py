"""A worker that dies, stops or drains costs time, not answers: streams go on at another worker, and
every one is that of `baton run`: tokens, log probabilities, text up to its stop string. Roles change
and workers restart under load, and no request fails.
"""

import json
import os
import random
import signal
import threading
import unittest

import grpc

import workload
from cluster import Cluster, free_port, reference, run_baton, wait_until
from load import Load

SEED = int(os.environ.get("BATON_E2E_SEED", "20240607"))
MAX_TOKENS = 72
LENGTHS = [40, 300, 17, 128, 90, 220]
# Of one request each; what is drawn depends on earlier output in most.
SAMPLINGS = [
    {"temperature": 0.0, "logprobs": 2},
    {"temperature": 0.0, "repetition_penalty": 1.2, "frequency_penalty": 0.3,
     "bad_words": ["the", "and", ",", "in the"]},
    {"temperature": 1.0, "seed": 11, "presence_penalty": 0.6, "frequency_penalty": 0.4,
     "repetition_penalty": 1.1, "logprobs": 0},
    {"temperature": 0.8, "seed": 7, "top_p": 0.9, "min_tokens": 60},
    {"temperature": 1.0, "seed": 5},  # with a stop string
    {"temperature": 1.2, "seed": 3, "top_k": 50, "logit_bias": {"500": 3.0},
     "allowed_token_ids": list(range(300, 2300))},
]
STOPPED = 4


class Answer:
    """One stream, being read in a thread."""

    def __init__(self, client, request, salt):
        self.request = request
        self.tokens, self.logprobs, self.text = [], [], ""
        self.finish, self.error = None, None
        self._call = client.generate(tokens=request["tokens"], sampling=request["sampling"],
                                     stop=request.get("stop", ()), cache_salt=salt, timeout=120)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self):
        try:
            for response in self._call:
                if response.HasField("finish"):
                    self.finish = response.finish
                    continue
                if response.delta.tokens and response.delta.index != len(self.tokens):
                    raise AssertionError(f"token {response.delta.index} after {len(self.tokens)}")
                self.tokens += response.delta.tokens
                self.logprobs += [one.logprob for one in response.delta.logprobs]
                self.text += response.delta.text
        except grpc.RpcError as error:
            self.error = error

    def join(self):
        self._thread.join(150)
        if self._thread.is_alive():
            raise AssertionError(f"the stream has no end; {len(self.tokens)} tokens came")
        return self


class Fleet(Cluster):
    """Prefill and decode workers on fixed ports, and a router."""

    def __init__(self, prefill=2, decode=2, router=None, **flags):
        super().__init__()
        self.flags = {"kv_mb": 64, "chunk_tokens": 32, **flags}
        names = [f"p{i}" for i in range(prefill)] + [f"d{i}" for i in range(decode)]
        self.addresses = {name: f"127.0.0.1:{free_port()}" for name in names}
        self.workers = {}
        for name in names:
            self.start_one(name)
        router_process = self.start_router(self.addresses.values(), admin="127.0.0.1:0",
                                           **(router or {}))
        self.admin = router_process.wait_ready()["admin"]
        self.wait_for_workers(len(names))

    def start_one(self, name):
        role = "prefill" if name.startswith("p") else "decode"
        self.workers[name], _ = self.start_worker(role, name, listen=self.addresses[name],
                                                  **self.flags)

    def change(self, *arguments):
        """`baton drain` or `baton role`: its result."""
        result = run_baton(*arguments, "--admin", self.admin, "--json")
        if result.returncode != 0:
            raise AssertionError(f"{arguments} ended with {result.returncode}: {result.stderr}")
        return json.loads(result.stdout)

    def lose(self, name):
        self.workers[name].kill()
        self.processes.remove(self.workers.pop(name))


class MigrationTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        print(f"seed {SEED}", flush=True)
        rng = random.Random(SEED)
        cls.requests = [
            {"tokens": [rng.randrange(workload.FIRST_PLAIN_TOKEN, 49152) for _ in range(length)],
             "sampling": {"max_tokens": MAX_TOKENS, "ignore_eos": True, **sampling}}
            for length, sampling in zip(LENGTHS, SAMPLINGS)]
        cls.expected = reference(cls.requests)
        # What ends late, and begins in the midst of a token's text.
        text = cls.expected[STOPPED]["text"]
        cls.stop = next(text[at:at + 9] for at in range(3 * len(text) // 4, len(text))
                        if text.index(text[at:at + 9]) == at)
        cls.requests[STOPPED] = {**cls.requests[STOPPED], "stop": [cls.stop]}

    def start(self, client, salt):
        return [Answer(client, request, salt) for request in self.requests]

    def wait_in_stream(self, answers, tokens=8):
        wait_until(lambda: all(len(answer.tokens) >= tokens for answer in answers), 60,
                   f"{tokens} tokens of every stream")

    def assert_exact(self, answers):
        """How often they moved, all together."""
        for index, answer in enumerate(answers):
            self.assert_exact_one(index, answer)
        return sum(answer.finish.stats.migrations for answer in answers)

    def assert_exact_one(self, index, answer):
        answer.join()
        what = f"request {index}, {len(answer.tokens)} tokens: {answer.error}"
        self.assertIsNone(answer.error, what)
        self.assertIsNotNone(answer.finish, what)
        self.assertEqual(answer.finish.output_tokens, len(answer.tokens), what)
        expected = self.expected[index]
        if index == STOPPED:
            self.assertEqual(answer.text, expected["text"][:expected["text"].index(self.stop)])
            self.assertEqual(answer.tokens, expected["output_tokens"][:len(answer.tokens)])
            self.assertLess(len(answer.tokens), MAX_TOKENS)
            return
        self.assertEqual(answer.tokens, expected["output_tokens"], what)
        self.assertEqual(answer.text, expected["text"], what)
        if "logprobs" in answer.request["sampling"]:
            self.assertEqual(len(answer.logprobs), len(expected["logprobs"]), what)
            for found, row in zip(answer.logprobs, expected["logprobs"]):
                # Printed in decimal once, kept as 32-bit float on the wire.
                self.assertAlmostEqual(found, row["logprob"],
                                       delta=1e-6 * max(1.0, abs(row["logprob"])))

    def test_killed_decode_worker(self):
        with Fleet() as fleet:
            answers = self.start(fleet.client, "killed decode")
            self.wait_in_stream(answers)
            fleet.lose("d0")
            moved = self.assert_exact(answers)
            self.assertGreater(moved, 0)
            self.assertEqual(fleet.client.series_sum("baton_migrations_total", reason="lost"), moved)

    def test_killed_prefill_worker(self):
        """Before its first tokens, and while KV is on its way."""
        with Fleet() as fleet:
            answers = self.start(fleet.client, "killed prefill")
            wait_until(lambda: any(answer.tokens for answer in answers), 60, "a first token")
            fleet.lose("p0")
            self.assert_exact(answers)

    def test_stopped_workers(self):
        """Stopped, not dead: found by their silence; what they do when they go on is dropped."""
        with Fleet(router={"stall_timeout": 1}) as fleet:
            answers = self.start(fleet.client, "stopped decode")
            self.wait_in_stream(answers)
            fleet.workers["d0"].send_signal(signal.SIGSTOP)
            moved = self.assert_exact(answers)
            self.assertGreater(moved, 0)
            fleet.workers["d0"].send_signal(signal.SIGCONT)
            fleet.check_idle(30)
            fleet.workers["p0"].send_signal(signal.SIGSTOP)
            answers = self.start(fleet.client, "stopped prefill")
            self.assert_exact(answers)
            fleet.workers["p0"].send_signal(signal.SIGCONT)
            fleet.check_idle(30)

    def test_without_another_worker_the_stream_waits_for_it(self):
        with Fleet(prefill=0, decode=1, router={"worker_wait": 60}) as fleet:
            answers = self.start(fleet.client, "restarted")
            self.wait_in_stream(answers)
            fleet.lose("d0")
            fleet.start_one("d0")
            self.assertGreater(self.assert_exact(answers), 0)

    def test_drained_worker(self):
        """Its streams move when the grace is over; then it has nothing left, and can be undone."""
        with Fleet() as fleet:
            answers = self.start(fleet.client, "drained")
            self.wait_in_stream(answers)
            result = fleet.change("drain", "d0", "--grace", 0)
            self.assertEqual((result["state"], result["running"], result["transfers"]),
                             ("drained", 0, 0))
            self.assertGreater(self.assert_exact(answers), 0)
            refused = run_baton("drain", "d1", "--admin", fleet.admin)
            self.assertEqual(refused.returncode, 1)
            self.assertIn("is the only decode worker that takes work", refused.stderr)
            self.assertEqual(fleet.change("drain", "d0", "--undo")["state"], "ready")
            unknown = run_baton("drain", "d7", "--admin", fleet.admin)
            self.assertIn("there is no worker 'd7'; did you mean 'd0'?", unknown.stderr)

    def test_roles_change_under_load(self):
        """p1 becomes a decode worker and d0 a prefill worker, in the same processes."""
        with Fleet() as fleet:
            with CheckedLoad(self, fleet.client) as load:
                pids = {name: worker.process.pid for name, worker in fleet.workers.items()}
                fleet.change("role", "p1", "decode", "--grace", 1)
                self.assertEqual(fleet.change("role", "d0", "prefill", "--grace", 1)["role"],
                                 "prefill")
                load.wait_for(6)
                roles = {worker.name: worker.role for worker in fleet.client.fleet()}
                self.assertEqual(roles, {"p0": "prefill", "p1": "decode", "d0": "prefill",
                                         "d1": "decode"})
            self.assertIn("p1", {stats.decode_worker for stats in load.stats[-6:]})
            for name, worker in fleet.workers.items():
                self.assertEqual(worker.process.pid, pids[name])
            fleet.check_idle_for_sure()
            # Idle, it takes no time: weights and KV pool stay as they are.
            self.assertLess(fleet.change("role", "d0", "decode")["seconds"], 2)

    def test_rolling_restart(self):
        """Every worker in turn, by SIGTERM, under load: no request fails."""
        with Fleet(drain_grace=0) as fleet:
            with CheckedLoad(self, fleet.client) as load:
                for name in list(fleet.workers):
                    self.assertEqual(fleet.workers[name].stop(), 0)
                    self.assertEqual(fleet.workers[name].process.returncode, 0)
                    fleet.lose(name)
                    fleet.start_one(name)
                    fleet.wait_for_workers(len(fleet.addresses))
            self.assertGreater(len(load.stats), 0)


class CheckedLoad(Load):
    """Streams, each of which is checked."""

    THREADS = 3

    def __init__(self, test, client):
        self._test, self._client = test, client
        self.stats = []
        super().__init__(self.THREADS)

    def ask(self, index, turn):
        which = (index + turn * self.THREADS) % len(self._test.requests)
        answer = Answer(self._client, self._test.requests[which], f"load {index} {turn}")
        self._test.assert_exact_one(which, answer)
        self.stats.append(answer.finish.stats)
        return True


if __name__ == "__main__":
    unittest.main()
