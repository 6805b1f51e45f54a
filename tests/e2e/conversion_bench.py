#!/usr/bin/env python3
"""What it costs that a decode worker goes on from KV of another number format. A program, not a
test: nothing here passes or fails.

    build/venv/bin/python tests/e2e/conversion_bench.py [--prompts N]

For each pair of formats one prefill and one decode worker with the demo model answer greedily to
prompts of 512 tokens of tests/golden/engine/alice.ids, 32 tokens each, through real handoffs. Held
against the answers of f16 to f16:

- same: the tokens at the same place that are the same;
- before: the tokens before the first that differs;
- nll: how much less likely, in nats, the pair thinks each of f16's tokens where both have said the
  same so far, with the standard error. What follows a different token is another text and is not
  compared. Since f16's tokens are those that f16 thinks best, any change at all makes them less
  likely: compare pairs with each other, not with 0.
"""

import argparse
import contextlib
import math
import statistics

from cluster import ROOT, Cluster

PAIRS = [("f16", "f16"), ("f16", "int8"), ("f16", "fp8"), ("f16", "bf16"), ("int8", "int8"),
         ("fp8", "fp8"), ("bf16", "bf16")]
PROMPT_TOKENS, OUTPUT_TOKENS = 512, 32
BEST = 20  # f16's token is nearly always among so many


def prompts(count):
    """Windows of the text that begin at places of their own, so that nothing is cached."""
    text = [int(token) for token in (ROOT / "tests/golden/engine/alice.ids").read_text().split()]
    stride = (len(text) - PROMPT_TOKENS) // count
    return [text[i * stride:i * stride + PROMPT_TOKENS] for i in range(count)]


@contextlib.contextmanager
def workers(prefill_dtype, decode_dtype):
    with Cluster() as cluster:
        _, prefill = cluster.start_worker("prefill", "p0", kv_dtype=prefill_dtype)
        _, decode = cluster.start_worker("decode", "d0", kv_dtype=decode_dtype)
        cluster.start_router([prefill, decode])
        cluster.wait_for_workers(2)
        yield cluster.client


def answer(client, prompt):
    """[(token, {token: log probability})]."""
    tokens = []
    for response in client.generate(tokens=prompt, sampling={
            "temperature": 0.0, "max_tokens": OUTPUT_TOKENS, "ignore_eos": True, "logprobs": BEST}):
        for token, top in zip(response.delta.tokens, response.delta.top_logprobs):
            tokens.append((token, {best.token: best.logprob for best in top.best}))
    return tokens


def compare(right, other):
    """(tokens that are the same, tokens before the first that differs, differences in nats)."""
    same = [a[0] == b[0] for a, b in zip(right, other)]
    before = (same + [False]).index(False)
    compared = min(before + 1, len(right))  # the first that differs has the same text before it
    nats = [best[token] - found[token] for (token, best), (_, found)
            in zip(right[:compared], other[:compared]) if token in found]
    return sum(same), before, nats


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=24)
    arguments = parser.parse_args()
    texts = prompts(arguments.prompts)
    right = None
    for prefill, decode in PAIRS:
        with workers(prefill, decode) as client:
            answers = [answer(client, text) for text in texts]
            moved = client.series_sum("baton_worker_handoffs_total", result="ok")
            converted = client.series_sum("baton_kv_conversions_total")
        right = right or answers
        found = [compare(*pair) for pair in zip(right, answers)]
        nats = [each for _, _, differences in found for each in differences]
        print(f"{prefill} to {decode}: {moved:.0f} handoffs, {converted:.0f} converted; same "
              f"{sum(same for same, _, _ in found) / (len(texts) * OUTPUT_TOKENS):.1%}, before "
              f"{statistics.mean(before for _, before, _ in found):.1f} of {OUTPUT_TOKENS}, nll "
              f"{statistics.mean(nats):+.4f} ± {statistics.stdev(nats) / math.sqrt(len(nats)):.4f} "
              f"over {len(nats)} tokens", flush=True)


if __name__ == "__main__":
    main()
