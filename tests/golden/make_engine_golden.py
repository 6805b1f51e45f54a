#!/usr/bin/env python3
"""Writes tests/golden/engine/*.txt: what the demo model answers, computed in fp32 by NumPy alone.

usage: make_engine_golden.py MODEL.gguf      needs: pip install gguf numpy tokenizers

The weights are the file's, decoded exactly; activations, keys and values stay fp32. Nothing of
Baton is used, so that a mistake in Baton cannot be in here too.

forward.txt   per prompt a line "prompt NAME ID..." and, for some positions, a line
              "logits POSITION ID LOGIT ID LOGIT ..." with the five best next tokens, best first
alice.ids     the first 2,000 tokens of alice.txt (Lewis Carroll, Alice's Adventures in Wonderland,
              1865, public domain)
nll.txt       "window TOKENS NLL": mean negative log likelihood of alice.ids in windows that do not
              overlap, without the first token of each
"""
import pathlib
import sys

import gguf
import numpy as np
from gguf.quants import dequantize
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

OUT = pathlib.Path(__file__).parent / "engine"
NLL_TOKENS = 2000
WINDOW = 512

CHAT = ("<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
        "<|im_end|>\n<|im_start|>user\nName three primary colours.<|im_end|>\n"
        "<|im_start|>assistant\n")
CODE = ("def fibonacci(n):\n    if n < 2:\n        return n\n"
        "    return fibonacci(n - 1) + fibonacci(n - 2)\n\nfor i in range(1")


class Model:
    def __init__(self, path):
        reader = gguf.GGUFReader(path)
        self.fields = {name: field.contents() for name, field in reader.fields.items()
                       if not name.startswith("GGUF.")}
        assert self.fields["general.architecture"] == "llama"
        self.tensors = {t.name: dequantize(t.data, t.tensor_type).astype(np.float32)
                        for t in reader.tensors}
        self.layers = self.fields["llama.block_count"]
        self.heads = self.fields["llama.attention.head_count"]
        self.kv_heads = self.fields["llama.attention.head_count_kv"]
        self.head_dim = self.fields["llama.embedding_length"] // self.heads
        self.epsilon = np.float32(self.fields["llama.attention.layer_norm_rms_epsilon"])
        self.rope_base = self.fields["llama.rope.freq_base"]

    def norm(self, x, name):
        scale = 1 / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + self.epsilon)
        return x * scale * self.tensors[name]

    def rotate(self, x):
        """x: [heads, tokens, head_dim]; pairs are (0, 1), (2, 3), ..."""
        pairs = self.head_dim // 2
        frequency = self.rope_base ** (-np.arange(pairs) / pairs)
        angle = np.arange(x.shape[1])[:, None] * frequency
        cos, sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
        even, odd = x[..., 0::2], x[..., 1::2]
        return np.stack([even * cos - odd * sin, even * sin + odd * cos], -1).reshape(x.shape)

    def attention(self, x, prefix):
        def heads(name, count):
            y = x @ self.tensors[prefix + name].T
            return y.reshape(len(x), count, self.head_dim).transpose(1, 0, 2)

        q = self.rotate(heads("attn_q.weight", self.heads))
        k = self.rotate(heads("attn_k.weight", self.kv_heads))
        v = heads("attn_v.weight", self.kv_heads)
        k, v = (np.repeat(a, self.heads // self.kv_heads, axis=0) for a in (k, v))
        scores = q @ k.transpose(0, 2, 1) / np.float32(np.sqrt(self.head_dim))
        scores += np.triu(np.full(scores.shape[1:], -np.inf, np.float32), 1)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        out = (weights @ v).transpose(1, 0, 2).reshape(len(x), -1)
        return out @ self.tensors[prefix + "attn_output.weight"].T

    def feed_forward(self, x, prefix):
        gate = x @ self.tensors[prefix + "ffn_gate.weight"].T
        up = x @ self.tensors[prefix + "ffn_up.weight"].T
        return (gate / (1 + np.exp(-gate)) * up) @ self.tensors[prefix + "ffn_down.weight"].T

    def logits(self, ids):
        """[tokens, vocabulary]"""
        x = self.tensors["token_embd.weight"][ids]
        for layer in range(self.layers):
            prefix = f"blk.{layer}."
            x = x + self.attention(self.norm(x, prefix + "attn_norm.weight"), prefix)
            x = x + self.feed_forward(self.norm(x, prefix + "ffn_norm.weight"), prefix)
        output = self.tensors.get("output.weight", self.tensors["token_embd.weight"])
        return self.norm(x, "output_norm.weight") @ output.T


def make_tokenizer(fields):
    tokens = fields["tokenizer.ggml.tokens"]
    merges = [tuple(m.split(" ")) for m in fields["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True),
         pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    kinds = fields["tokenizer.ggml.token_type"]
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False)
                                  for t, kind in zip(tokens, kinds) if kind == 3])
    return tokenizer


def mean_nll(model, ids, window):
    total, scored = 0.0, 0
    for first in range(0, len(ids) - 1, window):
        part = np.array(ids[first:first + window])
        logits = model.logits(part)[:-1].astype(np.float64)
        best = logits.max(-1)
        log_sum = best + np.log(np.exp(logits - best[:, None]).sum(-1))
        total += (log_sum - logits[np.arange(len(part) - 1), part[1:]]).sum()
        scored += len(part) - 1
    return total / scored


def main():
    model = Model(sys.argv[1])
    tokenizer = make_tokenizer(model.fields)
    alice = tokenizer.encode((OUT / "alice.txt").read_text(encoding="utf-8")).ids[:NLL_TOKENS]
    assert len(alice) == NLL_TOKENS, len(alice)
    (OUT / "alice.ids").write_text(" ".join(map(str, alice)) + "\n")

    prompts = {"capital": tokenizer.encode("The capital of France is").ids,
               "chat": tokenizer.encode(CHAT).ids,
               "code": tokenizer.encode(CODE).ids,
               "alice": alice[:300]}
    lines = []
    for name, ids in prompts.items():
        logits = model.logits(np.array(ids))
        lines.append(" ".join(["prompt", name, *map(str, ids)]))
        for position in sorted({0, len(ids) // 3, 2 * len(ids) // 3, len(ids) - 1}):
            best = np.argsort(-logits[position], kind="stable")[:5]
            print(name, position, [tokenizer.decode([i]) for i in best])
            lines.append(" ".join(["logits", str(position), *(
                f"{i} {logits[position][i]:.5f}" for i in best)]))
    (OUT / "forward.txt").write_text("\n".join(lines) + "\n")

    nll = mean_nll(model, alice, WINDOW)
    print("mean nll", nll)
    (OUT / "nll.txt").write_text(f"window {WINDOW} {nll:.6f}\n")


if __name__ == "__main__":
    main()
