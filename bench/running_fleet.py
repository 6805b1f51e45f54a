"""What the measurements of running fleets share: `baton bench serve` against them, and what their
router says of itself."""

import http.client
import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/e2e"))
from cluster import BATON, MODEL, Cluster, environment, to_flags, wait_until  # noqa: E402,F401

MOST_SECONDS = 3600


def bench_serve(address, **flags):
    """The report of the one run that the flags say."""
    return baton_json("bench", "serve", "--url", f"http://{address}", *to_flags(flags))


def fleet_up(prefill, decode, **flags):
    """`baton up` with the admin API: (cluster, HTTP address, admin address)."""
    cluster = Cluster()
    with cluster._killed_on_error():
        ready = cluster.start("up", "--prefill", prefill, "--decode", decode, *to_flags({
            "model": MODEL, "http": "127.0.0.1:0", "grpc": "127.0.0.1:0", "admin": "127.0.0.1:0",
            "kv_mb": 400, **flags})).wait_ready()
        cluster.connect(ready)
        wait_until(lambda: cluster.ready_workers() == prefill + decode, 120, "all workers are ready")
    return cluster, ready["http"], ready["admin"]


def plan_of(admin):
    """/admin/plan as text."""
    connection = http.client.HTTPConnection(admin, timeout=30)
    try:
        connection.request("GET", "/admin/plan")
        response = connection.getresponse()
        text = response.read().decode()
    finally:
        connection.close()
    if response.status != 200:
        raise RuntimeError(f"/admin/plan: {response.status} {text}")
    return text


def baton_json(*arguments):
    """Of a command's one object."""
    result = subprocess.run([str(BATON), *map(str, arguments), "--json"], text=True,
                            env=environment(), capture_output=True, timeout=MOST_SECONDS)
    if result.returncode != 0:
        raise RuntimeError(f"baton {arguments[0]}: {result.stderr}")
    return json.loads(result.stdout)
