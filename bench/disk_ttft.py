#!/usr/bin/env python3
"""Time to first token of a long prompt whose KV is computed, in the pool, or on disk.

    build/venv/bin/python bench/disk_ttft.py [--tokens N] [--rounds N] [--directory DIR]

One prefill and one decode worker, one request at a time. The pool holds one such prompt, so that
another one in between leaves its KV on disk only. "cold" is after the system was told to forget the
file's pages, "no disk" computed by a worker without a disk cache. Medians over the rounds, each with prompts of its own.
"""

import argparse
import contextlib
import os
import pathlib
import random
import re
import statistics
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests/e2e"))
from cluster import VOCAB_SIZE, Cluster, wait_until  # noqa: E402

KV_BYTES_PER_TOKEN = 23040  # of the demo model in F16
SAMPLING = {"temperature": 0.0, "max_tokens": 2, "ignore_eos": True}


def first_token_s(cluster, tokens):
    """(seconds, tokens that were cached)"""
    begin = time.monotonic()
    responses = iter(cluster.client.generate(tokens=tokens, sampling=SAMPLING))
    next(responses)
    seconds = time.monotonic() - begin
    cached = list(responses)[-1].finish.stats.cached_prompt_tokens
    cluster.check_idle_for_sure()
    return seconds, cached


def written(cluster):
    match = re.search(r'baton_kv_disk_events_total\{worker="p0",event="written"\} (\d+)',
                      cluster.client.metrics())
    return int(match.group(1)) if match else 0


def forget_pages(path):
    file = os.open(path, os.O_RDWR)
    os.fsync(file)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(file)


def random_prompt(rng, tokens):
    return [rng.randrange(20, VOCAB_SIZE) for _ in range(tokens)]


@contextlib.contextmanager
def running_cluster(arguments, **disk_flags):
    pool_mb = arguments.tokens * KV_BYTES_PER_TOKEN * 5 // 4 // (1 << 20)
    with Cluster() as cluster:
        _, prefill = cluster.start_worker("prefill", "p0", threads=2, kv_mb=pool_mb, **disk_flags)
        _, decode = cluster.start_worker("decode", "d0", threads=1, kv_mb=pool_mb,
                                         prefix_cache="false")
        cluster.start_router([prefill, decode])
        cluster.wait_for_workers(2)
        first_token_s(cluster, random_prompt(random.Random(2), 256))
        yield cluster


def measure_without_disk(arguments):
    rng = random.Random(3)
    with running_cluster(arguments) as cluster:
        return [first_token_s(cluster, random_prompt(rng, arguments.tokens))[0]
                for _ in range(arguments.rounds)]


def measure_with_disk(cluster, path, arguments):
    rng = random.Random(1)
    times = {"computed": [], "pool": [], "disk, warm": [], "disk, cold": []}
    for _ in range(arguments.rounds):
        one, other = (random_prompt(rng, arguments.tokens) for _ in range(2))
        before = written(cluster)
        for name, tokens in (("computed", one), ("pool", one), ("computed", other),
                             ("disk, warm", one), (None, other), ("disk, cold", one)):
            if name == "disk, warm":
                wait_until(lambda: written(cluster) - before >= 2 * (arguments.tokens // 16 - 1),
                           60, "both prompts are on disk")
            if name == "disk, cold":
                forget_pages(path)
            seconds, cached = first_token_s(cluster, tokens)
            if name is None:
                continue
            expected = 0 if name == "computed" else arguments.tokens - 16
            if cached < expected or (expected == 0 and cached > 0):
                print(f"{name}: {cached} tokens were cached, {expected} expected; left out")
                continue
            times[name].append(seconds)
    return times


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--directory", help="where the disk cache lies; a temporary one if not given")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.directory, prefix="baton-disk-") as directory:
        with running_cluster(arguments, kv_disk=directory, kv_disk_gb=4) as cluster:
            times = measure_with_disk(cluster, pathlib.Path(directory) / "p0.kvcache", arguments)
    times["no disk"] = measure_without_disk(arguments)
    print(f"time to first token of {arguments.tokens} tokens, ms: median (least to most)")
    for name, seconds in times.items():
        values = sorted(1000 * one for one in seconds)
        if values:
            print(f"{name:12} {statistics.median(values):8.1f} "
                  f"({values[0]:.1f} to {values[-1]:.1f}), {len(values)} runs")


if __name__ == "__main__":
    main()
