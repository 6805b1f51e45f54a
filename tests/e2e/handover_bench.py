#!/usr/bin/env python3
"""What a handover costs a client, and how much of a transfer prefill hides. A program, not a test:
nothing here passes or fails.

    build/venv/bin/python tests/e2e/handover_bench.py [--prompts N] [--long-prompts N]
                                                      [--transport shm] [--transport ucx]

For each transport, one prefill and one decode worker of one thread each, with the demo model and
nothing else to do, twice:

- prompts of 1,024 random tokens in chunks of 256: the handover, from the news that prefill is over to
  the decode worker's first step (the request's own `handover_s`); the same as a gRPC client sees it,
  the gap between tokens 0 and 1 less the median of the gaps after it; and the mean of
  baton_handoff_exposed_seconds;
- prompts of 4,096 random tokens in chunks of 512: the share of the transfers that prefill hid,
  1 - baton_handoff_exposed_seconds / baton_handoff_moving_seconds.
"""

import argparse
import math
import os
import random
import statistics
import subprocess
import time

import workload
from cluster import VOCAB_SIZE, Cluster

TOKENS, CHUNK = 1024, 256
LONG_TOKENS, LONG_CHUNK = 4096, 512
OUTPUT_TOKENS = 24
WARM_UP = 2  # prompts: the path is measured with the first


def percentile(values, share):
    """The nearest rank's: of 60 values, the 99th is the largest."""
    return sorted(values)[math.ceil(share * len(values)) - 1]


class Measured:
    """One cluster's answers to `count` random prompts, and its metrics over these."""

    def __init__(self, transport, tokens, chunk, count, seed):
        rng = random.Random(seed)
        self.handovers_s, self.seen_by_client_s = [], []
        with Cluster.up(1, 1, threads=1, chunk_tokens=chunk, transport=transport) as cluster:
            def answer():
                return self._answer(cluster.client, [
                    rng.randrange(workload.FIRST_PLAIN_TOKEN, VOCAB_SIZE) for _ in range(tokens)])
            for _ in range(WARM_UP):
                answer()
            before = self._sums(cluster.client)
            for _ in range(count):
                handover_s, seen_by_client_s = answer()
                self.handovers_s.append(handover_s)
                self.seen_by_client_s.append(seen_by_client_s)
            after = self._sums(cluster.client)
        moved = {part: after[part] - before[part] for part in before}
        if moved["_count"] != count:
            raise RuntimeError(f"{moved['_count']:.0f} handoffs for {count} prompts")
        self.exposed_mean_s = moved["_exposed_seconds_sum"] / count
        self.moving_mean_s = moved["_moving_seconds_sum"] / count
        self.hidden_share = 1 - self.exposed_mean_s / self.moving_mean_s
        self.bytes_mean = moved["_bytes_total"] / count

    @staticmethod
    def _sums(client):
        return {part: client.series_sum(f"baton_handoff{name}") for part, name in (
            ("_count", "_seconds_count"), ("_exposed_seconds_sum", "_exposed_seconds_sum"),
            ("_moving_seconds_sum", "_moving_seconds_sum"), ("_bytes_total", "_bytes_total"))}

    @staticmethod
    def _answer(client, tokens):
        """The handover by the workers' account and by the client's, in seconds."""
        arrivals = []
        for response in client.generate(tokens=tokens, sampling={
                "temperature": 0.0, "max_tokens": OUTPUT_TOKENS, "ignore_eos": True}):
            if response.HasField("finish"):
                handover_s = response.finish.stats.handover_s
            arrivals += [time.monotonic()] * len(response.delta.tokens)
        gaps = [later - earlier for earlier, later in zip(arrivals, arrivals[1:])]
        return handover_s, gaps[0] - statistics.median(gaps[1:])


def print_machine():
    lscpu = subprocess.run(["lscpu"], capture_output=True, text=True, check=True).stdout
    model = next(line.split(":", 1)[1].strip() for line in lscpu.splitlines()
                 if line.startswith("Model name"))
    print(f"{model}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=60)
    parser.add_argument("--long-prompts", type=int, default=10)
    parser.add_argument("--transport", action="append", help="shm and ucx when not given")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    print_machine()
    for transport in arguments.transport or ["shm", "ucx"]:
        short = Measured(transport, TOKENS, CHUNK, arguments.prompts, arguments.seed)
        print(f"{transport}: {arguments.prompts} prompts of {TOKENS} tokens: handover "
              f"p50 {percentile(short.handovers_s, 0.5) * 1e3:.2f} ms, "
              f"p99 {percentile(short.handovers_s, 0.99) * 1e3:.2f} ms, as the client sees it "
              f"{percentile(short.seen_by_client_s, 0.5) * 1e3:.2f} and "
              f"{percentile(short.seen_by_client_s, 0.99) * 1e3:.2f} ms; exposed mean "
              f"{short.exposed_mean_s * 1e3:.2f} ms", flush=True)
        long = Measured(transport, LONG_TOKENS, LONG_CHUNK, arguments.long_prompts, arguments.seed)
        print(f"{transport}: {arguments.long_prompts} prompts of {LONG_TOKENS} tokens: "
              f"{long.bytes_mean / 1e6:.1f} MB in {long.moving_mean_s * 1e3:.1f} ms, exposed "
              f"{long.exposed_mean_s * 1e3:.2f} ms: {long.hidden_share:.1%} hidden; handover p50 "
              f"{percentile(long.handovers_s, 0.5) * 1e3:.2f} ms", flush=True)


if __name__ == "__main__":
    main()
