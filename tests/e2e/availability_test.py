"""Several routers that share nothing but workers and discovery, behind HAProxy and nginx: workers come
and go by etcd, etcd goes and comes back, a router is killed, routers and workers are restarted one
after the other. What is answered is what `baton run` answers, and what fails is what has to."""

import http.client
import json
import signal
import threading
import time
import unittest

import grpc

import baton_proto
from cluster import (MODEL, Client, Cluster, free_port, is_idle, reference, run_baton,
                     wait_until)
from load import Load
from services import Etcd, Haproxy, Nginx, is_ready, router_of

PREFIX = "/e2e/"
MODEL_NAME = "smol"
PROMPTS = [[100 + 7 * i + j for j in range(24 + 9 * i)] for i in range(4)]
SHORT, MIDDLE, LONG = 12, 80, 200
SEEDED = {"temperature": 0.9, "seed": 77, "top_p": 0.95, "frequency_penalty": 0.2}


class Broken(Exception):
    """A stream that had begun and has no end."""


BROKEN = (Broken, http.client.IncompleteRead, ConnectionError)


class HttpStream:
    """One answer of /v1/completions through a balancer, being read in a thread."""

    def __init__(self, address, prompt, tokens, stream=True, model=MODEL_NAME):
        self.text, self.error, self.router = "", None, None
        self.events = 0
        self._arguments = (address, prompt, tokens, stream, model)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        try:
            self._read(*self._arguments)
        except (Broken, AssertionError, OSError, http.client.HTTPException, ValueError) as error:
            self.error = error

    def _read(self, address, prompt, tokens, stream, model):
        body = {"model": model, "prompt": prompt, "max_tokens": tokens, "temperature": 0,
                "ignore_eos": True, "stream": stream}
        connection = http.client.HTTPConnection(address, timeout=120)
        try:
            connection.request("POST", "/v1/completions", json.dumps(body).encode(),
                               {"Content-Type": "application/json"})
            response = connection.getresponse()
            if response.status != 200:
                raise AssertionError(f"{response.status}: {response.read()!r}")
            self.router = router_of(response.getheader("x-request-id"))
            if not stream:
                self.text = json.load(response)["choices"][0]["text"]
                return
            for line in response:
                if line.startswith(b"data: [DONE]"):
                    return
                if line.startswith(b"data: "):
                    self.text += json.loads(line[6:])["choices"][0]["text"]
                    self.events += 1
            raise Broken(f"no end after {self.events} events")
        finally:
            connection.close()

    def join(self):
        self._thread.join(150)
        if self._thread.is_alive():
            raise AssertionError(f"no end; {self.events} events came")
        return self


class ResumingCall:
    """A gRPC client as docs/api.md describes it: goes on at the next address with what it has."""

    def __init__(self, addresses, prompt, sampling):
        self.tokens, self.text, self.finish = [], "", None
        self.breaks, self.error = [], None
        self._addresses = addresses
        self._request = baton_proto.generate_request(tokens=prompt, sampling=sampling)
        self._request.resumable = True
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        try:
            for turn in range(10):
                address = self._addresses[turn % len(self._addresses)]
                with grpc.insecure_channel(address) as channel:
                    try:
                        self._follow(baton_proto.stub(channel))
                        return
                    except grpc.RpcError as error:
                        self.breaks.append(error.code())
                del self._request.resume_tokens[:]
                self._request.resume_tokens.extend(self.tokens)
            raise AssertionError(f"broken off ten times: {self.breaks}")
        except AssertionError as error:
            self.error = error

    def _follow(self, stub):
        for response in stub.Generate(self._request, timeout=120):
            if response.HasField("started"):
                self._request.sampling.seed = response.started.seed
            elif response.HasField("finish"):
                self.finish = response.finish
            else:
                if response.delta.tokens and response.delta.index != len(self.tokens):
                    raise AssertionError(f"token {response.delta.index} after {len(self.tokens)}")
                self.tokens += response.delta.tokens
                self.text += response.delta.text

    def join(self):
        self._thread.join(150)
        if self._thread.is_alive():
            raise AssertionError(f"no end; {len(self.tokens)} tokens came")
        return self


class BalancedLoad(Load):
    """Short requests through both balancers. None may fail, but streams that had begun at the router
    `killed`, and answers in one piece that were under way when it was: a balancer that sees its
    connection reset, not closed, does not ask the other router."""

    def __init__(self, test):
        self._test = test
        self.routers = set()
        self.killed = None
        self.killed_at = None
        self._kinds = [(address, stream) for address in (test.haproxy.http, test.nginx.http)
                       for stream in (False, True)]
        super().__init__(len(self._kinds))

    def ask(self, index, turn):
        address, stream = self._kinds[index]
        which = turn % len(PROMPTS)
        begun = time.monotonic()
        answer = HttpStream(address, PROMPTS[which], SHORT, stream).join()
        expected = self._test.expected_text(which, SHORT)
        if stream and answer.router and answer.router == self.killed and isinstance(
                answer.error, BROKEN):
            return False
        under_way = self.killed_at is not None and begun < self.killed_at
        if not stream and under_way and "502" in str(answer.error):
            return False
        if answer.error or answer.text != expected:
            raise AssertionError(f"{address}, stream {stream}: {answer.error!r} {answer.text!r}, "
                                 f"not {expected!r}")
        self.routers.add(answer.router)
        return True


class AvailabilityTest(unittest.TestCase):
    """One fleet, found by etcd, and two routers; the tests leave it as they found it."""

    @classmethod
    def setUpClass(cls):
        cls.addClassCleanup(cls.close)
        cls.services, cls.cluster, cls.routers, cls.clients = [], Cluster(), {}, {}
        cls.etcd = cls.serve(Etcd())
        cls.workers = {}
        cls.addresses = {}
        for name in ("p0", "d0", "d1"):
            cls.launch_worker(name)
        cls.http = [f"127.0.0.1:{free_port()}" for _ in range(2)]
        cls.grpc = [f"127.0.0.1:{free_port()}" for _ in range(2)]
        cls.admin = [f"127.0.0.1:{free_port()}" for _ in range(2)]
        cls.file = f"{cls.etcd.directory.name}/workers"
        cls.write_file([])
        for index in range(2):
            cls.start_router(index)
        cls.haproxy = cls.serve(Haproxy(list(zip(cls.http, cls.grpc))))
        cls.nginx = cls.serve(Nginx(list(zip(cls.http, cls.grpc))))
        asked = [(which, SHORT) for which in range(len(PROMPTS))]
        asked += [(0, MIDDLE), (0, LONG), (1, LONG)]
        requests = [{"tokens": PROMPTS[which], "sampling": {
            "max_tokens": tokens, "ignore_eos": True, "temperature": 0.0}}
                    for which, tokens in asked]
        requests.append({"tokens": PROMPTS[0],
                         "sampling": {"max_tokens": LONG, "ignore_eos": True, **SEEDED}})
        answers = reference(requests)
        cls.seeded = answers.pop()
        cls.expected = dict(zip(asked, answers))
        for name in cls.workers:
            cls.workers[name].wait_ready()
        cls.wait_for({"p0", "d0", "d1"})
        for balancer in (cls.haproxy, cls.nginx):
            wait_until(lambda: balancer.answers(), 30, "the balancer answers")

    @classmethod
    def close(cls):
        for client in cls.clients.values():
            client.close()
        for service in reversed(cls.services):
            service.close()
        cls.cluster.kill()

    @classmethod
    def tearDownClass(cls):
        """SIGTERM to all, routers first: they end with 0."""
        for process in [*cls.routers.values(), *cls.workers.values()]:
            code = process.stop()
            if code != 0:
                raise AssertionError(f"{process} ended with {code}\n{process.log_tail()}")

    def tearDown(self):
        wait_until(lambda: all(is_idle(worker) for worker in self.clients[0].fleet()), 20,
                   "all blocks are free or cached")

    @classmethod
    def serve(cls, service):
        cls.services.append(service)
        return service

    def run(self, result=None):
        before = len(result.failures) + len(result.errors)
        super().run(result)
        if len(result.failures) + len(result.errors) > before:
            self.cluster.print_logs()
            for service in self.services:
                service.print_log()
        return result

    @classmethod
    def launch_worker(cls, name, etcd=True):
        role = "prefill" if name.startswith("p") else "decode"
        cls.addresses[name] = f"127.0.0.1:{free_port()}"
        flags = ["--etcd", cls.etcd.url, "--etcd-prefix", PREFIX, "--etcd-ttl", "2"] if etcd else []
        cls.workers[name] = cls.cluster.start(
            "worker", "--role", role, "--name", name, "--listen", cls.addresses[name], "--model",
            MODEL, "--kv-mb", "128", "--threads", "1", "--drain-grace", "0", *flags)

    @classmethod
    def start_router(cls, index):
        """With its addresses; an earlier one there has ended."""
        cls.routers[index] = cls.cluster.start(
            "router", "--model", MODEL, "--served-model-name", MODEL_NAME, "--name",
            f"router-{index}", "--http", cls.http[index], "--grpc", cls.grpc[index], "--admin",
            cls.admin[index], "--etcd", cls.etcd.url, "--etcd-prefix", PREFIX, "--workers-file",
            cls.file, "--drain-delay", "2")
        cls.routers[index].wait_ready()
        if index in cls.clients:
            cls.clients[index].close()
        cls.clients[index] = Client(cls.http[index], cls.grpc[index])

    @classmethod
    def write_file(cls, addresses):
        with open(cls.file, "w", encoding="utf-8") as file:
            file.write("".join(f"{address}\n" for address in addresses))

    @classmethod
    def fleet(cls, index):
        """{name: state} at a router."""
        return {worker.name: worker.state for worker in cls.clients[index].fleet()}

    @classmethod
    def wait_for(cls, names, routers=(0, 1)):
        """These, and no others, are ready at the routers."""
        for index in routers:
            wait_until(lambda: cls.fleet(index) == {name: "ready" for name in names}, 60,
                       f"router {index} has {names}")

    @staticmethod
    def id_of(address):
        connection = http.client.HTTPConnection(address, timeout=10)
        try:
            connection.request("GET", "/health")
            return router_of(connection.getresponse().getheader("x-request-id"))
        finally:
            connection.close()

    def registered(self):
        """{name: what its key says}"""
        values = map(json.loads, self.etcd.get(PREFIX).values())
        return {value["name"]: value for value in values}

    def expected_text(self, which, tokens):
        return self.expected[which, tokens]["text"]

    def forget(self, process):
        """One that has ended: the cluster's end does not look for it."""
        self.cluster.processes.remove(process)
        process.kill()

    def change(self, index, *arguments):
        result = run_baton(*arguments, "--admin", self.admin[index], "--json")
        self.assertEqual(result.returncode, 0, result.stderr)
        return json.loads(result.stdout)

    # Discovery.

    def test_what_is_registered_is_what_the_worker_is(self):
        """A drain and a change of role, told to one router, are seen by the other and in etcd."""
        found = self.registered()
        self.assertEqual({name: value["role"] for name, value in found.items()},
                         {"p0": "prefill", "d0": "decode", "d1": "decode"})
        self.assertEqual(found["d0"]["address"], self.addresses["d0"])
        self.change(0, "drain", "d1")
        wait_until(lambda: self.registered()["d1"]["draining"], 10, "d1 is registered as draining")
        wait_until(lambda: self.fleet(1)["d1"] == "drained", 10, "the other router sees the drain")
        self.change(1, "drain", "d1", "--undo")
        wait_until(lambda: not self.registered()["d1"]["draining"], 10, "d1 is registered as ready")
        self.change(1, "role", "d1", "prefill")
        wait_until(lambda: self.registered()["d1"]["role"] == "prefill", 10, "d1's role")
        self.change(0, "role", "d1", "decode")
        wait_until(lambda: self.registered()["d1"]["role"] == "decode", 10, "d1's role")
        self.wait_for({"p0", "d0", "d1"})

    def test_etcd_dies_and_comes_back_while_traffic_flows(self):
        def current(value):
            return [client.series_sum("baton_discovery_current", source="etcd")
                    for client in self.clients.values()] == [value, value]
        with BalancedLoad(self) as load:
            self.etcd.kill()
            wait_until(lambda: current(0), 60, "both routers say that etcd is away")
            self.launch_worker("d2")  # comes while it is away
            self.workers["d2"].wait_ready()
            load.wait_for(8)
            source = self.clients[0].stub.GetFleet(
                baton_proto.messages.GetFleetRequest(), timeout=10).discovery[1]
            self.assertEqual((source.source, source.where, source.current, source.workers),
                             ("etcd", PREFIX, False, 3))
            self.assertIn("UNAVAILABLE", source.trouble)
            self.assertEqual(self.fleet(0), {"p0": "ready", "d0": "ready", "d1": "ready"})
            self.etcd.start()
            wait_until(lambda: current(1), 60, "both routers say that etcd is back")
            self.wait_for({"p0", "d0", "d1", "d2"})
            load.wait_for(4)
        # Killed, it is gone when its lease has ended, from etcd and from the routers.
        self.forget(self.workers.pop("d2"))
        self.wait_for({"p0", "d0", "d1"})
        wait_until(lambda: "d2" not in self.registered(), 30, "its key is gone")

    def test_workers_by_dns(self):
        port = self.addresses["d0"].split(":")[1]
        router = self.cluster.start("router", "--model", MODEL, "--http", "127.0.0.1:0", "--grpc",
                                    "127.0.0.1:0", "--workers", f"dns:localhost:{port}")
        ready = router.wait_ready()
        client = Client(ready["http"], ready["grpc"])
        wait_until(lambda: ("d0", "ready") in [(worker.name, worker.state)
                                               for worker in client.fleet()], 30, "d0 is found")
        answer = HttpStream(ready["http"], PROMPTS[0], SHORT, model=None).join()
        self.assertEqual((answer.error, answer.text), (None, self.expected_text(0, SHORT)))
        client.close()
        self.assertEqual(router.stop(), 0)
        self.forget(router)

    # Routers.

    def test_a_router_is_killed_under_load(self):
        """What it answers over HTTP breaks off, and nothing else: the other answers what comes then,
        and gRPC clients go on where they were."""
        sampling = {"max_tokens": LONG, "ignore_eos": True}
        with BalancedLoad(self) as load:
            load.wait_for(8)
            self.assertEqual(len(load.routers), 2, "both routers are used")
            streams = [HttpStream(balancer.http, PROMPTS[i], LONG) for i in range(2)
                       for balancer in (self.haproxy, self.nginx)]
            wait_until(lambda: streams[0].router, 60, "the first stream runs")
            killed = streams[0].router
            victim = [self.id_of(address) for address in self.http].index(killed)
            direct = [self.grpc[victim], self.grpc[1 - victim]]
            calls = [ResumingCall(addresses, PROMPTS[0], {**sampling, **options})
                     for addresses in (direct, [self.haproxy.grpc], [self.nginx.grpc])
                     for options in ({"temperature": 0.0}, SEEDED)]
            wait_until(lambda: all(stream.events > 4 for stream in streams)
                       and all(len(call.tokens) > 4 for call in calls), 90, "all streams run")
            load.killed, load.killed_at = killed, time.monotonic()
            self.forget(self.routers[victim])
            for index, stream in enumerate(streams):
                stream.join()
                if stream.router == killed:
                    self.assertIsInstance(stream.error, BROKEN)
                    self.assertTrue(self.expected_text(index // 2, LONG).startswith(stream.text))
                else:
                    self.assertIsNone(stream.error)
                    self.assertEqual(stream.text, self.expected_text(index // 2, LONG))
            for index, call in enumerate(calls):
                call.join()
                self.assertIsNone(call.error)
                expected = self.seeded if index % 2 else self.expected[0, LONG]
                self.assertEqual(call.tokens, expected["output_tokens"])
                self.assertEqual(call.text, expected["text"])
                self.assertEqual(call.finish.output_tokens, LONG)
            self.assertEqual([len(call.breaks) for call in calls[:2]], [1, 1])
            self.assertIsNotNone(streams[0].error)
            load.wait_for(4)
            self.start_router(victim)  # finds all by itself
            self.wait_for({"p0", "d0", "d1"})
            load.routers.clear()
            wait_until(lambda: len(load.routers) == 2, 60, "both routers are used again")

    def test_routers_restart_one_after_the_other(self):
        """SIGTERM: /ready says 503 while requests are still taken; streams end whole; none fails."""
        with BalancedLoad(self) as load:
            for index in range(2):
                streams = [HttpStream(balancer.http, PROMPTS[0], MIDDLE) for _ in range(2)
                           for balancer in (self.haproxy, self.nginx)]
                wait_until(lambda: all(stream.events > 4 for stream in streams), 60, "streams run")
                router = self.routers[index]
                router.send_signal(signal.SIGTERM)
                wait_until(lambda: not is_ready(self.http[index]), 10, "it is not ready")
                taken = HttpStream(self.http[index], PROMPTS[1], SHORT, stream=False).join()
                self.assertEqual((taken.error, taken.text), (None, self.expected_text(1, SHORT)))
                for stream in streams:
                    stream.join()
                    self.assertEqual((stream.error, stream.text), (None, self.expected_text(0, MIDDLE)))
                self.assertEqual(router.process.wait(60), 0, router.log_tail())
                self.forget(router)
                self.start_router(index)
                self.wait_for({"p0", "d0", "d1"})
                load.wait_for(4)

    # Workers.

    def test_workers_are_replaced_by_the_workers_file(self):
        """A new worker is written into the file, then the old one is taken out of it and ended."""
        self.launch_worker("d3", etcd=False)
        self.workers["d3"].wait_ready()
        self.write_file([self.addresses["d3"]])
        self.wait_for({"p0", "d0", "d1", "d3"})
        with BalancedLoad(self) as load:
            stream = HttpStream(self.haproxy.http, PROMPTS[0], LONG)
            self.launch_worker("d4", etcd=False)
            self.workers["d4"].wait_ready()
            self.write_file([self.addresses["d4"]])
            self.wait_for({"p0", "d0", "d1", "d4"})
            self.assertEqual(self.workers["d3"].stop(), 0)
            self.forget(self.workers.pop("d3"))
            load.wait_for(4)
            stream.join()
            self.assertEqual((stream.error, stream.text), (None, self.expected_text(0, LONG)))
            self.write_file([])
            self.wait_for({"p0", "d0", "d1"})
            self.assertEqual(self.workers["d4"].stop(), 0)
            self.forget(self.workers.pop("d4"))


if __name__ == "__main__":
    unittest.main()
