"""The whole sweep through the command line: tokens a second, memory, rows, workers.

python benchmarks/bench_sweep.py [CORPUS...] [--limits 1M 5M] [--rows full none]
    [--workers 1 2 ray:2] [--rounds 3] [--model packaged] [--set key=value]

Every combination of limit, rows and workers is swept in turn (A B C A B C ...), each by processes
of their own, whose peak memory the operating system reports. Several workers share a run with
`--shard I/N`, each with its part of the devices, or on a Ray cluster of their own; the text is
tokenised before. Rates begin when a worker is ready.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

import harness

CODE = "from jaxlens.cli.main import main; main()"


def main() -> None:
    """Sweeps every combination and prints a line for each."""
    given = _arguments()
    combinations = list(itertools.product(given.limits, given.rows, given.workers))
    found: dict[tuple[str, str, str], list[dict[str, float]]] = {c: [] for c in combinations}
    for _ in range(given.rounds):
        for combination in combinations:
            found[combination].append(sweep(given, *combination))
            print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    first = None
    for (limit, rows, workers), rounds in found.items():
        middle = statistics.median(one["tokens_per_second"] for one in rounds)
        first = first or middle
        peak = max(one["peak_bytes"] for one in rounds) / 2**20
        disk = rounds[0]["disk_bytes"] / 2**20
        print(
            f"{limit:>6} rows {rows:<5} {workers} workers: {middle:8,.0f} tok/s, "
            f"{middle / first:.3f} of the first, peak {peak:,.0f} MiB, {disk:,.0f} MiB on disk"
        )
        described = {"corpus": [pathlib.Path(p).name for p in given.corpus], "model": given.model}
        described |= {"limit": limit, "rows": rows, "workers": workers}
        harness.record("bench_sweep", {**described, "settings": given.settings, "runs": rounds})


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("corpus", nargs="*", default=["packaged"])
    parser.add_argument("--model", default="packaged")
    parser.add_argument("--limits", nargs="+", default=["1M"])
    parser.add_argument("--rows", nargs="+", default=["full"], choices=("none", "core", "full"))
    parser.add_argument("--workers", nargs="+", default=["1"])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], dest="settings")
    return parser.parse_args()


def sweep(given: argparse.Namespace, limit: str, rows: str, workers: str) -> dict[str, float]:
    """One run: what its workers reached together, and the greatest peak among them."""
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "out"
        common = ["--model", given.model, "--corpus", *given.corpus, "--limit", limit]
        common += ["--out", str(out)]
        common += [part for setting in given.settings for part in ("--set", setting)]
        start(["tokenize", *common]).communicate()
        began = time.perf_counter()
        processes = [start([*command, "--rows", rows]) for command in commands(common, workers)]
        told = [process.stdout.read().decode() for process in processes if process.stdout]
        ended = [os.wait4(process.pid, 0) for process in processes]
        if any(status for _, status, _ in ended):
            sys.exit("a run failed")
        return {
            "seconds": time.perf_counter() - began,
            "tokens_per_second": rate(out, told),
            "peak_bytes": max(usage.ru_maxrss for _, _, usage in ended) * 1024,
            "disk_bytes": sum(p.stat().st_size for p in out.rglob("*") if p.is_file()),
        }


def commands(common: list[str], workers: str) -> list[list[str]]:
    """What is started at once for so many workers."""
    run, number = ["run", *common], int(workers.removeprefix("ray:"))
    if workers.startswith("ray:"):
        return [[*run, "--distributed", "ray", "--workers", str(number)]]
    own = ["--set", f"devices={max(1, (os.cpu_count() or 1) // number)}"] * (number > 1)
    return [[*run, "--shard", f"{i}/{number}", *own] for i in range(number)]


def rate(out: pathlib.Path, told: list[str]) -> float:
    """Tokens a second: as a single command printed it, or of all workers that computed any."""
    if len(told) == 1 and (found := re.search(r"([\d,]+) tok/s", told[0])):
        return float(found[1].replace(",", ""))
    notes = [json.loads(path.read_text()) for path in out.glob("environment/*.json")]
    return sum(note["measured"].get("tokens_per_second", 0) for note in notes)


def start(arguments: list[str]) -> subprocess.Popen[bytes]:
    """A command of jaxlens in a process of its own."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([sys.executable, "-c", CODE, *arguments], **streams)


if __name__ == "__main__":
    main()
