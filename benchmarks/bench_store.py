"""What durability costs: committing shards beside a plain h5py append of the same rows.

python benchmarks/bench_store.py [--folder DIR] [--rounds 5] [--shards 1000] [--run]

Three tables: megabytes of rows a second (one thread, no compression), the time that `verify` takes,
and, with --run, the share of a real sweep's processor time that goes into committing its shards.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable

import h5py
import harness
import numpy as np

from jaxlens import config, schema
from jaxlens.files import publish
from jaxlens.store import commit, finalize, layout, records, run_directory, verify
from jaxlens.store.hdf5 import buffers, images
from jaxlens.tally import definitions

N_LAYER, VOCAB_SIZE = 12, 50_257
LAYER_NAMES = ("input", *(f"h.{i}" for i in range(N_LAYER)))
SIZES = {"layer": N_LAYER + 1, "k": 1}
MEGABYTE = 1e6


def main() -> None:
    """Prints the tables and records them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=pathlib.Path, help="on the disk to be measured")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shards", type=int, default=1000)
    parser.add_argument("--run", action="store_true", help="sweep the packaged model too")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = pathlib.Path(name)
        measured: dict[str, object] = {"rates": rates(folder, given.rounds)}
        measured["verify"] = verifying(folder, given.shards)
        if given.run:
            measured["overhead"] = overhead(folder)
    harness.record("bench_store", measured)


def rates(folder: pathlib.Path, rounds: int) -> list[dict[str, object]]:
    """Megabytes a second of several ways to bring the same rows to the disk."""
    found: list[dict[str, object]] = []
    for profile, n_tokens in (
        ("core", 65_536),
        ("full", 65_536),
        ("full", 262_144),
        ("core", 1_048_576),
    ):
        rows = random_rows(profile, n_tokens)
        size = sum(value.nbytes for value in rows.values())
        ways = candidates(folder, rows, n_tokens)
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(rounds + 1):
            for name, act in ways.items():
                began = time.perf_counter()
                clean = act()
                if number:  # the first round warms up
                    seconds[name].append(time.perf_counter() - began)
                # A virtual machine may have to be given memory for every page that it has not
                # used yet; so that the disk is measured and not that, each way gives it back.
                clean()
        line = {name: size / MEGABYTE / statistics.median(taken) for name, taken in seconds.items()}
        print(f"{profile}, {n_tokens:,} tokens, {size / MEGABYTE:.0f} MB of rows")
        for name, rate in line.items():
            spread = (size / MEGABYTE / max(seconds[name]), size / MEGABYTE / min(seconds[name]))
            print(f"  {name:<44} {rate:7.0f} MB/s  ({spread[0]:.0f} to {spread[1]:.0f})")
        found.append({"profile": profile, "tokens": n_tokens, "bytes": size, "seconds": seconds})
    return found


def candidates(
    folder: pathlib.Path, rows: dict[str, np.ndarray], n_tokens: int
) -> dict[str, Callable[[], Callable[[], object]]]:
    """The ways; each returns what removes its files again."""
    run = folder / f"run-{n_tokens}-{len(rows)}"
    spec = run_directory.create_run(run, spec_bytes(10**6))
    totals = random_totals()
    place = records.ShardRange(
        spec_hash=spec.hash, shard=0, token_start=0, token_stop=n_tokens, tokens_sha256="0" * 64
    )
    made = images.shard_image(place, rows, totals, LAYER_NAMES)

    def commit_image() -> Callable[[], object]:
        commit.publish_shard(run, place, made, n_tokens)
        return lambda: commit.discard(run, 0)

    memory = buffers.Buffer()

    def commit_rows() -> Callable[[], object]:
        again = images.shard_image(place, rows, totals, LAYER_NAMES, buffer=memory)
        commit.publish_shard(run, place, again, n_tokens)
        return lambda: commit.discard(run, 0)

    def bare_file() -> Callable[[], object]:
        publish.publish(run / "bare", made)
        return (run / "bare").unlink

    def append(sync: bool) -> Callable[[], object]:
        with h5py.File(folder / "appended.h5", "w") as file:
            for name, value in rows.items():
                chunks, longest = (4096, *value.shape[1:]), (None, *value.shape[1:])
                item = file.create_dataset(
                    name,
                    (0, *value.shape[1:]),
                    value.dtype,
                    maxshape=longest,
                    chunks=chunks,
                    fletcher32=True,
                )
                item.resize(len(value), axis=0)
                item[:] = value
            file.flush()
            if sync:
                os.fsync(file.id.get_vfd_handle())
        return (folder / "appended.h5").unlink

    return {
        "commit of rows: image, hash, record, fsync": commit_rows,
        "commit of an image: hash, record, fsync": commit_image,
        "publish of the bytes alone: fsync": bare_file,
        "h5py append, checksums, flush and fsync": lambda: append(True),
        "h5py append, checksums, flush, no fsync": lambda: append(False),
    }


def verifying(folder: pathlib.Path, n_shards: int) -> dict[str, float]:
    """Seconds that `verify` takes for a run of many shards."""
    out, n_tokens = folder / "many", 256
    spec = run_directory.create_run(out, spec_bytes(n_shards))
    tokens = np.zeros(n_shards * n_tokens, "<u2").tobytes()
    publish.publish(out / layout.TOKENS / layout.TOKEN_FILE, tokens)
    index = images.arrays_image({"document_start": np.array([0, n_shards * n_tokens])}, {})
    publish.publish(out / layout.TOKENS / layout.TOKEN_INDEX, index)
    entry = records.Tokens(
        sha256=hashlib.sha256(tokens).hexdigest(),
        n_tokens=n_shards * n_tokens,
        dtype="uint16",
        index_sha256=hashlib.sha256(index).hexdigest(),
    )
    publish.publish(out / layout.TOKENS / layout.TOKEN_RECORD, records.encode_tokens(entry))
    rows, totals = random_rows("core", n_tokens), random_totals()
    for shard in range(n_shards):
        place = records.ShardRange(
            spec_hash=spec.hash,
            shard=shard,
            token_start=shard * n_tokens,
            token_stop=(shard + 1) * n_tokens,
            tokens_sha256=entry.sha256,
        )
        commit.publish_shard(
            out, place, images.shard_image(place, rows, totals, LAYER_NAMES), n_tokens
        )
    finalize.finalize(out)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    seconds = {}
    for level in ("fast", "full"):
        taken = []
        for _ in range(3):
            began = time.perf_counter()
            assert verify.verify(out, level).ok
            taken.append(time.perf_counter() - began)
        seconds[level] = statistics.median(taken)
        about = f"{n_shards:,} shards of {size / MEGABYTE:.0f} MB"
        print(f"verify, {level}, {about}: {seconds[level]:.2f} s")
    return seconds | {"shards": n_shards, "bytes": size}


def overhead(folder: pathlib.Path) -> dict[str, float]:
    """Processor time of building and of committing shards, in a sweep of the packaged model."""
    from jaxlens.sweep import compute, preemption, prepare, workers

    given = config.load([], {}, {"out": str(folder / "sweep"), "corpus.limit": 60_000})
    prepared = prepare.prepare(given, folder / "sweep-scratch")
    run_directory.create_run(prepared.out, prepared.spec_bytes)
    seconds = {"building": 0.0, "committing": 0.0}
    with prepared.ingested.open() as tokens:
        devices = workers.compile_workers(prepared)
        numbers = range(prepared.plan.n_shards)
        memory = buffers.Buffer()
        began, wall = time.process_time(), time.perf_counter()
        for shard in compute.shards(prepared, tokens, numbers, devices, preemption.StopRequest()):
            # Of this thread alone: the device computes the next step meanwhile.
            at = time.thread_time()
            data, rows = compute.build(prepared, shard, memory)
            seconds["building"] += time.thread_time() - at
            at = time.thread_time()
            place = compute.shard_range(prepared, shard.number)
            commit.publish_shard(prepared.out, place, data, rows)
            seconds["committing"] += time.thread_time() - at
        seconds["all"] = time.process_time() - began
        seconds["wall"] = time.perf_counter() - wall
    print(
        f"sweep of the packaged model, {len(numbers)} shards of 4,096 tokens, "
        f"{seconds['all'] / len(numbers):.2f} s of processor time each:"
    )
    for name in ("building", "committing"):
        each, share = seconds[name] / len(numbers), seconds[name] / seconds["all"]
        print(f"  {name} the image {1000 * each:6.1f} ms a shard, {share:.2%}")
    return {"shards": len(numbers), **seconds}


def spec_bytes(n_shards: int) -> bytes:
    """A spec that the store accepts."""
    architecture = {"n_layer": N_LAYER, "vocab_size": VOCAB_SIZE}
    return config.canonical(
        {"plan": {"n_shards": n_shards}, "model": {"architecture": architecture}}
    )


def random_rows(profile: str, n_tokens: int) -> dict[str, np.ndarray]:
    """Rows of random bits, which no disk can make smaller."""
    random = np.random.default_rng(0)
    found = {}
    for name in schema.PROFILES[profile]:
        axes = schema.QUANTITIES[name].axes
        shape = tuple(SIZES.get(axis, n_tokens) for axis in axes)
        dtype = np.dtype(schema.stored_dtype(name, profile, VOCAB_SIZE))
        raw = random.integers(0, 2**8, (*shape, dtype.itemsize), np.uint8)
        found[name] = raw.view(dtype)[..., 0]
    return found


def random_totals() -> dict[str, np.ndarray]:
    """Totals as sparse as those of a shard are."""
    random = np.random.default_rng(1)
    found = {}
    for tally in definitions.BASIC:
        values = random.integers(0, 1000, definitions.shape(tally, N_LAYER + 1, VOCAB_SIZE))
        found[tally.name] = np.where(random.random(values.shape) < 0.1, values, 0)
    return found


if __name__ == "__main__":
    main()
