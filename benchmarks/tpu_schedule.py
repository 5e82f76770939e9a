"""How long a TPU's compiler schedules the step of a sweep to take, without a TPU.

python benchmarks/tpu_schedule.py [v5e|v6e] [gpt2] [--lens tiled|pallas] [--sequences 64]
    [--length 1024] [--precision bfloat16] [--set NAME=VALUE ...] [--top 12]

The step (forward, lens, stored columns) is compiled by libtpu (``pip install '.[tpu]'``), which
writes the instructions of each operation as it schedules them at last. A TPU issues one bundle of
instructions a cycle, in order: the cycles of an operation are its bundles, each as often as the
loops around it run. An operation takes the longest of its cycles, its multiplies at the peak of
the chip, and its bytes of device memory at the chip's bandwidth; the step takes the sum. Waits for
memory that is read ahead, and all that a device does beside these, are not in it: this is a
schedule, not a measurement. Of a kernel, regions without multiplies that a branch can skip count
once for all layers of a tile, as often as the most frequent of them runs. Each run adds a line to
`benchmarks/results/tpu_schedule.jsonl`.
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
from collections import defaultdict
from pathlib import Path

import harness
import jax

from jaxlens import config
from jaxlens.bench import random_model
from jaxlens.bench.compiled import hlo, program, targets, traffic

CLOCK = {"v5e": 1.5e9, "v6e": 1.75e9}
"""Cycles a second; with these the peaks of the data sheets are whole multiplies a cycle."""

_BUNDLE = re.compile(r"\s*(?:0x[0-9a-f]+|0)\s+(?:(LB|LH|LE|PB|PF|CT)\s*)?:\s")
_TRIPS = re.compile(r"scmp\.\w+\.s32\.totalorder %\w+, (\d+) /\* loop exit test")
_BRANCH = re.compile(r"sbr\.rel \(!?%\w+\) target = \$region(\d+)")
_REGION = re.compile(r"\bregion (\d+)\b")
_NAME = re.compile(r"\d+-(.+)-\d+-final_bundles\.txt")


def count_cycles(text: str, share: float = 1.0) -> tuple[float, bool]:
    """Bundles of one operation, and whether every loop in it says how often it runs.

    A loop that does not is counted once.

    Args:
        text: What the compiler wrote.
        share: Of the times that a branch could skip a region without multiplies, how often it runs.
    """
    weights: list[float] = []
    multiplies: list[bool] = []
    is_skipped: list[bool] = []
    begun: list[int] = []
    branches: dict[str, int] = {}  # region that one goes to, and where it stands
    is_known = True
    for line in text.splitlines():
        if (bundle := _BUNDLE.match(line)) is None:
            continue
        for region in _REGION.findall(line):
            first = branches.pop(region, len(weights))
            if not any(multiplies[first:]):
                is_skipped[first:] = [True] * (len(weights) - first)
        if bundle[1] in ("LB", "LH"):
            begun.append(len(weights))
        weights.append(1.0)
        multiplies.append("matmul" in line)
        is_skipped.append(False)
        if "loop exit test" in line and begun:
            first, trips = begun.pop(), _TRIPS.search(line)
            is_known &= trips is not None
            weights[first:] = [weight * int(trips[1] if trips else 1) for weight in weights[first:]]
        elif branch := _BRANCH.search(line):
            branches[branch[1]] = len(weights)
    each = zip(weights, is_skipped, strict=True)
    cycles = sum(weight * (share if skipped else 1.0) for weight, skipped in each)
    return cycles, is_known and not begun


def read_schedules(folder: Path) -> dict[str, str]:
    """Operation -> what the compiler wrote of it at last."""
    paths = ((_NAME.fullmatch(path.name), path) for path in folder.iterdir())
    return {
        name[1]: path.read_text(errors="replace")
        for name, path in paths
        if name and not name[1].endswith("schedule-analysis")
    }


def compile_step(arguments: argparse.Namespace, folder: Path) -> tuple[program.Compiled, str]:
    """Compiles the step, with the schedules of its operations in a folder."""
    os.environ["LIBTPU_INIT_ARGS"] = (
        f"{os.environ.get('LIBTPU_INIT_ARGS', '')} --xla_jf_dump_to={folder} "
        "--xla_jf_dump_llo_text=true --xla_jf_dump_llo_pass_label_regex=final_bundles"
    )
    settings = {
        "lens.precision": arguments.precision,
        "model.dtype": arguments.precision,
        "store.rows": "core",
        "lens.implementation": arguments.lens,
        "plan.length": arguments.length,
        "plan.step_sequences": arguments.sequences,
    }
    settings |= dict(each.split("=", 1) for each in arguments.set)
    architecture = random_model.architecture(arguments.model)
    return program.compile_step(
        arguments.model, architecture, config.load([], {}, settings), arguments.target
    )


def main() -> None:
    """Compiles, counts, prints and records."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("target", nargs="?", default="v5e", choices=CLOCK)
    parser.add_argument("model", nargs="?", default="gpt2")
    parser.add_argument("--lens", default="tiled", choices=("tiled", "pallas"))
    parser.add_argument("--sequences", type=int, default=64)
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--precision", default="bfloat16")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--top", type=int, default=12)
    arguments = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    with tempfile.TemporaryDirectory() as folder:
        report, text = compile_step(arguments, Path(folder))
        schedules = read_schedules(Path(folder))
    target, clock = targets.TARGETS[arguments.target], CLOCK[arguments.target]
    parts: dict[int, list[float]] = defaultdict(lambda: [0.0] * 4)
    operations, unknown = [], 0
    of_one_layer = 1.0 / (random_model.architecture(arguments.model).n_layer - 1)
    for work in traffic.count(hlo.parse(text)):
        if work.instruction.operation.endswith("-start"):
            continue  # reads ahead, beside other operations
        share = of_one_layer if work.instruction.operation == "custom-call" else 1.0
        cycles, is_known = count_cycles(schedules.get(work.instruction.name, ""), share)
        unknown += not is_known
        issue, multiplies = cycles / clock, work.flops / target.flops
        memory = (work.read + work.written) / target.bandwidth
        times = (issue, multiplies, memory, max(issue, multiplies, memory))
        part = parts[len(work.path)]
        part[:] = [total + work.times * one for total, one in zip(part, times, strict=True)]
        operations.append((work.times * times[3], work.times, *times[:3], work.instruction))
    seconds = sum(part[3] for part in parts.values())
    print("ms of a step     issue  multiply  memory  longest")
    for depth, part in sorted(parts.items()):
        print(f"in {depth} loops    " + "".join(f"{1e3 * one:9.1f}" for one in part))
    for total, times, *each, one in sorted(operations, key=lambda row: -row[0])[: arguments.top]:
        print(
            f"{total / seconds:6.1%} x{times:<6d}"
            + "".join(f"{1e6 * value:9.1f}" for value in each)
            + f" us  {one.name}  {one.source[-40:]}"
        )
    rate = arguments.sequences * arguments.length / seconds
    print(
        f"{arguments.target} {arguments.model}: {1e3 * seconds:.0f} ms, {rate:,.0f} tok/s", end=""
    )
    print(f"; operations with a loop of unknown length, counted once: {unknown}")
    record = {"target": report.target, "model": report.model, "settings": report.settings}
    record |= {"versions": report.versions, "seconds": seconds, "tokens_per_second": rate}
    harness.record("tpu_schedule", record)


if __name__ == "__main__":
    main()
