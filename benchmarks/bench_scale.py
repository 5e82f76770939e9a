"""What many shards and many workers cost: the store's own code in a real folder, time simulated.

python benchmarks/bench_scale.py store [--shards 100000] [--folder DIR]
python benchmarks/bench_scale.py workers [--workers 1 10 100 1000] [--each 100]

``store`` makes a run of so many small shards and times what looks at all of them. ``workers``
simulates workers that commit shards to a real folder: what they do to the folder is what a sweep
does, and takes the time that it takes; only the computation of a shard is a number of seconds.
"""

from __future__ import annotations

import argparse
import collections
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import harness
import numpy as np
import simulated_workers
import small_run

from jaxlens import schema
from jaxlens.store import commit, layout, run_directory, segments
from jaxlens.store.hdf5 import images
from jaxlens.tally import definitions


def main() -> None:
    """Prints one of the tables and records it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("table", choices=["store", "workers"])
    parser.add_argument("--folder", type=pathlib.Path, help="on the disk to be measured")
    parser.add_argument("--shards", type=int, default=100_000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 10, 100, 1000])
    parser.add_argument("--policies", nargs="+", default=["fixed", "auto", "pull"])
    parser.add_argument("--each", type=int, default=100, help="shards a worker")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = pathlib.Path(name)
        if given.table == "store":
            harness.record("bench_scale_store", store(folder, given.shards))
        else:
            simulated = [
                simulated_workers.simulate(
                    folder / f"{workers}-{policy}", policy, workers, given.each
                )
                for workers in given.workers
                for policy in given.policies
            ]
            harness.record("bench_scale_workers", {"simulated": simulated})


def store(folder: pathlib.Path, n_shards: int) -> dict[str, Any]:
    """Times what looks at all shards of a run, each in a process of its own.

    Returns:
        Seconds (wall and CPU) and MiB (more than the interpreter with its imports) by action.
    """
    out = folder / "run"
    began = time.perf_counter()
    write(out, n_shards)
    print(f"{n_shards} shards written in {time.perf_counter() - began:.0f} s")
    calls = system_calls(out)
    print(f"{calls:.2f} system calls a shard, without segments")
    actions = ("missing", "finalize", "missing", "finalize", "open_run", "verify_fast")
    table: dict[str, Any] = {"shards": n_shards, "system_calls": calls, "actions": []}
    for number, action in enumerate(actions):
        when = "without segments" if number < 2 else "with segments"
        measured = in_process_of_its_own(action, out) | {"action": action, "when": when}
        table["actions"].append(measured)
        print(
            f"{action:12} {when:16} {measured['wall']:8.2f} s {measured['cpu']:8.2f} CPU s "
            f"{measured['mib']:6.0f} MiB"
        )
    return table


def write(out: pathlib.Path, n_shards: int) -> None:
    """Commits shards that differ in their places alone."""
    spec = small_run.spec_bytes(n_shards)
    run_directory.create_run(out, spec, small_run.DISK)
    random_rows = np.random.default_rng(0)
    sizes = {"layer": len(small_run.LAYERS), "k": 1}
    rows = {}
    for name in schema.CORE:
        dtype = np.dtype(schema.stored_dtype(name, "core", small_run.VOCAB_SIZE))
        shape = tuple(sizes.get(axis, small_run.ROWS) for axis in schema.QUANTITIES[name].axes)
        rows[name] = random_rows.integers(0, 3, shape).astype(dtype)
    tallies = {
        tally.name: np.zeros(
            definitions.shape(tally, len(small_run.LAYERS), small_run.VOCAB_SIZE), np.int64
        )
        for tally in definitions.BASIC
    }
    for shard in range(n_shards):
        image = images.shard_image(small_run.place(spec, shard), rows, tallies, small_run.LAYERS)
        commit.publish_shard(
            out, small_run.place(spec, shard), image, small_run.ROWS, small_run.DISK
        )


def system_calls(out: pathlib.Path) -> float:
    """Calls of the operating system that a look at a segment without stored records takes."""
    count = collections.Counter[str]()
    originals = {name: getattr(os, name) for name in ("open", "read", "fstat", "stat", "close")}

    def counted(name: str) -> Callable[..., Any]:
        def call(*given: Any, **options: Any) -> Any:
            count[name] += 1
            return originals[name](*given, **options)

        return call

    spec = layout.read_spec(out)
    for name in originals:
        setattr(os, name, counted(name))
    try:
        scan = segments.scan_segment(out, 0, spec.n_shards, spec.hash, trusting=False)
    finally:
        for name, original in originals.items():
            setattr(os, name, original)
    return count.total() / len(scan.table)


ACTIONS = """
import sys, time, resource
from jaxlens.store import finalize, layout, reader, shards, verify
out = sys.argv[2]
spec = layout.read_spec(out)
def missing(): return shards.missing_shards(out, spec.n_shards, spec.hash, "fast")
def open_run(): return reader.open_run(out)
def verify_fast(): return verify.verify(out, "fast")
act = {"missing": missing, "finalize": lambda: finalize.finalize(out), "open_run": open_run,
       "verify_fast": verify_fast}[sys.argv[1]]
kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
wall, cpu = time.perf_counter(), time.process_time()
kept = act()
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
print(wall, cpu, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - kib) / 1024)
"""


def in_process_of_its_own(action: str, out: pathlib.Path) -> dict[str, Any]:
    """Wall and CPU seconds of an action, and by how many MiB it makes the process larger."""
    command = [sys.executable, "-c", ACTIONS, action, os.fspath(out)]
    printed = subprocess.check_output(command, text=True)
    wall, cpu, mib = map(float, printed.split())
    return {"wall": wall, "cpu": cpu, "mib": mib}


if __name__ == "__main__":
    main()
