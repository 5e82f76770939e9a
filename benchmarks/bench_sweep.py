"""The whole sweep through the command line: tokens a second, and memory against corpus length.

python benchmarks/bench_sweep.py CORPUS... [--model packaged] [--limits 1M 5M] [--set key=value]

Each limit is swept by a process of its own, whose peak memory the operating system reports.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

import harness


def main() -> None:
    """Sweeps each limit and prints a line for it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("corpus", nargs="*", default=["packaged"])
    parser.add_argument("--model", default="packaged")
    parser.add_argument("--limits", nargs="+", default=["1M", "5M"])
    parser.add_argument("--set", action="append", default=[], dest="settings")
    given = parser.parse_args()
    for limit in given.limits:
        measured = sweep(given, limit)
        print(
            f"{limit:>6}: {measured['tokens_per_second']:,.0f} tok/s, "
            f"{measured['seconds']:,.0f} s in all, peak {measured['peak_bytes'] / 2**20:,.0f} MiB, "
            f"{measured['disk_bytes'] / 2**20:,.0f} MiB on disk",
            flush=True,
        )
        described = {"corpus": [pathlib.Path(p).name for p in given.corpus], "model": given.model}
        harness.record("bench_sweep", {**described, "settings": given.settings, **measured})


def sweep(given: argparse.Namespace, limit: str) -> dict[str, object]:
    """One run in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "out"
        command = [sys.executable, "-c", "from jaxlens.cli import main; main()", "run"]
        command += ["--model", given.model, "--corpus", *given.corpus]
        command += ["--limit", limit, "--out", str(out)]
        command += [part for setting in given.settings for part in ("--set", setting)]
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        printed = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            sys.exit(f"the run failed with status {status}")
        return {
            "limit": limit,
            "seconds": time.perf_counter() - began,
            "tokens_per_second": float(re.search(r"([\d,]+) tok/s", printed)[1].replace(",", "")),
            "peak_bytes": usage.ru_maxrss * 1024,
            "disk_bytes": sum(p.stat().st_size for p in out.rglob("*") if p.is_file()),
        }


if __name__ == "__main__":
    main()
