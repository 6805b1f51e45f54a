"""Processes come and go in any order; a drain loses no answer."""

import signal
import threading
import unittest

import grpc

from cluster import Cluster, free_port, wait_until

LONG = {"temperature": 0.0, "max_tokens": 600, "ignore_eos": True}
SHORT = {"temperature": 0.0, "max_tokens": 4, "ignore_eos": True}


class Stream:
    """A long answer being read in a thread; `error` and `tokens` tell how it went."""

    def __init__(self, client, sampling=None):
        self.sampling = sampling or LONG
        self.tokens, self.error, self.finish = [], None, None
        self.started = threading.Event()
        self._call = client.generate(tokens=[500] * 60, sampling=self.sampling)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self):
        try:
            for response in self._call:
                if response.HasField("finish"):
                    self.finish = response.finish
                else:
                    self.tokens += response.delta.tokens
                    if len(self.tokens) > 3:
                        self.started.set()
        except grpc.RpcError as error:
            self.error = error
        self.started.set()

    def wait_started(self):
        if not self.started.wait(60) or self.error:
            raise AssertionError(f"the stream did not start: {self.error}")
        return self

    def join(self, deadline_s=120):
        self._thread.join(deadline_s)
        if self._thread.is_alive():
            raise AssertionError(f"the stream has no end; {len(self.tokens)} tokens came")

    def assert_complete(self):
        self.join()
        if self.error or len(self.tokens) != self.sampling["max_tokens"] or not self.finish:
            raise AssertionError(f"{len(self.tokens)} tokens, finish {self.finish}, "
                                 f"error {self.error}")


class LifecycleTest(unittest.TestCase):
    def answer(self, cluster):
        responses = list(cluster.client.generate(tokens=[600] * 40, sampling=SHORT))
        self.assertEqual(responses[-1].finish.output_tokens, 4)
        return responses[-1].finish.stats

    def test_router_first(self):
        """Workers that come after the router are found; /ready tells."""
        with Cluster() as cluster:
            addresses = [f"127.0.0.1:{free_port()}" for _ in range(2)]
            cluster.start_router(addresses)
            self.assertEqual(cluster.client.request("GET", "/health")[0], 200)
            self.assertEqual(cluster.client.request("GET", "/ready")[0], 503)
            cluster.start_worker("prefill", "p0", listen=addresses[0])
            cluster.start_worker("decode", "d0", listen=addresses[1])
            cluster.wait_for_workers(2)
            self.assertEqual(cluster.client.request("GET", "/ready")[0], 200)
            stats = self.answer(cluster)
            self.assertEqual((stats.prefill_worker, stats.decode_worker), ("p0", "d0"))

    def test_a_request_waits_for_the_first_worker(self):
        with Cluster() as cluster:
            address = f"127.0.0.1:{free_port()}"
            cluster.start_router([address])
            stream = Stream(cluster.client, SHORT)
            cluster.start_worker("decode", "d0", listen=address)
            stream.assert_complete()

    def test_workers_first_and_two_routers(self):
        with Cluster() as cluster:
            _, prefill = cluster.start_worker("prefill", "p0")
            _, decode = cluster.start_worker("decode", "d0")
            for _ in range(2):
                cluster.start_router([prefill, decode])
                cluster.wait_for_workers(2)
                self.answer(cluster)

    def test_worker_leaves_and_another_comes(self):
        """SIGTERM to a worker with a running stream: the stream ends whole, the worker with 0, and
        new requests go elsewhere."""
        with Cluster() as cluster:
            spare = f"127.0.0.1:{free_port()}"
            _, prefill = cluster.start_worker("prefill", "p0")
            first, decode = cluster.start_worker("decode", "d0", drain_grace=600)
            cluster.start_router([prefill, decode, spare])
            cluster.wait_for_workers(2)
            stream = Stream(cluster.client).wait_started()
            cluster.start_worker("decode", "d1", listen=spare)
            cluster.wait_for_workers(3)
            first.send_signal(signal.SIGTERM)
            wait_until(lambda: [w for w in cluster.client.fleet()
                                if w.name == "d0" and w.state != "ready"], 10, "d0 drains")
            self.assertEqual(self.answer(cluster).decode_worker, "d1")
            stream.assert_complete()
            self.assertEqual(stream.finish.stats.decode_worker, "d0")
            self.assertEqual(first.process.wait(30), 0, first.log_tail())

    def test_prefill_worker_restarts_on_its_address(self):
        with Cluster() as cluster:
            process, prefill = cluster.start_worker("prefill", "p0")
            _, decode = cluster.start_worker("decode", "d0")
            cluster.start_router([prefill, decode])
            cluster.wait_for_workers(2)
            self.assertEqual(self.answer(cluster).prefill_worker, "p0")
            self.assertEqual(process.stop(), 0)
            cluster.wait_for_workers(1)
            self.assertEqual(self.answer(cluster).prefill_worker, "d0")
            cluster.start_worker("prefill", "p0-again", listen=prefill)
            cluster.wait_for_workers(2)
            self.assertEqual(self.answer(cluster).prefill_worker, "p0-again")

    def test_router_drains(self):
        """SIGTERM to the router: the running stream ends whole, a new one is refused."""
        with Cluster() as cluster:
            _, prefill = cluster.start_worker("prefill", "p0")
            _, decode = cluster.start_worker("decode", "d0")
            router = cluster.start_router([prefill, decode])
            cluster.wait_for_workers(2)
            stream = Stream(cluster.client).wait_started()
            router.send_signal(signal.SIGTERM)
            with self.assertRaises(grpc.RpcError) as caught:
                while router.running():
                    list(cluster.client.generate(tokens=[5], sampling=SHORT, timeout=30))
            self.assertEqual(caught.exception.code(), grpc.StatusCode.UNAVAILABLE)
            stream.assert_complete()
            self.assertEqual(router.process.wait(30), 0, router.log_tail())
            cluster.start_router([prefill, decode])
            cluster.wait_for_workers(2)
            self.answer(cluster)

    def test_up_drains(self):
        """SIGTERM and SIGINT to `baton up`: running streams end whole, then it ends with 0."""
        for number in (signal.SIGTERM, signal.SIGINT):
            with self.subTest(signal=number):
                cluster = Cluster.up(1, 1)
                try:
                    streams = [Stream(cluster.client).wait_started() for _ in range(2)]
                    self.assertEqual(cluster.processes[0].stop(number), 0,
                                     cluster.processes[0].log_tail())
                    for stream in streams:
                        stream.assert_complete()
                finally:
                    cluster.kill()

    def test_the_only_decode_worker_killed_is_an_error_not_a_hang(self):
        with Cluster() as cluster:
            _, prefill = cluster.start_worker("prefill", "p0")
            doomed, decode = cluster.start_worker("decode", "d0")
            cluster.start_router([prefill, decode], worker_wait=1)
            cluster.wait_for_workers(2)
            stream = Stream(cluster.client).wait_started()
            doomed.kill()
            cluster.processes.remove(doomed)
            stream.join(60)
            self.assertIsNotNone(stream.error)
            self.assertEqual(stream.error.code(), grpc.StatusCode.UNAVAILABLE)
            cluster.check_idle()
            cluster.start_worker("decode", "d1", listen=decode)
            cluster.wait_for_workers(2)
            self.assertEqual(self.answer(cluster).decode_worker, "d1")


if __name__ == "__main__":
    unittest.main()
