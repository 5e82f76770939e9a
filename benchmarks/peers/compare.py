"""jaxlens beside its peers: the same tokens, weights and quantities, one process at a time.

benchmarks/peers/setup.sh FOLDER
python benchmarks/peers/compare.py FOLDER [--tokens 256] [--rounds 5] [--device cpu] [--compile]

Every candidate runs in a process of its own, in turn (A B C A B C ...), and is warmed up before
each timing. Whoever computes other numbers than jaxlens is named, and nothing is recorded: the
exit status is 1. Figures are recorded in `benchmarks/results/peers.jsonl`; `table.py` makes the
table of the README from them. The process itself stays small, because on Linux a child's peak
memory begins at its parent's.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
from typing import Any

import agree
import case
import numpy as np
import table

HERE = pathlib.Path(__file__).resolve().parent
OURS = ("jaxlens", "jaxlens-bfloat16")
CANDIDATES: dict[str, tuple[str | None, list[str]]] = {  # environment, script and its options
    "jaxlens": (None, ["run_jaxlens.py"]),
    "jaxlens-bfloat16": (None, ["run_jaxlens.py", "--precision", "bfloat16"]),
    "pytorch": ("pytorch", ["run_pytorch.py"]),
    "pytorch-bfloat16": ("pytorch", ["run_pytorch.py", "--precision", "bfloat16"]),
    "pytorch-whole": ("pytorch", ["run_pytorch.py", "--whole"]),
    "pytorch-onednn": ("pytorch", ["run_pytorch.py", "--onednn"]),
    "pytorch-compile": ("pytorch", ["run_pytorch.py", "--compile"]),
    "transformer-lens": ("transformer_lens", ["run_transformer_lens.py"]),
    "tuned-lens": ("tuned_lens", ["run_tuned_lens.py"]),
    "nnsight": ("nnsight", ["run_nnsight.py"]),
}


def main() -> None:
    """Runs everybody, checks, prints, records."""
    given = _arguments()
    names = [n for n in CANDIDATES if n in given.only or n == "jaxlens"]
    load = os.getloadavg()
    with tempfile.TemporaryDirectory(prefix="jaxlens-peers-") as scratch:
        folder = pathlib.Path(scratch)
        made = [sys.executable, str(HERE / "case.py"), str(folder / "model"), "--shape"]
        subprocess.run([*made, given.shape], check=True)
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        for number in range(given.rounds):
            for name in names:
                runs[name].append(at_rest(name, given, folder))
                rate = given.tokens / min(runs[name][-1]["seconds"])
                print(f"round {number + 1}: {name:<18} {rate:8.1f} tok/s", file=sys.stderr)
        agreement = check(names, folder, case.SHAPES[given.shape]["vocab_size"])
    measured = {name: summarise(runs[name], given.tokens) for name in names}
    show(measured, agreement)
    settings = {"shape": given.shape, "tokens": given.tokens, "device": given.device}
    settings |= {
        "length": given.length,
        "rounds": given.rounds,
        "repeats": given.repeats,
        "note": given.note,
    }
    settings |= {"only": given.only} if given.some else {}
    settings |= {"patience": given.patience, "load_before": load, "quantities": case.QUANTITIES}
    sys.path.insert(0, str(HERE.parent))
    import harness

    harness.record("peers", {**settings, "measured": measured, "agreement": agreement})


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("environments", type=pathlib.Path, help="folder of setup.sh")
    parser.add_argument("--shape", choices=case.SHAPES, default="gpt2")
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--length", type=int, default=256, help="tokens a line")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=2, help="timings in each process")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--compile", action="store_true", help="torch.compile as well")
    parser.add_argument("--only", nargs="+", choices=CANDIDATES, help="besides jaxlens")
    parser.add_argument(
        "--patience", type=int, default=3, help="repetitions of a process that was kept waiting"
    )
    parser.add_argument("--note", default="", help="what should be known, such as 'under load'")
    given = parser.parse_args()
    given.some = given.only is not None
    if given.only is None:
        left_out = {"pytorch-onednn"} if given.device != "cpu" else set()
        left_out |= set() if given.compile else {"pytorch-compile"}
        given.only = [name for name in CANDIDATES if name not in left_out]
    return given


def at_rest(name: str, given: argparse.Namespace, folder: pathlib.Path) -> dict[str, Any]:
    """One process, again where something else had the processors; speed is not looked at."""
    again = 0
    while True:
        one = run(name, given, folder)
        busy = sum(one["processor_seconds"]) / sum(one["seconds"])
        if again == given.patience or busy >= table.STARVED * one["threads"]:
            return {**one, "again": again}
        again += 1


def run(name: str, given: argparse.Namespace, folder: pathlib.Path) -> dict[str, Any]:
    """One process; its numbers stay in the folder, its figures are returned."""
    environment, (script, *options) = CANDIDATES[name]
    python = pathlib.Path(sys.executable)
    if environment is not None:
        python = given.environments / environment / "bin" / "python"
    if not python.exists():
        sys.exit(f"{name} has no environment; run {HERE.name}/setup.sh {given.environments}")
    command = [str(python), str(HERE / script), *options]
    command += ["--model", str(folder / "model"), "--out", str(folder / f"{name}.npz")]
    for option in ("tokens", "length", "repeats", "device"):
        command += [f"--{option}", str(getattr(given, option))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{name} failed with status {done.returncode}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def check(names: list[str], folder: pathlib.Path, vocab: int) -> dict[str, dict[str, float]]:
    """Compares everybody with jaxlens in float32; exits where somebody did other work."""
    with np.load(folder / "jaxlens.npz") as file:
        wanted = dict(file)
    found, refused = {}, []
    for name in names[1:]:
        with np.load(folder / f"{name}.npz") as file:
            apart = agree.differences(wanted, dict(file))
        precision = "bfloat16" if "bfloat16" in name else "float32"
        refused += [f"{name}: {why}" for why in agree.objections(apart, vocab, precision)]
        found[name] = agree.summary(apart)
    if refused:
        sys.exit("not the same work, nothing recorded\n" + "\n".join(refused))
    return found


def summarise(runs: list[dict[str, Any]], tokens: int) -> dict[str, Any]:
    """Rates of all timings of a candidate, its greatest peak, and what it said of itself."""
    seconds = [s for one in runs for s in one["seconds"]]
    busy = [s for one in runs for s in one["processor_seconds"]]
    rates = [tokens / s for s in seconds]
    same = {k: v for k, v in runs[0].items() if k not in ("tokens", "device", "processor_seconds")}
    return {
        **same,
        "seconds": seconds,
        "tokens_per_second": statistics.median(rates),
        "tokens_per_processor_second": statistics.median(tokens / s for s in busy),
        "slowest": min(rates),
        "fastest": max(rates),
        "busy_threads": sum(busy) / sum(seconds),
        "peak_bytes": max(one["peak_bytes"] for one in runs),
        "again": sum(one["again"] for one in runs),
    }


def show(measured: dict[str, Any], agreement: dict[str, dict[str, float]]) -> None:
    """Prints the table."""
    peers = [row["tokens_per_second"] for name, row in measured.items() if name not in OURS]
    best = max(peers, default=float("nan"))
    heads = ("", "tok/s", "slowest..fastest", "/ best peer", "peak GiB", "threads")
    print("{:<18}{:>8}{:>20}{:>13}{:>10}{:>9}".format(*heads))
    for name, row in sorted(measured.items(), key=lambda item: -item[1]["tokens_per_second"]):
        rate, spread = row["tokens_per_second"], f"{row['slowest']:.1f}..{row['fastest']:.1f}"
        print(
            f"{name:<18}{rate:8.1f}{spread:>20}{rate / best:13.2f}"
            f"{row['peak_bytes'] / 2**30:10.2f}{row['busy_threads']:9.1f}"
        )
    if starved := table.starving(measured):
        print(f"the machine was busy with something else: {', '.join(starved)} had too few threads")
    for name, row in agreement.items():
        print(
            f"{name:<18} within {row['worst_nats']:.1g} nat and {row['worst_rank']:.0f} ranks; "
            f"{row['same_ranks']:.1%} of ranks, {row['same_top']:.2%} of best tokens equal"
        )


if __name__ == "__main__":
    main()
