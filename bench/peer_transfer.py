#!/usr/bin/env python3
"""How fast NIXL or Mooncake reads shuffled blocks from another process, for `baton bench transfer`.

    python3 -m venv ../peers
    ../peers/bin/pip install numpy nixl mooncake-transfer-engine-non-cuda
    ../peers/bin/python bench/peer_transfer.py --engine nixl

Both are packages for Python whose data path is native; they are no part of Baton. A transfer is
one call for --transfer-bytes in blocks of --block-bytes, shuffled on either side, out of a slab of
--slab-bytes on each, walked through in turn as `baton bench transfer` does. GB/s, medians. Neither
engine checksums what it moves; this script compares the bytes of the last transfer.
"""

import argparse
import json
import multiprocessing
import os
import random
import statistics
import sys
import time


def pattern(size):
    """Bytes that differ between any two places that a block can begin at."""
    import numpy

    return numpy.arange(size // 8, dtype=numpy.uint64)


class Nixl:
    """Reads by UCX from the source's memory, one agent a process."""

    def __init__(self, tls):
        if tls:
            os.environ["UCX_TLS"] = tls
        os.environ.setdefault("NIXL_LOG_LEVEL", "ERROR")

    def open(self, name, memory):
        from nixl._api import nixl_agent, nixl_agent_config

        self.agent = nixl_agent(name, nixl_agent_config(backends=["UCX"]))
        self.memory = memory
        region = [(memory.ctypes.data, memory.nbytes, 0, "")]
        self.registered = self.agent.register_memory(region, "DRAM")
        return self.agent.get_agent_metadata()

    def connect(self, metadata, remote_base):
        self.remote = self.agent.add_remote_agent(metadata)
        self.remote_base = remote_base

    def prepare(self, local, remote, block):
        """What does one transfer when called; the request is made here and costs it nothing."""

        def descriptors(base, offsets):
            return self.agent.get_xfer_descs([(base + at, block, 0) for at in offsets], "DRAM")

        ours = descriptors(self.memory.ctypes.data, local)
        theirs = descriptors(self.remote_base, remote)

        request = self.agent.initialize_xfer("READ", ours, theirs, self.remote)

        def run():
            state = self.agent.transfer(request)
            while state == "PROC":
                state = self.agent.check_xfer_state(request)
            if state != "DONE":
                raise RuntimeError(f"nixl ended with {state}")
            self.agent.release_xfer_handle(request)

        return run


class Mooncake:
    """Reads by TCP, one engine a process."""

    def __init__(self, tls):
        if tls:
            raise SystemExit("--tls is for nixl: mooncake reads by TCP")

    def open(self, name, memory):
        from mooncake.engine import TransferEngine

        self.engine = TransferEngine()
        if self.engine.initialize("127.0.0.1", "P2PHANDSHAKE", "tcp", "") != 0:
            raise RuntimeError("mooncake does not start")
        self.memory = memory
        if self.engine.register_memory(memory.ctypes.data, memory.nbytes) != 0:
            raise RuntimeError(f"mooncake does not register {memory.nbytes} bytes")
        return f"127.0.0.1:{self.engine.get_rpc_port()}".encode()

    def connect(self, metadata, remote_base):
        self.remote = metadata.decode()
        self.remote_base = remote_base

    def prepare(self, local, remote, block):
        ours = [self.memory.ctypes.data + at for at in local]
        theirs = [self.remote_base + at for at in remote]
        sizes = [block] * len(ours)

        def run():
            if self.engine.batch_transfer_sync_read(self.remote, ours, theirs, sizes) != 0:
                raise RuntimeError("mooncake's read failed")

        return run


ENGINES = {"nixl": Nixl, "mooncake": Mooncake}


def source(engine_name, tls, slab_bytes, pipe):
    engine = ENGINES[engine_name](tls)
    memory = pattern(slab_bytes)
    pipe.send((engine.open("source", memory), memory.ctypes.data))
    pipe.recv()  # until the target is done


def shuffled_apart(count, rng):
    """A permutation of blocks in which none follows its predecessor's neighbour."""
    order = list(range(count))
    rng.shuffle(order)
    for i in range(1, count):
        if order[i] == order[i - 1] + 1:
            order[i], order[i - 1] = order[i - 1], order[i]
    return order


def measure(engine, memory, options, block, rng):
    blocks = options.slab_bytes // block
    each = max(1, options.transfer_bytes // block)
    ours, theirs = shuffled_apart(blocks, rng), shuffled_apart(blocks, rng)
    seconds = []
    for number in range(options.repeat + 1):
        places = [(number * each + i) % blocks for i in range(each)]
        local = [ours[i] * block for i in places]
        remote = [theirs[i] * block for i in places]
        run = engine.prepare(local, remote, block)
        begin = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - begin)
    words = block // 8
    for mine, other in zip(local, remote):
        got = memory[mine // 8 : mine // 8 + words]
        if got[0] != other // 8 or got[-1] != other // 8 + words - 1:
            raise RuntimeError(f"block at {other} did not come as it was")
    return each * block / statistics.median(seconds[1:]) / 1e9


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", choices=sorted(ENGINES), required=True)
    parser.add_argument("--tls", default="", help="nixl: UCX_TLS, as posix,sysv,cma or tcp")
    parser.add_argument("--block-bytes", type=int, nargs="+", default=[16384, 65536, 1048576])
    parser.add_argument("--transfer-bytes", type=int, default=32 << 20)
    parser.add_argument("--slab-bytes", type=int, default=256 << 20)
    parser.add_argument("--repeat", type=int, default=15)
    options = parser.parse_args()
    for block in options.block_bytes:
        if block < 4096 or options.slab_bytes % block or block > options.transfer_bytes:
            parser.error(f"blocks of {block} bytes do not divide a slab of {options.slab_bytes}")

    here, there = multiprocessing.get_context("spawn").Pipe()
    arguments = (options.engine, options.tls, options.slab_bytes, there)
    process = multiprocessing.get_context("spawn").Process(target=source, args=arguments)
    process.start()
    try:
        engine = ENGINES[options.engine](options.tls)
        memory = pattern(options.slab_bytes)
        memory[:] = 0
        engine.open("target", memory)
        while not here.poll(1):
            if not process.is_alive():
                raise RuntimeError(f"the source ended with {process.exitcode}")
        engine.connect(*here.recv())
        rng = random.Random(1)
        for block in options.block_bytes:
            rate = measure(engine, memory, options, block, rng)
            print(json.dumps({"engine": options.engine, "block_bytes": block,
                              "gb_per_s": round(rate, 2)}), flush=True)
        here.send("done")
    finally:
        process.join(5)
        if process.is_alive():
            process.kill()


if __name__ == "__main__":
    sys.exit(main())
