#!/usr/bin/env python3
"""Writes a GGUF file of a llama of 8 billion parameters whose weights are zeros, to measure speed.

    deploy/zero_model.py FILE [--layers N] [--type BF16|Q8_0]

The file is sparse: it takes 16 GB to read, and next to nothing on the disk. It has no tokenizer.
"""

import argparse
import struct

EMBEDDING, FEED_FORWARD, HEADS, KV_HEADS, HEAD_DIM, VOCAB = 4096, 14336, 32, 8, 128, 128256
ALIGNMENT = 32
TYPES = {"F32": (0, 1, 4), "BF16": (30, 1, 2), "Q8_0": (8, 32, 34)}  # GGUF's number, block, its bytes
UINT32, FLOAT32, STRING = 4, 6, 8


def text(value):
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def tensors(layers, kind):
    key_width = KV_HEADS * HEAD_DIM
    yield "token_embd.weight", (EMBEDDING, VOCAB), kind
    yield "output.weight", (EMBEDDING, VOCAB), kind
    yield "output_norm.weight", (EMBEDDING,), "F32"
    for layer in range(layers):
        for name, shape in (("attn_q", (EMBEDDING, HEADS * HEAD_DIM)), ("attn_k", (EMBEDDING, key_width)),
                            ("attn_v", (EMBEDDING, key_width)), ("attn_output", (HEADS * HEAD_DIM, EMBEDDING)),
                            ("ffn_gate", (EMBEDDING, FEED_FORWARD)), ("ffn_up", (EMBEDDING, FEED_FORWARD)),
                            ("ffn_down", (FEED_FORWARD, EMBEDDING))):
            yield f"blk.{layer}.{name}.weight", shape, kind
        for name in ("attn_norm", "ffn_norm"):
            yield f"blk.{layer}.{name}.weight", (EMBEDDING,), "F32"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file")
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--type", default="BF16", choices=["BF16", "Q8_0"])
    flags = parser.parse_args()
    numbers = {"llama.block_count": flags.layers, "llama.embedding_length": EMBEDDING,
               "llama.feed_forward_length": FEED_FORWARD, "llama.attention.head_count": HEADS,
               "llama.attention.head_count_kv": KV_HEADS, "llama.context_length": 32768,
               "llama.rope.dimension_count": HEAD_DIM, "general.alignment": ALIGNMENT}
    pairs = text("general.architecture") + struct.pack("<I", STRING) + text("llama")
    for key, value in numbers.items():
        pairs += text(key) + struct.pack("<II", UINT32, value)
    for key, value in (("llama.attention.layer_norm_rms_epsilon", 1e-5), ("llama.rope.freq_base", 5e5)):
        pairs += text(key) + struct.pack("<If", FLOAT32, value)
    directory, offset, count = b"", 0, 0
    for name, shape, kind in tensors(flags.layers, flags.type):
        number, block, block_bytes = TYPES[kind]
        elements = 1
        for side in shape:
            elements *= side
        directory += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, number, offset)
        offset += -(-(elements // block * block_bytes) // ALIGNMENT) * ALIGNMENT
        count += 1
    head = b"GGUF" + struct.pack("<IQQ", 3, count, len(numbers) + 3) + pairs + directory
    begin = -(-len(head) // ALIGNMENT) * ALIGNMENT
    with open(flags.file, "wb") as out:
        out.write(head)
        out.truncate(begin + offset)


if __name__ == "__main__":
    main()
