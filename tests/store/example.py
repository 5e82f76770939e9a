"""A small run whose shards are a pure function of their number; also a process to kill.

``python example.py OUT SHARDS ROWS`` begins or resumes such a run, without jax.
"""

import dataclasses
import functools
import hashlib
import os
import sys
import zlib
from pathlib import Path

import numpy as np

from jaxlens import config, schema
from jaxlens.files import publish, system
from jaxlens.store import bounds, commit, finalize, layout, records, run_directory, shards, writer
from jaxlens.store.hdf5 import images
from jaxlens.tally import bins, definitions

VOCAB_SIZE = 101
LAYER_NAMES = ("input", "h.0", "h.1", "h.2")
N_LAYERS = len(LAYER_NAMES)
ARCHITECTURE = {"n_layer": N_LAYERS - 1, "vocab_size": VOCAB_SIZE}
SIZES = {
    "layer": N_LAYERS,
    "k": 2,
    "quantity": len(schema.SUMMED),
    "reference": len(schema.REFERENCES),
    "ln_rank_bin": len(bins.LN_RANK_EDGES) - 1,
    "vocab": VOCAB_SIZE,
}


if shards_per_segment := os.environ.get("SHARDS_PER_SEGMENT"):  # for scripts of tests
    layout.SHARDS_PER_SEGMENT = int(shards_per_segment)


class FastDisk(system.Disk):
    """A disk that keeps nothing through a power loss; for tests that cut no power."""

    def fsync(self, descriptor):
        pass

    def fsync_directory(self, path):
        pass


FAST = FastDisk()


def spec(n_shards=3, rows=24, profile="core", **more):
    """Bytes of ``RUN.json``."""
    store = {"rows": profile, "shard_tokens": rows}
    document = {
        "plan": {"n_shards": n_shards},
        "store": store,
        "model": {"seed": 0, "architecture": ARCHITECTURE},
    } | more
    return config.canonical(document)


def manifest(spec_hash, entries):
    """Bytes of ``MANIFEST``, written a line at a time."""
    lines = [spec_hash.encode()]
    for entry in entries:
        text = records.encode(entry).rstrip(b"\n")
        lines.append(b"%08x %b" % (zlib.crc32(text), text))
    return b"\n".join(lines) + b"\n"


@functools.lru_cache
def tokens(n_shards, rows):
    """The token file."""
    return np.random.default_rng(5).integers(0, VOCAB_SIZE, n_shards * rows).astype("<u2")


def place(spec_bytes, shard, n_shards=3, rows=24):
    """Where a shard belongs."""
    return records.ShardRange(
        spec_hash=config.spec_hash(spec_bytes),
        shard=shard,
        token_start=shard * rows,
        token_stop=(shard + 1) * rows,
        tokens_sha256=hashlib.sha256(tokens(n_shards, rows)).hexdigest(),
    )


def compute_rows(shard, rows, profile="core", salt=0):
    """Rows of a shard, some of them missing; with salt, as another machine might compute them."""
    random = np.random.default_rng([7, shard, salt] if salt else [7, shard])
    found = {}
    for name in schema.PROFILES[profile]:
        quantity = schema.QUANTITIES[name]
        shape = tuple(SIZES.get(axis, rows) for axis in quantity.axes)
        dtype = np.dtype(schema.stored_dtype(name, profile, VOCAB_SIZE))
        if quantity.kind == "float":
            values = random.gamma(2.0, 1.0, shape)
            values[random.random(shape) < 0.05] = np.nan
        else:
            most = bounds.LIMITS.get(name, VOCAB_SIZE)
            # Sizes of the run, such as its number of tokens, are no less than the rows of a shard.
            values = random.integers(0, most if isinstance(most, int) else rows, shape)
        if quantity.kind == "id" and name not in bounds.ALWAYS:
            values[random.random(shape) < 0.1] = np.iinfo(dtype).max
        found[name] = values.astype(dtype)
    return found


def compute_tallies(shard):
    """Totals of a shard; not those of its rows, which no test needs."""
    random = np.random.default_rng([11, shard])
    return {
        tally.name: random.integers(0, 5, tuple(SIZES[axis] for axis in tally.axes))
        for tally in definitions.BASIC
    }


def shard_image(spec_bytes, shard, n_shards=3, rows=24, profile="core", salt=0):
    """Image of a shard."""
    return _shard_image(spec_bytes, shard, n_shards, rows, profile, salt)


@functools.lru_cache(maxsize=512)
def _shard_image(spec_bytes, shard, n_shards, rows, profile, salt):
    where = place(spec_bytes, shard, n_shards, rows)
    data = compute_rows(shard, rows, profile, salt)
    skipped = {"empty": shard}
    return bytes(
        images.shard_image(where, data, compute_tallies(shard), LAYER_NAMES, skipped=skipped)
    )


@functools.lru_cache
def token_index(n_tokens):
    """Image of the index of the token file."""
    return bytes(images.arrays_image({"document_start": np.array([0, n_tokens])}, {}))


def publish_tokens(out, n_shards, rows, disk):
    """The token file, its index and its record."""
    folder = Path(out) / layout.TOKENS
    publish.make_directory(folder, disk)
    data = tokens(n_shards, rows)
    with publish.stream(folder / layout.TOKEN_FILE, disk) as stream:
        stream.write(data[: len(data) // 2].tobytes())
        stream.write(data[len(data) // 2 :].tobytes())
    index = token_index(len(data))
    publish.publish(folder / layout.TOKEN_INDEX, index, disk)
    entry = records.Tokens(
        sha256=stream.sha256,
        n_tokens=len(data),
        dtype="uint16",
        index_sha256=hashlib.sha256(index).hexdigest(),
    )
    publish.publish(folder / layout.TOKEN_RECORD, records.encode_tokens(entry), disk)


DOCUMENTS = (b"first", "zweites/\u00fc\u202e".encode(), b"=cmd|' /C calc'!A0", b"la\nst")


def token_strings():
    """Bytes of the tokens: ordinary ones, one that no id has, parts of characters, controls."""
    odd = [b"", b"\xc3", b"\n", b"\x1b[31m", b'"', b"\\", b",", "\u2028".encode(), b"=1", b" NA"]
    return np.array([*odd, *(b" t%d" % i for i in range(len(odd), VOCAB_SIZE))], np.bytes_)


def index_arrays(n_shards, rows):
    """An index of the token file as the tokenising stage makes it, of four documents."""
    data = tokens(n_shards, rows)
    starts = np.array([0, 5, len(data) // 3, len(data) // 2, len(data)])
    halves = np.split(data, [starts[2]])
    return {
        "document_start": starts,
        "document_hash": np.arange(4, dtype=np.uint64) * 2**60 + 3,
        "document_id": np.array(DOCUMENTS, np.bytes_),
        "token_counts": np.stack([np.bincount(half, minlength=VOCAB_SIZE) for half in halves]),
        "token_strings": token_strings(),
    }


def publish_index(out, arrays, n_tokens, documents=4, **changes):
    """Replaces the index of a run's token file, and its record."""
    folder = Path(out) / layout.TOKENS
    index = bytes(images.arrays_image(arrays, {}))
    publish.publish(folder / layout.TOKEN_INDEX, index, FAST)
    entry = records.Tokens(
        **{
            "sha256": hashlib.sha256((folder / layout.TOKEN_FILE).read_bytes()).hexdigest(),
            "n_tokens": n_tokens,
            "dtype": "uint16",
            "index_sha256": hashlib.sha256(index).hexdigest(),
        }
        | changes
    )
    more = {} if documents is None else {"documents": documents}
    publish.publish(folder / layout.TOKEN_RECORD, records.encode_tokens(entry, more), FAST)


def write_run(out, n_shards=3, rows=24, profile="core", disk=FAST, more=None):
    """Begins or resumes a run; returns the shards that it computed."""
    missing = write_shards(out, n_shards, rows, profile, disk, more)
    finalize.finalize(out, disk)
    return missing


def write_shards(out, n_shards=3, rows=24, profile="core", disk=FAST, more=None, salt=0):
    """Begins or resumes a run without finishing it; returns the shards that it computed."""
    spec_bytes = spec(n_shards, rows, profile, **(more or {}))
    run = run_directory.create_run(out, spec_bytes, disk)
    publish_tokens(out, n_shards, rows, disk)
    missing = shards.missing_shards(out, n_shards, run.hash)
    with writer.Writer() as publisher:
        for shard in missing:
            made = shard_image(spec_bytes, shard, n_shards, rows, profile, salt)
            where = place(spec_bytes, shard, n_shards, rows)
            kept = rows if schema.PROFILES[profile] else 0
            job = functools.partial(commit.publish_shard, out, where, memoryview(made), kept, disk)
            publisher.submit(job)
    return missing


def tree(out):
    """Every file of a run with its bytes."""
    files = (path for path in Path(out).rglob("*") if path.is_file())
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


def damage(out, number, at=-1):
    """Flips a bit of a shard."""
    path = layout.shard_path(out, number)
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    path.write_bytes(raw)


def replace_record(out, number, /, **changes):
    """Changes a sidecar, canonically."""
    path = layout.sidecar_path(out, number)
    entry = records.parse_record(path.read_bytes(), "")
    path.write_bytes(records.encode(dataclasses.replace(entry, **changes)))


if __name__ == "__main__":
    write_run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), disk=system.DISK)
