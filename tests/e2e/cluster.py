"""Real `baton` processes for the end-to-end tests: started, waited for, talked to, checked and
ended. Nothing here survives the test process."""

import contextlib
import http.client
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time
import unittest

os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"  # children here are other programs at once
import grpc  # noqa: E402

import baton_proto  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
BATON = pathlib.Path(os.environ.get("BATON_E2E_BINARY", ROOT / "build/release/baton")).resolve()
MODEL = ROOT / "models/SmolLM2-135M-Instruct.Q4_1.gguf"
CONTEXT_TOKENS = 8192
VOCAB_SIZE = 49152

START_DEADLINE_S = 60
STOP_DEADLINE_S = 30
IDLE_DEADLINE_S = 5
STATUS_INTERVAL_S = 1.0  # how often workers report when nothing changes


def environment():
    """Without BATON_ variables: they are flags, and these tests give their own."""
    return {name: value for name, value in os.environ.items() if not name.startswith("BATON_")}


def run_baton(*arguments, timeout=120, stdin=None):
    """One command to its end: subprocess.CompletedProcess with text output."""
    return subprocess.run([BATON, *map(str, arguments)], cwd=ROOT, env=environment(), text=True,
                          stdin=stdin or subprocess.DEVNULL, capture_output=True, timeout=timeout)


def reference(requests, *flags):
    """The answers of `baton run`: one process, one request at a time."""
    with tempfile.NamedTemporaryFile("w", prefix="baton-requests-", suffix=".jsonl") as file:
        for request in requests:
            file.write(json.dumps(request) + "\n")
        file.flush()
        result = run_baton("run", "--model", MODEL, "--requests", file.name, "--json", *flags,
                           timeout=900)
    if result.returncode != 0:
        raise AssertionError(f"baton run ended with {result.returncode}: {result.stderr}")
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    if len(answers) != len(requests):
        raise AssertionError(f"{len(answers)} answers to {len(requests)} requests")
    return answers


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(condition, deadline_s, what):
    """Polls `condition` until it is true; the last value it gave is in the error."""
    end = time.monotonic() + deadline_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {deadline_s} s: {what}; last seen: {value!r}")
        time.sleep(0.02)


class Process:
    """One `baton` process that prints a `ready key=value ...` line and runs until it is told."""

    def __init__(self, *arguments, namespace=None):
        """`namespace`: a network namespace to run in, by its name."""
        self.arguments = [str(argument) for argument in arguments]
        self.log = tempfile.NamedTemporaryFile(mode="w+", prefix="baton-e2e-", suffix=".log")
        # Not nsenter: UCX looks for network devices in /sys, which ip mounts anew.
        enter = ["ip", "netns", "exec", namespace] if namespace else []
        # setpriv, not preexec_fn: with that, Python forks, and gRPC's threads, of which the child
        # has none, abort it now and then.
        self.process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *enter, BATON, *self.arguments], cwd=ROOT,
            env=environment(), text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=self.log)
        self._lines = []
        self._output_ended = threading.Event()
        threading.Thread(target=self._read_output, daemon=True).start()

    def _read_output(self):
        for line in self.process.stdout:
            self._lines.append(line.rstrip("\n"))
        self._output_ended.set()

    def wait_ready(self):
        """The values of the ready line as a dict."""
        def ready_line():
            if self.process.poll() is not None:
                raise AssertionError(f"{self} ended with {self.process.returncode} at its start")
            return next((line for line in self._lines if line.startswith("ready ")), None)
        line = wait_until(ready_line, START_DEADLINE_S, f"{self} is ready")
        return dict(re.findall(r"(\w+)=(.*?)(?= \w+=|$)", line))

    def __str__(self):
        return "baton " + " ".join(self.arguments)

    def log_tail(self, lines=60):
        with open(self.log.name, encoding="utf-8", errors="replace") as log:
            return "".join(["--- log of ", str(self), "\n", *log.readlines()[-lines:]])

    def running(self):
        return self.process.poll() is None

    def stopped(self):
        """By SIGSTOP."""
        return _state(self.process.pid) == "T"

    def send_signal(self, number):
        self.process.send_signal(number)

    def stop(self, number=signal.SIGTERM):
        """Asks it to end, and gives its exit code. Its own children must be gone too."""
        children = descendants(self.process.pid)
        if self.running():
            self.send_signal(number)
        try:
            code = self.process.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self} still runs {STOP_DEADLINE_S} s after signal {number}\n"
                                 f"{self.log_tail()}") from None
        wait_until(lambda: not any(map(_alive, children)), 5, f"the children of {self} end")
        return code

    def kill(self):
        if self.running():
            for pid in descendants(self.process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.kill()
        self.process.wait()
        self._output_ended.wait(5)
        self.process.stdout.close()
        self.log.close()


def descendants(pid):
    found = []
    with contextlib.suppress(FileNotFoundError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as children:
                for child in map(int, children.read().split()):
                    found += [child, *descendants(child)]
    return found


def _state(pid):
    """As in /proc: "R", "S", "T" stopped, "Z" a zombie; None when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return None


def _alive(pid):
    return _state(pid) not in (None, "Z")


class Client:
    """Talks to a router over both front ends."""

    def __init__(self, http_address, grpc_address):
        self.http_address = http_address
        self.channel = grpc.insecure_channel(grpc_address)
        self.stub = baton_proto.stub(self.channel)

    def close(self):
        self.channel.close()

    def connection(self, timeout=120):
        return http.client.HTTPConnection(self.http_address, timeout=timeout)

    def request(self, method, path, body=None, timeout=120, headers=None):
        """(status, parsed JSON or text). `body` is bytes, or anything for JSON."""
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        connection = self.connection(timeout)
        try:
            connection.request(method, path, body,
                               {"Content-Type": "application/json", **(headers or {})})
            response = connection.getresponse()
            text = response.read().decode()
        finally:
            connection.close()
        if response.getheader("Content-Type", "").startswith("application/json"):
            return response.status, json.loads(text)
        return response.status, text

    def post(self, path, body, **more):
        return self.request("POST", path, body, **more)

    def open_stream(self, path, body):
        """(connection, iterator of parsed events). Closing the connection ends the request."""
        connection = self.connection()
        connection.request("POST", path, json.dumps({**body, "stream": True}).encode(),
                           {"Content-Type": "application/json"})
        response = connection.getresponse()
        if response.status != 200:
            raise AssertionError(f"{path} answered {response.status}: {response.read()!r}")
        return connection, _events(response)

    def generate(self, tokens=None, timeout=300, **more):
        """Streams one answer over gRPC: the iterator of GenerateResponse."""
        request = baton_proto.generate_request(tokens=tokens, **more)
        return self.stub.Generate(request, timeout=timeout)

    def fleet(self):
        return list(self.stub.GetFleet(baton_proto.messages.GetFleetRequest(), timeout=10).workers)

    def metrics(self):
        status, text = self.request("GET", "/metrics")
        if status != 200:
            raise AssertionError(f"/metrics answered {status}")
        return text

    def series(self, name):
        """A metric's values, by their labels: [({label: value}, number)]."""
        found = re.findall(rf"(?m)^{name}(?:\{{(.*)\}})? (\S+)$", self.metrics())
        return [(dict(re.findall(r'(\w+)="([^"]*)"', labels)), float(value))
                for labels, value in found]

    def series_sum(self, name, **labels):
        """Of those of a metric's values that have these labels."""
        return sum(value for found, value in self.series(name) if labels.items() <= found.items())


def _events(response):
    for line in response:
        line = line.decode().rstrip("\r\n")
        if not line.startswith("data: "):
            continue
        data = line[len("data: "):]
        if data == "[DONE]":
            return
        yield json.loads(data)


def describe(worker):
    return (f"{worker.name} {worker.role} {worker.state} running={worker.running} "
            f"waiting={worker.waiting} free={worker.blocks_free} held={worker.blocks_held} "
            f"cached={worker.blocks_cached} total={worker.blocks_total} "
            f"transfers={worker.transfers}")


def is_idle(worker):
    return (worker.running == 0 and worker.waiting == 0 and worker.transfers == 0
            and worker.blocks_held == 0 and worker.blocks_total > 0
            and worker.blocks_free + worker.blocks_cached == worker.blocks_total)


class Cluster:
    """Processes and a client. Use as a context manager, or stop() it: that checks that every
    process ends cleanly."""

    def __init__(self):
        self.processes = []
        self.client = None
        self.model = None

    @classmethod
    def up(cls, prefill=1, decode=1, **flags):
        """`baton up`; block_tokens=8 becomes --block-tokens 8. Prompts as with start_router."""
        cluster = cls()
        flags = {"model": MODEL, "http": "127.0.0.1:0", "grpc": "127.0.0.1:0", "kv_mb": 256,
                 "local_uncached_tokens": 0, **flags}
        with cluster._killed_on_error():
            ready = cluster.start("up", "--prefill", prefill, "--decode", decode,
                                  *to_flags(flags)).wait_ready()
            cluster.connect(ready)
            wait_until(lambda: cluster.ready_workers() == prefill + decode, START_DEADLINE_S,
                       "all workers are ready")
        return cluster

    @contextlib.contextmanager
    def _killed_on_error(self):
        try:
            yield
        except BaseException:
            self.print_logs()
            self.kill()
            raise

    def start(self, *arguments, namespace=None):
        process = Process(*arguments, namespace=namespace)
        self.processes.append(process)
        return process

    def start_worker(self, role, name, listen="127.0.0.1:0", namespace=None, **flags):
        """`baton worker`: (process, address)."""
        flags = {"model": MODEL, "kv_mb": 256, "threads": 1, **flags}
        process = self.start("worker", "--role", role, "--name", name, "--listen", listen,
                             *to_flags(flags), namespace=namespace)
        with self._killed_on_error():
            return process, process.wait_ready()["listen"]

    def start_router(self, workers, namespace=None, **flags):
        """A prompt that was answered before goes the same way again unless `flags` say otherwise:
        decode workers do not prefill what they hold."""
        flags = {"model": MODEL, "http": "127.0.0.1:0", "grpc": "127.0.0.1:0",
                 "local_uncached_tokens": 0, **flags}
        process = self.start("router", "--workers", ",".join(workers), *to_flags(flags),
                             namespace=namespace)
        with self._killed_on_error():
            self.connect(process.wait_ready())
        return process

    def connect(self, ready):
        if self.client:
            self.client.close()
        self.client = Client(ready["http"], ready["grpc"])
        self.model = self.client.request("GET", "/v1/models")[1]["data"][0]["id"]

    def ready_workers(self):
        return sum(worker.state == "ready" for worker in self.client.fleet())

    def wait_for_workers(self, count):
        wait_until(lambda: self.ready_workers() == count, START_DEADLINE_S,
                   f"{count} workers are ready")

    def check_idle(self, deadline_s=IDLE_DEADLINE_S):
        """Law 4: every connected worker is back to its idle block counts."""
        def idle():
            fleet = [worker for worker in self.client.fleet() if worker.state != "lost"
                     and worker.state != "connecting"]
            busy = [describe(worker) for worker in fleet if not is_idle(worker)]
            return not busy
        try:
            wait_until(idle, deadline_s, "all workers idle")
        except AssertionError:
            seen = "\n".join(describe(worker) for worker in self.client.fleet())
            raise AssertionError(f"blocks do not balance {deadline_s} s after the last request:\n"
                                 f"{seen}") from None

    def check_idle_for_sure(self):
        """As check_idle, on a report that cannot be older than the last request."""
        time.sleep(1.5 * STATUS_INTERVAL_S)
        self.check_idle()

    def print_logs(self):
        for process in self.processes:
            print(process.log_tail(), flush=True)

    def stop(self):
        """SIGTERM to all, router first; each must end with 0."""
        try:
            for process in reversed(self.processes):
                code = process.stop()
                if code != 0:
                    raise AssertionError(f"{process} ended with {code} after SIGTERM\n"
                                         f"{process.log_tail()}")
        finally:
            self.kill()

    def kill(self):
        for process in self.processes:
            process.kill()
        self.processes = []
        if self.client:
            self.client.close()
            self.client = None

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            self.check_idle_for_sure()
            self.stop()
        else:
            self.print_logs()
            self.kill()


def to_flags(flags):
    arguments = []
    for name, value in flags.items():
        flag = f"--{name.replace('_', '-')}"
        for each in value if isinstance(value, list) else [value]:
            arguments += [flag] if each is True else [flag, str(each)]
    return arguments


class ClusterTestCase(unittest.TestCase):
    """Tests that share one `baton up`; after each of them every block is free or cached."""

    up_flags = {}

    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster.up(**cls.up_flags)
        cls.client = cls.cluster.client
        cls.model = cls.cluster.model

    @classmethod
    def tearDownClass(cls):
        try:
            cls.cluster.check_idle_for_sure()
        except AssertionError:
            cls.cluster.print_logs()
            cls.cluster.kill()
            raise
        cls.cluster.stop()

    def run(self, result=None):
        result = result or self.defaultTestResult()
        before = len(result.failures) + len(result.errors)
        super().run(result)
        if len(result.failures) + len(result.errors) > before:
            self.cluster.print_logs()
        return result

    def tearDown(self):
        self.cluster.check_idle()

    def chat(self, text="Say hello.", **more):
        return {"model": self.model, "messages": [{"role": "user", "content": text}],
                "max_tokens": 8, "temperature": 0, **more}

    def assert_works(self):
        """A sound request gets a sound answer: what the test before it did has no after-effects."""
        status, answer = self.client.post("/v1/chat/completions", self.chat())
        self.assertEqual(status, 200, answer)
        self.assertGreater(answer["usage"]["completion_tokens"], 0)
