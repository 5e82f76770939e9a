"""Timing side by side, and records that say where they were made."""

from __future__ import annotations

import importlib
import json
import pathlib
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

RESULTS = pathlib.Path(__file__).parent / "results"


def time_in_turn(
    candidates: Mapping[str, Callable[[], Any]], rounds: int
) -> dict[str, list[float]]:
    """Seconds of each candidate, A B C A B C ..., after one warm-up each."""
    import jax

    for run in candidates.values():
        jax.block_until_ready(run())
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, run in candidates.items():
            began = time.perf_counter()
            jax.block_until_ready(run())
            seconds[name].append(time.perf_counter() - began)
    return seconds


def median_ratio(slow: list[float], fast: list[float]) -> float:
    """Median over rounds of how many times faster ``fast`` was than ``slow``."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


def has_kernel() -> bool:
    """Whether the lens has a kernel for the devices here; a CPU's interpreter does not count."""
    import jax

    try:
        kernels = importlib.import_module("jaxlens.lens.pallas").KERNELS
    except (ImportError, AttributeError):
        return False
    platform = jax.default_backend()
    return platform != "cpu" and {"gpu": "cuda"}.get(platform, platform) in kernels


def record(name: str, measured: Mapping[str, Any]) -> None:
    """Appends one line to ``results/<name>.jsonl``."""
    from jaxlens.sweep import environment

    RESULTS.mkdir(exist_ok=True)
    command = ["python", *(pathlib.Path(argument).name for argument in sys.argv)]
    line = {"command": command, "environment": environment.describe(), **measured}
    with (RESULTS / f"{name}.jsonl").open("a") as stream:
        stream.write(json.dumps(line) + "\n")
