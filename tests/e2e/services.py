"""etcd, HAProxy and nginx as Debian has them, for the end-to-end tests: the balancers run the files of
deploy/ with addresses of their own."""

import http.client
import re
import subprocess
import tempfile

from cluster import ROOT, free_port, wait_until

START_DEADLINE_S = 60


class Service:
    """A program that serves until it is told, in a temporary directory of its own."""

    def __init__(self):
        self.directory = tempfile.TemporaryDirectory(prefix="baton-service-")
        self.process = None

    def launch(self, *command):
        self.log = open(f"{self.directory.name}/log", "a", encoding="utf-8")
        try:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *command], stdin=subprocess.DEVNULL,
                stdout=self.log, stderr=self.log, cwd=self.directory.name)
        finally:
            self.log.close()

    def print_log(self):
        with open(f"{self.directory.name}/log", encoding="utf-8", errors="replace") as log:
            print("--- log of", type(self).__name__, "\n", *log.readlines()[-40:], flush=True)

    def kill(self):
        if self.process:
            self.process.kill()
            self.process.wait()
        self.process = None

    def close(self):
        self.kill()
        self.directory.cleanup()


class Etcd(Service):
    """Restarts on the same port with the same data."""

    def __init__(self):
        super().__init__()
        self.url, self._peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        self.start()

    def start(self):
        self.launch("etcd", "--data-dir=data", f"--listen-client-urls={self.url}",
                    f"--advertise-client-urls={self.url}", f"--listen-peer-urls={self._peer}",
                    f"--initial-advertise-peer-urls={self._peer}",
                    f"--initial-cluster=default={self._peer}", "--heartbeat-interval=50",
                    "--election-timeout=500", "--log-level=warn")
        wait_until(lambda: self.control("get", "/").returncode == 0, START_DEADLINE_S,
                   "etcd answers")

    def control(self, *arguments):
        return subprocess.run(["etcdctl", f"--endpoints={self.url}", *arguments], text=True,
                              env={"ETCDCTL_API": "3", "PATH": "/usr/bin:/bin"},
                              capture_output=True, timeout=60)

    def get(self, prefix):
        """{key: value} of what begins with the prefix."""
        lines = self.control("get", "--prefix", prefix).stdout.splitlines()
        return dict(zip(lines[::2], lines[1::2]))


class Balancer(Service):
    """`routers`: [(HTTP address, gRPC address)] of the two."""

    FILE = None
    CHANGES = {}

    def __init__(self, routers):
        super().__init__()
        self.http, self.grpc = (f"127.0.0.1:{free_port()}" for _ in range(2))
        text = (ROOT / "deploy" / self.FILE).read_text(encoding="utf-8")
        for number, (http, grpc) in enumerate(routers, start=1):
            for port, address in ((8000, http), (8001, grpc)):
                text = self._replace(text, f"router-{number}.example:{port}", address)
        for old, new in self.changes(routers).items():
            text = self._replace(text, old, new)
        with open(f"{self.directory.name}/config", "w", encoding="utf-8") as file:
            file.write(text)
        self.run()

    def answers(self):
        """Whether a router is behind it."""
        if self.process.poll() is not None:
            self.print_log()
            raise AssertionError(f"{self.FILE} ends with {self.process.returncode}")
        return is_ready(self.http)

    @staticmethod
    def _replace(text, old, new):
        if old not in text:
            raise AssertionError(f"the file has no '{old}'")
        return text.replace(old, new)


class Haproxy(Balancer):
    FILE = "haproxy.cfg"

    def changes(self, routers):
        return {"maxconn 20000": "maxconn 1000", "bind :80": f"bind {self.http}", "bind :81": f"bind {self.grpc}",
                "inter 1s fastinter 1s": "inter 200ms fastinter 200ms",
                **{f"{grpc} proto h2 check check-proto h1 port 8000":
                   f"{grpc} proto h2 check check-proto h1 port {http.split(':')[1]}"
                   for http, grpc in routers}}

    def run(self):
        self.launch("haproxy", "-db", "-f", "config")


class Nginx(Balancer):
    FILE = "nginx.conf"

    def changes(self, routers):
        return {"listen 80;": f"listen {self.http};", "listen 81 http2;": f"listen {self.grpc} http2;",
                "worker_processes auto;": "worker_processes 1;",
                "http {": "http { access_log off; " + " ".join(
                    f"{name}_temp_path {self.directory.name}/{name};"
                    for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))}

    def run(self):
        self.launch("nginx", "-p", self.directory.name, "-c", "config", "-g",
                    "daemon off; pid pid; error_log stderr;")


def is_ready(address):
    connection = http.client.HTTPConnection(address, timeout=10)
    try:
        connection.request("GET", "/ready")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def router_of(request_id):
    """The part of an x-request-id that all answers of one router process share."""
    return re.fullmatch(r"([0-9a-f]+)-\d+", request_id).group(1)
