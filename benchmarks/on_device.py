"""One accelerator: are the numbers right, and how far are the speeds from what it can do.

benchmarks/on_device.sh [--small] [--seconds 350] [--only PART...]

Each part is a process of its own with a budget: one that is slow or fails takes nothing from the
others, and what it found before it was stopped counts. Parts print JSON lines, which are appended
to ``benchmarks/results/on_device.jsonl``; the table comes last. The exit status is 1 where a number
is wrong, and 0 where a speed is only lower than hoped.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent
RECORDS = HERE / "results" / "on_device.jsonl"
PARTS: dict[str, tuple[float, tuple[str, ...]]] = {  # seconds, script and its arguments
    "numerics": (110, ("on_device_numerics.py",)),
    "gpt2": (80, ("on_device_speed.py", "gpt2")),
    "gpt2-torch": (80, ("on_device_torch.py", "gpt2")),
    "gpt2-xl": (110, ("on_device_speed.py", "gpt2-xl")),
    "gpt2-xl-torch": (100, ("on_device_torch.py", "gpt2-xl")),
}
GOALS = {"multiply": 0.40, "eager": 4.0, "compile": 2.0}
"""Share of the multiply rate end to end, and how many times as fast as PyTorch."""


def main() -> None:
    """Runs the parts in turn, records what they print, and prints the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--small", action="store_true", help="a small model, on any device")
    parser.add_argument("--seconds", type=float, default=350, help="for all parts together")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=tuple(PARTS))
    parser.add_argument("--records", type=pathlib.Path, default=RECORDS)
    given = parser.parse_args()
    # With --small both shapes are the packaged model.
    names = [name for name in given.only if not (given.small and name.startswith("gpt2-xl"))]
    deadline = time.monotonic() + given.seconds
    lines: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="jaxlens-programs-") as programs:
        # A step is compiled to see whether it fits, and again to be run.
        environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": programs}
        environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        for name in names:
            left = deadline - time.monotonic()
            budget = left if given.small else min(PARTS[name][0], left)
            lines += run(name, budget, given.small, environment)
    given.records.parent.mkdir(exist_ok=True)
    command = ["benchmarks/on_device.sh", *sys.argv[1:]]
    with given.records.open("a") as file:
        file.writelines(json.dumps({"command": command, **line}) + "\n" for line in lines)
    print(table(lines))
    wrong = [line for line in lines if line.get("right") is False]
    sys.exit(1 if wrong or not any("right" in line for line in lines) else 0)


def run(
    name: str, seconds: float, small: bool, environment: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """The lines of one part; the last says how it ended."""
    began = time.monotonic()
    if seconds < 5:
        return [{"part": name, "ended": "no time left", "seconds": 0.0}]
    print(f"{name}: at most {seconds:.0f} s", file=sys.stderr, flush=True)
    script, *options = PARTS[name][1]
    command = [sys.executable, str(HERE / script), *options, *["--small"] * small]
    lines, ended = [], "over its budget"
    piped: dict[str, Any] = {"stdout": subprocess.PIPE, "text": True, "env": environment}
    with subprocess.Popen(command, **piped) as process:
        printed: queue.Queue[str | None] = queue.Queue()
        reader = threading.Thread(target=_read, args=(process.stdout, printed), daemon=True)
        reader.start()
        while (left := seconds - (time.monotonic() - began)) > 0:
            try:
                text = printed.get(timeout=left)
            except queue.Empty:
                break
            if text is None:
                status = process.wait()
                ended = "done" if status == 0 else f"failed with status {status}"
                break
            if text.startswith("{"):
                lines.append({"part": name, **json.loads(text)})
        process.kill()  # nothing, where it has ended
        reader.join(timeout=10)
    return [*lines, {"part": name, "ended": ended, "seconds": time.monotonic() - began}]


def _read(stream: Any, printed: queue.Queue[str | None]) -> None:
    for line in stream:
        printed.put(line)
    printed.put(None)


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    """Everything in short: device, checks, rates beside what the device can do, goals."""
    text = []
    for line in lines:
        if "device" in line:
            versions = ", ".join(f"{k} {v}" for k, v in line["versions"].items())
            text.append(f"{line['part']}: {line['device']}; {versions}")
            text.append(
                f"  multiply {line['multiply_flops'] / 1e12:.4g} TFLOP/s ({line['precision']}), "
                f"copy {line['copy_bytes'] / 1e9:,.0f} GB/s"
            )
    checks = [line for line in lines if "right" in line]
    wrong = [line for line in checks if not line["right"]]
    text.append(f"numerics: {len(checks) - len(wrong)} of {len(checks)} checks are right")
    text += [f"  WRONG {line['check']}: {line['found']}" for line in wrong]
    text.append(f"{'part':<14} {'what':<12} {'tok/s':>10} {'of multiply':>12}")
    for line in (line for line in lines if "rate" in line):
        share = f"{line['of_multiply']:.0%}" if "of_multiply" in line else ""
        text.append(f"{line['part']:<14} {line['what']:<12} {line['rate']:10,.0f} {share:>12}")
    text += goals(lines)
    text += [f"{line['part']}: skipped, {line['skipped']}" for line in lines if "skipped" in line]
    text += [
        f"{line['part']}: {line['ended']} after {line['seconds']:.0f} s"
        for line in lines
        if line.get("ended", "done") != "done"
    ]
    return "\n".join(text)


def goals(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each goal of each shape that was measured."""
    rates = {(line["part"], line["what"]): line for line in lines if "rate" in line}
    text = []
    for shape in ("gpt2", "gpt2-xl"):
        ours = rates.get((shape, "end to end"))
        if ours is None:
            continue
        text.append(_goal(shape, "of the multiply rate", ours["of_multiply"], GOALS["multiply"]))
        for how in ("eager", "compile"):
            theirs = rates.get((f"{shape}-torch", how))
            if theirs is not None:
                ratio = ours["rate"] / theirs["rate"]
                text.append(_goal(shape, f"times PyTorch, {how}", ratio, GOALS[how]))
    return text


def _goal(shape: str, what: str, found: float, wanted: float) -> str:
    reached = "reached" if found >= wanted else "NOT reached"
    return f"{shape}: {found:.2f} {what}, {wanted:.2f} wanted: {reached}"


if __name__ == "__main__":
    main()
