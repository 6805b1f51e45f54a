#!/usr/bin/env python3
"""The simulator against a running cluster: times to first token and between tokens, at three loads.

    build/venv/bin/python bench/simulator_check.py [--rates 0.5,1,1.5] [--seconds S] [--fleet P:D]

Each load runs on a cluster of its own; while it does, the router learns what its workers' steps take.
Then `baton simulate` plays the requests of that router's access log on these steps.
"""

import argparse
import tempfile

from running_fleet import baton_json, bench_serve, fleet_up, plan_of

ROWS = [("ttft", "p50"), ("ttft", "p90"), ("ttft", "p99"), ("itl", "p50"), ("itl", "p90"),
        ("itl", "p99")]


def measure(arguments, rate, directory):
    """The report of the load, the steps' file and the requests' file."""
    prefill, decode = map(int, arguments.fleet.split(":"))
    plan, log = f"{directory}/plan.json", f"{directory}/access.log"
    cluster, address, admin = fleet_up(prefill, decode, threads=arguments.threads,
                                       chunk_tokens=arguments.chunk, control="advise",
                                       access_log=log)
    with cluster:
        report = bench_serve(
            address, rate=rate, requests=max(20, round(rate * arguments.seconds)),
            input=arguments.input, input_cv=arguments.input_cv, output=arguments.output,
            output_cv=arguments.output_cv, seed=arguments.seed, warmup=0)
        with open(plan, "w", encoding="utf-8") as file:
            file.write(plan_of(admin))
    return report, plan, log


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rates", default="0.5,1,1.5")
    parser.add_argument("--seconds", type=float, default=60, help="of each load")
    parser.add_argument("--fleet", default="1:1", help="prefill and decode workers")
    parser.add_argument("--threads", type=int, default=1, help="of a worker")
    parser.add_argument("--chunk", type=int, default=256, help="tokens of a prompt in a step")
    parser.add_argument("--input", type=float, default=400)
    parser.add_argument("--input-cv", type=float, default=0.7)
    parser.add_argument("--output", type=float, default=80)
    parser.add_argument("--output-cv", type=float, default=0.7)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    print(f"{'rate':>6} {'requests':>8}  {'':9} {'measured':>10} {'simulated':>10} {'apart':>7}")
    for rate in map(float, arguments.rates.split(",")):
        with tempfile.TemporaryDirectory(prefix="baton-bench-") as directory:
            report, plan, log = measure(arguments, rate, directory)
            played = baton_json("simulate", "--measured", plan, "--trace", log, "--fleet",
                                arguments.fleet)
        for what, percentile in ROWS:
            real = report[f"{what}_ms"][percentile]
            told = 1000 * played[f"{what}_s"][percentile]
            print(f"{rate:6g} {played['requests']:8}  {what} {percentile:5} {real:7.1f} ms "
                  f"{told:7.1f} ms {100 * (told / real - 1):+6.1f}%", flush=True)


if __name__ == "__main__":
    main()
