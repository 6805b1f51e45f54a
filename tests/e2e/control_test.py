"""Live control on real processes: four workers, and traffic whose mix changes. The router moves the
ratio after it, both ways, and no request fails; every answer is whole.
"""

import http.client
import json
import os
import pathlib
import random
import tempfile
import threading
import time
import unittest
from unittest import mock

import workload
from cluster import MODEL, Cluster, run_baton, wait_until
from services import Etcd

CONTROL = {"control": "act", "control_every": 0.5, "control_confirm": 2, "control_cooldown": 1,
           "control_grace": 1, "control_enough": 1e6, "control_least_requests": 8, "ttft_slo": 100}
CLIENTS = 6
ANSWERS = {"prompt_tokens": 16, "output_tokens": 400}  # one prefill worker suffices by far
DEADLINE_S = 90


class Fleet(Cluster):
    def __init__(self, prefill, decode, **control):
        super().__init__()
        names = [f"p{i}" for i in range(prefill)] + [f"d{i}" for i in range(decode)]
        addresses = []
        for name in names:
            role = "prefill" if name.startswith("p") else "decode"
            addresses.append(self.start_worker(role, name, kv_mb=192, chunk_tokens=64)[1])
        self.addresses = addresses
        self.router = self.add_router(**control)

    def add_router(self, **control):
        """Another one; the client and the plan are that one's from now on."""
        router = self.start_router(self.addresses, admin="127.0.0.1:0", **control)
        self.admin = router.wait_ready()["admin"]
        with self._killed_on_error():
            self.wait_for_workers(len(self.addresses))
        return router

    def plan(self):
        connection = http.client.HTTPConnection(self.admin, timeout=30)
        connection.request("GET", "/admin/plan")
        response = connection.getresponse()
        body = response.read()
        connection.close()
        return response.status, json.loads(body)

    def roles(self):
        """(prefill, decode) workers that take work."""
        ready = [worker for worker in self.client.fleet() if worker.state == "ready"]
        return tuple(sum(worker.role == role for worker in ready) for role in ("prefill", "decode"))

    def wait_for_roles(self, prefill, decode):
        end = time.monotonic() + DEADLINE_S
        while self.roles() != (prefill, decode):
            if time.monotonic() > end:
                raise AssertionError(f"{self.roles()} and not {prefill}:{decode} after "
                                     f"{DEADLINE_S} s: {json.dumps(self.plan()[1])}")
            time.sleep(0.1)


class Traffic:
    """Clients that ask one after the other until they are told to stop."""

    def __init__(self, client, prompt_tokens, output_tokens):
        self.prompt_tokens, self.output_tokens = prompt_tokens, output_tokens
        self.client, self.failures, self.answers = client, [], 0
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._threads = [threading.Thread(target=self._ask, args=(seed,), daemon=True)
                         for seed in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def _ask(self, seed):
        rng = random.Random(seed)
        while not self._stop.is_set():
            prompt = [rng.randrange(workload.FIRST_PLAIN_TOKEN, 49152)
                      for _ in range(self.prompt_tokens)]
            tokens, finish, error = 0, None, None
            try:
                for response in self.client.generate(
                        tokens=prompt, timeout=120,
                        sampling={"max_tokens": self.output_tokens, "ignore_eos": True}):
                    if response.HasField("finish"):
                        finish = response.finish
                    else:
                        tokens += len(response.delta.tokens)
            except Exception as failed:  # noqa: BLE001: whatever it is, the test says it
                error = failed
            with self._lock:
                self.answers += 1
                if error or finish is None or tokens != self.output_tokens:
                    self.failures.append(f"{tokens} tokens, {finish}, {error}")

    def stop(self):
        self._stop.set()
        for thread in self._threads:
            thread.join(150)
        return self.failures


class ScalingTest(unittest.TestCase):
    """`baton up` starts and stops workers as its router's live control says."""

    def test_starts_workers_where_flips_do_not_help_and_stops_them(self):
        directory = tempfile.TemporaryDirectory(prefix="baton-e2e-up-")
        self.addCleanup(directory.cleanup)
        # A prompt has twice what it takes alone: six at a time wait longer, whoever of two prefills.
        control = {**CONTROL, "control_most_workers": 3, "control_least_prefill": 1}
        del control["ttft_slo"]
        with mock.patch.dict(os.environ, TMPDIR=directory.name):
            cluster = Cluster.up(1, 1, admin="127.0.0.1:0", threads=1, kv_mb=128, chunk_tokens=64,
                                 **control)
        with cluster:
            traffic = Traffic(cluster.client, prompt_tokens=400, output_tokens=2)
            wait_until(lambda: cluster.ready_workers() == 3, DEADLINE_S, "a worker is started")
            # As when it would have decided otherwise.
            replicas = next(pathlib.Path(directory.name).glob("baton-up-*/replicas"))
            more = dict(line.split() for line in replicas.read_text().splitlines())
            self.assertEqual(more, {"prefill": "2", "decode": "1"})
            started = {worker.name for worker in cluster.client.fleet()} - {"prefill-0", "decode-0"}
            self.assertEqual(traffic.stop(), [])
            traffic = Traffic(cluster.client, prompt_tokens=16, output_tokens=8)
            replicas.with_name("new").write_text("prefill 1\ndecode 1\n")
            replicas.with_name("new").rename(replicas)
            wait_until(lambda: cluster.ready_workers() == 2, DEADLINE_S, "a worker is stopped")
            left = {worker.name for worker in cluster.client.fleet() if worker.state == "ready"}
            self.assertEqual(len(started), 1)
            self.assertTrue(left.isdisjoint(started), f"{started} was the newest; {left} are left")
            self.assertEqual(traffic.stop(), [])


class ControlTest(unittest.TestCase):
    def test_the_ratio_follows_the_traffic_and_no_request_fails(self):
        with Fleet(2, 2, **CONTROL) as fleet:
            begin = time.monotonic()
            traffic = Traffic(fleet.client, **ANSWERS)
            fleet.wait_for_roles(1, 3)
            first_s = time.monotonic() - begin
            self.assertEqual(traffic.stop(), [])
            begin = time.monotonic()
            traffic = Traffic(fleet.client, prompt_tokens=900, output_tokens=2)
            fleet.wait_for_roles(2, 2)
            second_s = time.monotonic() - begin
            self.assertEqual(traffic.stop(), [])
            print(f"after {first_s:.1f} s and {second_s:.1f} s", flush=True)
            status, plan = fleet.plan()
            self.assertEqual(status, 200)
            self.assertEqual(plan["mode"], "act")
            changes = plan["changes"]
            self.assertGreaterEqual(len(changes), 2)
            self.assertTrue(all(change["outcome"] == "done" for change in changes), changes)
            self.assertEqual([(change["new_prefill"], change["new_decode"])
                              for change in reversed(changes)][:2], [(1, 3), (2, 2)])
            self.assertIn("carries", changes[0]["reason"])
            self.assertGreater(plan["model"]["decode_step_8x1000_s"], 0)
            fleet.check_idle(30)

    def test_of_two_routers_one_acts_and_the_other_when_that_is_killed(self):
        etcd = Etcd()
        self.addCleanup(etcd.close)
        flags = {**CONTROL, "etcd": etcd.url, "control_lease": 2}
        with Fleet(2, 2, **flags) as fleet:
            wait_until(lambda: fleet.plan()[1]["leads"], 60, "the first router leads")
            fleet.add_router(**flags)
            wait_until(lambda: fleet.plan()[1]["leader"], 60, "the second knows it")
            self.assertFalse(fleet.plan()[1]["leads"])
            traffic = Traffic(fleet.client, **ANSWERS)
            wait_until(lambda: fleet.plan()[1]["changes"], DEADLINE_S, "a decision")
            self.assertIn("left to", fleet.plan()[1]["changes"][0]["outcome"])
            self.assertEqual(fleet.roles(), (2, 2))
            fleet.router.kill()
            fleet.processes.remove(fleet.router)
            fleet.wait_for_roles(1, 3)
            self.assertEqual(traffic.stop(), [])
            self.assertTrue(fleet.plan()[1]["leads"])

    def test_advice_changes_nothing_and_off_has_no_plan(self):
        with Fleet(2, 2, **{**CONTROL, "control": "advise"}) as fleet:
            traffic = Traffic(fleet.client, **ANSWERS)
            wait_until(lambda: fleet.plan()[1]["changes"], DEADLINE_S, "an advice")
            self.assertEqual(traffic.stop(), [])
            change = fleet.plan()[1]["changes"][0]
            self.assertEqual((change["outcome"], change["action"]), ("advised", "flip"))
            self.assertEqual(fleet.roles(), (2, 2))
        with Fleet(0, 1) as fleet:
            self.assertEqual(fleet.plan()[0], 404)

    def test_flags_that_make_no_sense(self):
        for flags, expected in [
                (["--control", "act", "--control-most-workers", "9"], "--control-scale"),
                (["--control", "maybe"], "--control"),
                (["--control", "act", "--ttft-slo", "nan"], "--ttft-slo"),
                (["--control", "act", "--control-scale", "kubernetes", "--kube-api", "x"],
                 "API server")]:
            result = run_baton("router", "--model", MODEL, "--workers", "127.0.0.1:1", *flags)
            self.assertNotEqual(result.returncode, 0, flags)
            self.assertIn(expected, result.stderr, flags)


if __name__ == "__main__":
    unittest.main()
