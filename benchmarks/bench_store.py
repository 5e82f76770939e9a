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
from jaxlens.store import commit, derive, image, layout, publish, records, verify

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
    found = []
    for profile, n_tokens in (("core", 65_536), ("full", 65_536), ("full", 262_144)):
        rows = random_rows(profile, n_tokens)
        size = sum(value.nbytes for value in rows.values())
        ways = candidates(folder, rows, n_tokens)
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(rounds + 1):
            for name, act in ways.items():
                began = time.perf_counter()
                act(number)
                if number:  # the first round warms up
                    seconds[name].append(time.perf_counter() - began)
        line = {name: size / MEGABYTE / statistics.median(taken) for name, taken in seconds.items()}
        print(f"{profile}, {n_tokens:,} tokens, {size / MEGABYTE:.0f} MB of rows")
        for name, rate in line.items():
            spread = (size / MEGABYTE / max(seconds[name]), size / MEGABYTE / min(seconds[name]))
            print(f"  {name:<44} {rate:7.0f} MB/s  ({spread[0]:.0f} to {spread[1]:.0f})")
        found.append({"profile": profile, "tokens": n_tokens, "bytes": size, "seconds": seconds})
    return found


def candidates(
    folder: pathlib.Path, rows: dict[str, np.ndarray], n_tokens: int
) -> dict[str, Callable[[int], None]]:
    """The ways, each a function of the round."""
    run = folder / f"run-{n_tokens}-{len(rows)}"
    spec = layout.create_run(run, spec_bytes(10**6))
    totals = random_totals()
    place = records.Place(
        spec_hash=spec.hash, shard=0, token_start=0, token_stop=n_tokens, tokens_sha256="0" * 64
    )
    made = image.shard_image(place, rows, totals, LAYER_NAMES)

    def commit_image(number: int) -> None:
        where = records.Place(**(vars(place) | {"shard": 2 * number}))
        commit.publish_shard(run, where, made, n_tokens)

    def commit_rows(number: int) -> None:
        where = records.Place(**(vars(place) | {"shard": 2 * number + 1}))
        commit.publish_shard(
            run, where, image.shard_image(where, rows, totals, LAYER_NAMES), n_tokens
        )

    def bare_file(number: int) -> None:
        publish.publish(run / f"bare-{number}", made)

    appended = {sync: h5py.File(folder / f"{run.name}-{sync}.h5", "w") for sync in (False, True)}
    return {
        "commit of rows: image, hash, record, fsync": commit_rows,
        "commit of an image: hash, record, fsync": commit_image,
        "publish of the bytes alone: fsync": bare_file,
        "h5py append, checksums, flush and fsync": lambda number: append(
            appended[True], rows, True
        ),
        "h5py append, checksums, flush, no fsync": lambda number: append(
            appended[False], rows, False
        ),
    }


def append(file: h5py.File, rows: dict[str, np.ndarray], sync: bool) -> None:
    """What one would write without a store: resizable datasets in one growing file."""
    for name, value in rows.items():
        if name not in file:
            chunks = (4096, *value.shape[1:])
            shape = (0, *value.shape[1:])
            file.create_dataset(
                name,
                shape,
                value.dtype,
                maxshape=(None, *shape[1:]),
                chunks=chunks,
                fletcher32=True,
            )
        item = file[name]
        item.resize(len(item) + len(value), axis=0)
        item[-len(value) :] = value
    file.flush()
    if sync:
        os.fsync(file.id.get_vfd_handle())


def verifying(folder: pathlib.Path, n_shards: int) -> dict[str, float]:
    """Seconds that `verify` takes for a run of many shards."""
    out, n_tokens = folder / "many", 256
    spec = layout.create_run(out, spec_bytes(n_shards))
    tokens = np.zeros(n_shards * n_tokens, "<u2").tobytes()
    publish.publish(out / layout.TOKENS / layout.TOKEN_FILE, tokens)
    index = image.arrays_image({"document_start": np.array([0, n_shards * n_tokens])}, {})
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
        place = records.Place(
            spec_hash=spec.hash,
            shard=shard,
            token_start=shard * n_tokens,
            token_stop=(shard + 1) * n_tokens,
            tokens_sha256=entry.sha256,
        )
        commit.publish_shard(
            out, place, image.shard_image(place, rows, totals, LAYER_NAMES), n_tokens
        )
    derive.finalize(out)
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
    """Processor time of committing, and of all else, in a sweep of the packaged model."""
    from jaxlens import compute, grace, job

    given = config.load([], {}, {"out": str(folder / "sweep"), "corpus.limit": 60_000})
    prepared = job.prepare(given, folder / "sweep-scratch")
    layout.create_run(prepared.out, prepared.spec_bytes)
    with prepared.ingested.open() as tokens:
        compiled = compute.compile_step(prepared, tokens)
        numbers = range(prepared.plan.n_shards)
        computing = committing = wall = waiting = 0.0
        walked = compute.shards(prepared, tokens, numbers, compiled, grace.Grace())
        began, at = time.process_time(), time.perf_counter()
        for shard in walked:
            computing += time.process_time() - began
            wall += time.perf_counter() - at
            began, at = time.process_time(), time.perf_counter()
            data, rows = compute.build(prepared, shard)
            commit.publish_shard(prepared.out, compute.place(prepared, shard.number), data, rows)
            committing += time.process_time() - began
            waiting += time.perf_counter() - at
            began, at = time.process_time(), time.perf_counter()
    share = committing / (computing + committing)
    print(
        f"sweep of the packaged model, {len(numbers)} shards: committing takes {share:.2%} of the "
        f"processor time, {1000 * committing / len(numbers):.1f} ms a shard;\n"
        f"  in a thread of its own: {waiting:.2f} s of wall time beside {wall:.2f} s of computing"
    )
    return {
        "shards": len(numbers),
        "computing_cpu_seconds": computing,
        "committing_cpu_seconds": committing,
        "computing_seconds": wall,
        "committing_seconds": waiting,
    }


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
        values = random.integers(0, 2**16, shape)
        found[name] = values.astype(dtype)
    return found


def random_totals() -> dict[str, np.ndarray]:
    """Totals as sparse as those of a shard are."""
    random = np.random.default_rng(1)
    found = {}
    for tally in schema.BASIC_TALLIES:
        values = random.integers(0, 1000, schema.tally_shape(tally, N_LAYER + 1, VOCAB_SIZE))
        found[tally.name] = np.where(random.random(values.shape) < 0.1, values, 0)
    return found


if __name__ == "__main__":
    main()
