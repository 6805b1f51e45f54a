#!/usr/bin/env python3
"""Is what the planner advises right? One prefill and one decode worker against one worker that does
both, prompts in chunks beside the batch, on the same cores and the same load.

    build/venv/bin/python bench/advice_check.py --trace CSV [--rates 0.15,0.3,0.6] [--requests N]

The load: the trace's lengths, those beyond the model's context cut, in random arrivals. Beside each
pair is what `baton simulate` says of both, on the steps that were measured in that run.
"""

import argparse
import tempfile

from running_fleet import baton_json, bench_serve, fleet_up, plan_of

MOST_INPUT, MOST_OUTPUT = 6500, 1000


def measure(arguments, rate, prefill, decode, threads, directory):
    plan, log = f"{directory}/plan{prefill}.json", f"{directory}/access{prefill}.log"
    cluster, address, admin = fleet_up(prefill, decode, threads=threads, chunk_tokens=arguments.chunk,
                                       kv_mb=600, control="advise", access_log=log)
    with cluster:
        report = bench_serve(
            address, trace=arguments.trace, rate=rate, trace_requests=arguments.requests,
            max_input=MOST_INPUT, max_output=MOST_OUTPUT, seed=arguments.seed, warmup=1,
            slo_ttft_ms=arguments.ttft_slo * 1000, slo_itl_ms=arguments.itl_slo * 1000)
        with open(plan, "w", encoding="utf-8") as file:
            file.write(plan_of(admin))
    return report, plan, log


def row(how, rate, ttft, itl, goodput):
    print(f"{rate:6g}  {how:24} {ttft['p50']:9.2f} {ttft['p99']:9.2f} {itl['p50']:9.1f} "
          f"{itl['p99']:9.1f} {goodput}", flush=True)


def seconds(of):
    return {key: value / 1000 for key, value in of.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trace", required=True, help="Azure's CSV, as the planner's")
    parser.add_argument("--rates", default="0.15,0.3,0.6")
    parser.add_argument("--requests", type=int, default=40, help="of each run")
    parser.add_argument("--chunk", type=int, default=64, help="tokens of a prompt in a step")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--ttft-slo", type=float, default=3, help="seconds")
    parser.add_argument("--itl-slo", type=float, default=0.05, help="seconds")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    print(f"{'rate':>6}  {'':24} {'TTFT p50':>9} {'p99, s':>9} {'ITL p50':>9} {'p99, ms':>9} goodput")
    for rate in map(float, arguments.rates.split(",")):
        for prefill, decode, how in ((1, 1, "1 prefill, 1 decode"), (0, 1, "1 that does both")):
            with tempfile.TemporaryDirectory(prefix="baton-bench-") as directory:
                report, plan, log = measure(arguments, rate, prefill, decode,
                                            arguments.cores // (prefill + decode), directory)
                played = baton_json("simulate", "--measured", plan, "--trace", log, "--fleet",
                                    f"{prefill}:{decode}", "--ttft-slo", arguments.ttft_slo,
                                    "--itl-slo", arguments.itl_slo)
            errors = sum(report["errors"].values())
            row(how, rate, seconds(report["ttft_ms"]), report["itl_ms"],
                f"{report['goodput_per_s']:.3f}/s, {errors} failed")
            row("  as simulated", rate, played["ttft_s"],
                {key: 1000 * value for key, value in played["itl_s"].items()},
                f"{played['good_per_s']:.3f}/s")


if __name__ == "__main__":
    main()
