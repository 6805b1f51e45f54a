#!/usr/bin/env python3
"""Live control of a running cluster against every fixed ratio, on traffic that flips half way.

    build/venv/bin/python bench/live_control.py [--workers N] [--seconds S] [--static-seconds S]

Long prompts with short answers, then short prompts with long answers, from clients that ask one
after the other. First each ratio is measured under each traffic. Then a cluster begins with the
ratio that was best for the prompts, but for the one that is best for the answers, under `--control act`,
and the traffic flips: what it carries is told in windows from the flip on, beside the best fixed
ratio's. A request counts that had its first
token within --ttft-slo and its gaps, on average, within --itl-slo.
"""

import argparse
import json
import random
import threading
import time

from running_fleet import fleet_up, plan_of

FIRST_PLAIN_TOKEN, VOCABULARY = 20, 49152
PROMPTS, ANSWERS = "prompts", "answers"


class Load:
    """Clients that ask one after the other; `mix` may change at any time."""

    def __init__(self, client, mixes, clients, ttft_slo, itl_slo):
        self.client, self.mixes, self.mix = client, mixes, PROMPTS
        self.slo = ttft_slo, itl_slo
        self.ended, self.failures = [], []  # (when, of which mix, in time)
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(seed,), daemon=True)
                         for seed in range(clients)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join(300)

    def _ask(self, seed):
        rng = random.Random(seed)
        while not self._stop.is_set():
            mix = self.mix
            prompt_tokens, output_tokens = self.mixes[mix]
            prompt = [rng.randrange(FIRST_PLAIN_TOKEN, VOCABULARY) for _ in range(prompt_tokens)]
            tokens, finish, first, begin = 0, None, None, time.monotonic()
            try:
                for response in self.client.generate(
                        tokens=prompt, timeout=300,
                        sampling={"max_tokens": output_tokens, "ignore_eos": True}):
                    if response.HasField("finish"):
                        finish = response.finish
                        continue
                    tokens += len(response.delta.tokens)
                    first = first or time.monotonic()
            except Exception as failed:  # noqa: BLE001: whatever it is, it is told
                with self._lock:
                    self.failures.append(str(failed))
                continue
            end = time.monotonic()
            with self._lock:
                if finish is None or tokens != output_tokens:
                    self.failures.append(f"{tokens} tokens of {output_tokens}, {finish}")
                    continue
                in_time = (first - begin <= self.slo[0]
                           and (end - first) / max(1, tokens - 1) <= self.slo[1])
                self.ended.append((end, mix, in_time))

    def rate(self, mix, from_s, to_s):
        """Requests of this mix within the objectives, a second."""
        with self._lock:
            count = sum(of == mix and good and from_s <= at < to_s for at, of, good in self.ended)
        return count / (to_s - from_s)


def load_on(cluster, arguments):
    mixes = {PROMPTS: (arguments.prompt_tokens, 8), ANSWERS: (32, arguments.answer_tokens)}
    return Load(cluster.client, mixes, arguments.clients, arguments.ttft_slo, arguments.itl_slo)


def measure_static(arguments, prefill, decode):
    cluster, _, _ = fleet_up(prefill, decode, threads=1, kv_mb=192)
    rates = {}
    with cluster, load_on(cluster, arguments) as load:
        for mix in (PROMPTS, ANSWERS):
            load.mix = mix
            time.sleep(arguments.settle)
            begin = time.monotonic()
            time.sleep(arguments.static_seconds)
            rates[mix] = load.rate(mix, begin, time.monotonic())
    print(f"{prefill}:{decode} fixed: prompts {rates[PROMPTS]:.2f}/s, answers {rates[ANSWERS]:.2f}/s, "
          f"{len(load.failures)} failed", flush=True)
    return rates


def measure_control(arguments, prefill, decode, best):
    cluster, _, admin = fleet_up(
        prefill, decode, threads=1, kv_mb=192, control="act", ttft_slo=arguments.ttft_slo,
        itl_slo=arguments.itl_slo, control_enough=arguments.enough, control_least_decode=1,
        control_cooldown=10, control_grace=5)
    with cluster, load_on(cluster, arguments) as load:
        time.sleep(arguments.settle + arguments.static_seconds)
        load.mix, flip = ANSWERS, time.monotonic()
        at_us = time.time() * 1e6
        until, recovered = 0, None
        while until < arguments.seconds:
            time.sleep(arguments.window)
            until += arguments.window
            rate = load.rate(ANSWERS, flip + until - arguments.window, flip + until)
            recovered = recovered or (until if rate >= 0.9 * best else None)
            print(f"  {until - arguments.window:3.0f} to {until:3.0f} s after the flip: {rate:.2f}/s, "
                  f"{100 * rate / best:.0f}% of the best fixed ratio", flush=True)
        changes = json.loads(plan_of(admin))["changes"]
    for change in reversed(changes):
        print(f"  {(change['at_us'] - at_us) / 1e6:+.1f} s: {change['prefill']}:{change['decode']} to "
              f"{change['new_prefill']}:{change['new_decode']}, {change['outcome']}: "
              f"{change['reason']}")
    print(f"  {len(load.ended)} requests, {len(load.failures)} failed; 90% of the best "
          + (f"within {recovered:.0f} s" if recovered else "not reached"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--prompt-tokens", type=int, default=900)
    parser.add_argument("--answer-tokens", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=60, help="after the flip")
    parser.add_argument("--window", type=float, default=10)
    parser.add_argument("--static-seconds", type=float, default=20, help="of each ratio and traffic")
    parser.add_argument("--settle", type=float, default=5, help="before each of these")
    parser.add_argument("--ttft-slo", type=float, default=60)
    parser.add_argument("--itl-slo", type=float, default=1)
    parser.add_argument("--enough", type=float, default=1e6, help="--control-enough: clients that wait "
                        "for their answers ask for no more than they get")
    arguments = parser.parse_args()
    rates = {prefill: measure_static(arguments, prefill, arguments.workers - prefill)
             for prefill in range(1, arguments.workers)}
    best = max(rates[prefill][ANSWERS] for prefill in rates)
    first = max((prefill for prefill in rates if rates[prefill][ANSWERS] < best),
                key=lambda prefill: rates[prefill][PROMPTS])
    print(f"live control, from {first}:{arguments.workers - first}, "
          f"where answers have {rates[first][ANSWERS]:.2f}/s:")
    measure_control(arguments, first, arguments.workers - first, best)


if __name__ == "__main__":
    main()
