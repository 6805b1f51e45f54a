"""Router and prefill worker on one side of a network, decode worker on the other: two network
namespaces with a veth pair between them, made here and torn with nft. Needs root; skipped, with the
reason, where namespaces cannot be made.

    test's client ── 198.51.100.0/30 ── [near: router, p0] ── 192.0.2.0/30 ── [far: d0]
"""

import concurrent.futures
import contextlib
import os
import subprocess
import time
import unittest

import grpc

import faults_test
from cluster import Cluster, wait_until

# The addresses are for documentation (RFC 5737): no network that this machine is in uses them.
NEAR, FAR = f"baton-{os.getpid()}-near", f"baton-{os.getpid()}-far"
CLIENT_LINK, NEAR_LINK, FAR_LINK = (f"bt{os.getpid()}{end}" for end in "cnf")
PORTS = {"http": "198.51.100.2:8000", "grpc": "198.51.100.2:8001", "p0": "127.0.0.1:8100",
         "d0": "192.0.2.2:8100"}

# Well within what the connections of router and workers bear (worker_link/limits.h), and longer.
SHORT_PARTITION_S = 2
LONG_PARTITION_S = 14
SHORT_HEAL_DEADLINE_S = 15
HEAL_DEADLINE_S = 60

# Shorter than the long partition; waits that are no fault on a machine that is busy, too.
TIMES = {"kv_lease": 2, "kv_ready_timeout": 2, "kv_offer_timeout": 5, "kv_offer_wait": 20}
IDLE_DEADLINE_S = 10


def command(line, **arguments):
    result = subprocess.run(line.split(), capture_output=True, text=True, timeout=30, **arguments)
    if result.returncode != 0:
        raise RuntimeError(f"{line}: {result.stderr.strip()}")


def make_network():
    command(f"ip netns add {NEAR}")
    command(f"ip netns add {FAR}")
    command(f"ip link add {CLIENT_LINK} type veth peer name client netns {NEAR}")
    command(f"ip -n {NEAR} link add {NEAR_LINK} type veth peer name {FAR_LINK} netns {FAR}")
    command(f"ip addr add 198.51.100.1/30 dev {CLIENT_LINK}")
    command(f"ip link set {CLIENT_LINK} up")
    for namespace, link, address in ((NEAR, "client", "198.51.100.2/30"),
                                     (NEAR, NEAR_LINK, "192.0.2.1/30"),
                                     (FAR, FAR_LINK, "192.0.2.2/30")):
        command(f"ip -n {namespace} addr add {address} dev {link}")
        command(f"ip -n {namespace} link set {link} up")
        command(f"ip -n {namespace} link set lo up")
    command(f"ip netns exec {NEAR} nft add table inet faults")


def remove_network():
    for namespace in (NEAR, FAR):
        with contextlib.suppress(RuntimeError):
            command(f"ip netns del {namespace}")
    with contextlib.suppress(RuntimeError):
        command(f"ip link del {CLIENT_LINK}")


@contextlib.contextmanager
def dropping(condition):
    """Packets between near and far for which the nft `condition` holds are dropped, both ways."""
    nft = f"ip netns exec {NEAR} nft"
    rules = "".join(f"""
        add chain inet faults {hook} {{ type filter hook {hook} priority 0; }}
        add rule inet faults {hook} {way} {NEAR_LINK} {condition} drop
        """ for hook, way in (("input", "iifname"), ("output", "oifname")))
    command(f"{nft} -f -", input=rules)
    try:
        yield
    finally:
        command(f"{nft} flush table inet faults")


class NetworkFaultsTest(faults_test.FaultsTest):
    @classmethod
    def setUpClass(cls):
        if os.geteuid() != 0:
            raise unittest.SkipTest("network namespaces need root")
        cls.addClassCleanup(remove_network)
        try:
            make_network()
        except (RuntimeError, FileNotFoundError) as error:
            raise unittest.SkipTest(f"no network namespaces here: {error}") from None
        super().setUpClass()
        cls.cluster = Cluster()
        flags = {"kv_mb": 64, "chunk_tokens": 64, "transport": "ucx", **TIMES}
        cls.cluster.start_worker("prefill", "p0", listen=PORTS["p0"], namespace=NEAR, **flags)
        cls.cluster.start_worker("decode", "d0", listen=PORTS["d0"], namespace=FAR, insecure=True,
                                 **flags)
        cls.cluster.start_router([PORTS["p0"], PORTS["d0"]], http=PORTS["http"], grpc=PORTS["grpc"],
                                 insecure=True, namespace=NEAR)
        cls.cluster.wait_for_workers(2)

    @classmethod
    def tearDownClass(cls):
        with cls.cluster:
            pass

    def assert_moves_kv(self, salt):
        for stats in self.assert_all_exact(self.cluster.client, salt):
            self.assertEqual((stats.transport, stats.decode_worker), ("ucx tcp", "d0"))
            self.assertGreater(stats.kv_blocks_moved, 0)

    def wait_until_kv_moves(self, salt, deadline_s):
        """TCP tries again ever more rarely; until it does, the decode worker prefills."""
        tries = iter(range(1000))

        def moves_kv():
            answer = faults_test.Answer(self.cluster.client, self.requests[0],
                                        f"{salt}, try {next(tries)}").read()
            self.assert_exact(0, answer)
            return answer.finish.stats.kv_blocks_moved > 0

        wait_until(moves_kv, deadline_s, f"KV moves {salt}")

    def answers_through_partition(self, salt, delay_s, length_s):
        with concurrent.futures.ThreadPoolExecutor(len(self.requests)) as pool:
            futures = self.start_answers(pool, self.cluster.client, salt)
            time.sleep(delay_s)
            with dropping(""):
                time.sleep(length_s)
            return [future.result() for future in futures]

    def test_kv_crosses_the_network(self):
        self.assert_moves_kv("quiet")

    def test_a_short_partition_costs_only_time(self):
        for delay_s in (0.05, 0.3, 0.8):
            with self.subTest(delay_s=delay_s):
                answers = self.answers_through_partition(f"short {delay_s}", delay_s,
                                                         SHORT_PARTITION_S)
                for index, answer in enumerate(answers):
                    self.assert_exact(index, answer)
                self.cluster.check_idle(IDLE_DEADLINE_S)
        self.wait_until_kv_moves("after short ones", SHORT_HEAL_DEADLINE_S)
        self.assert_moves_kv("after short ones")

    def test_a_long_partition_is_a_lost_worker(self):
        answers = self.answers_through_partition("long", 0.3, LONG_PARTITION_S)
        for index, answer in enumerate(answers):
            if answer.error is None:
                self.assert_exact(index, answer)
            else:
                self.assertEqual(answer.error.code(), grpc.StatusCode.UNAVAILABLE,
                                 answer.describe())
                self.assertEqual(answer.tokens, self.expected[index][:len(answer.tokens)])
        self.cluster.wait_for_workers(2)
        self.cluster.check_idle(IDLE_DEADLINE_S)
        self.wait_until_kv_moves("after a long one", HEAL_DEADLINE_S)
        self.assert_moves_kv("after a long one")

    def test_random_loss_costs_only_time(self):
        with dropping("numgen random mod 100 < 5"):
            self.assert_all_exact(self.cluster.client, "lossy")
            self.cluster.check_idle(IDLE_DEADLINE_S)
        self.wait_until_kv_moves("after loss", SHORT_HEAL_DEADLINE_S)
        self.assert_moves_kv("after loss")


if __name__ == "__main__":
    unittest.main()
