"""Runs of many small shards on a disk that does not sync, for `bench_scale.py`."""

from __future__ import annotations

import hashlib

from jaxlens import config
from jaxlens.files import system
from jaxlens.store import records

LAYERS, VOCAB_SIZE, ROWS = ("input", "h.0", "h.1"), 101, 4


class UnsyncedDisk(system.Disk):
    """The workers of a simulation share one disk, which must not wait for each of them."""

    def fsync(self, descriptor: int) -> None:
        """Does nothing."""

    def fsync_directory(self, path: str) -> None:
        """Does nothing."""


DISK = UnsyncedDisk()


def spec_bytes(n_shards: int) -> bytes:
    """Bytes of ``RUN.json``."""
    architecture = {"n_layer": len(LAYERS) - 1, "vocab_size": VOCAB_SIZE}
    return config.canonical(
        {
            "plan": {"n_shards": n_shards},
            "store": {"rows": "core", "shard_tokens": ROWS},
            "model": {"architecture": architecture},
        }
    )


def place(spec: bytes, shard: int) -> records.ShardRange:
    """Where a shard belongs."""
    return records.ShardRange(
        spec_hash=config.spec_hash(spec),
        shard=shard,
        token_start=shard * ROWS,
        token_stop=(shard + 1) * ROWS,
        tokens_sha256=hashlib.sha256(b"tokens").hexdigest(),
    )
