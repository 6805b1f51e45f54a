"""Requests for the exactness tests: a pure function of a seed."""

import math
import random

from cluster import VOCAB_SIZE

FIRST_PLAIN_TOKEN = 20  # below are control tokens

# Around blocks of 8, 16 and 32, attention tiles of 32, and chunks of 16 and 256.
EDGE_LENGTHS = [1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 255, 256, 257]


def _tokens(rng, count):
    return [rng.randrange(FIRST_PLAIN_TOKEN, VOCAB_SIZE) for _ in range(count)]


def _sampling(rng, index):
    """Every other request is greedy; the rest use one of every kind of sampling, seeded."""
    sampling = {"max_tokens": rng.choice([1, 8, 16, 17, 24, 33]), "ignore_eos": index % 3 != 0}
    if index % 2 == 0:
        sampling["temperature"] = 0.0
    else:
        sampling["temperature"] = rng.choice([0.5, 0.8, 1.0, 1.5])
        sampling["seed"] = rng.getrandbits(63)
        sampling.update(rng.choice([
            {}, {"top_k": 40}, {"top_p": 0.9}, {"min_p": 0.05}, {"top_k": 100, "top_p": 0.8}]))
    if index % 5 == 0:
        sampling.update(rng.choice([
            {"repetition_penalty": 1.25}, {"presence_penalty": 0.5}, {"frequency_penalty": 0.75},
            {"logit_bias": {str(rng.randrange(VOCAB_SIZE)): 4.0}}, {"min_tokens": 4},
            {"stop_token_ids": [rng.randrange(VOCAB_SIZE)]},
            {"bad_words": ["the", "a", "of the", "\n"]},
            {"allowed_token_ids": rng.sample(range(VOCAB_SIZE), 50)}]))
    if index % 4 == 0:
        sampling["logprobs"] = rng.choice([0, 2])
    return sampling


def requests(seed, count, lengths, shared_prefix=200):
    """`count` requests: first one of each of `lengths`, then lengths from 1 to 300, most of them
    short. Every sixth begins with the same `shared_prefix` tokens."""
    rng = random.Random(seed)
    prefix = _tokens(rng, shared_prefix)
    result = []
    for index in range(count):
        drawn = int(math.exp(rng.uniform(0, math.log(300))))
        length = lengths[index] if index < len(lengths) else drawn
        tokens = _tokens(rng, length)
        if index % 6 == 5:
            tokens = prefix + tokens
        result.append({"tokens": tokens, "sampling": _sampling(rng, index)})
    return result
