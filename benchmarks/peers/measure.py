"""What the scripts of all peers share: arguments, the timed rounds, the result.

Each script hands a function to `main` that loads the model and returns the work as a function of
the tokens. After one warm-up the work is timed; every quantity must have reached NumPy. The last
line that is printed is JSON. Imports nothing but NumPy.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import pathlib
import platform
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import case
import numpy as np

Work = Callable[[np.ndarray, np.ndarray], Mapping[str, np.ndarray]]
"""Tokens and their next tokens, ``[batch, position]``, to every quantity."""


def main(
    packages: Sequence[str],
    prepare: Callable[[argparse.Namespace], tuple[Work, dict[str, Any]]],
    add_options: Callable[[argparse.ArgumentParser], None] = lambda parser: None,
) -> None:
    """Runs one peer.

    Args:
        packages: Distributions whose versions are recorded.
        prepare: Loads the model; returns the work, and facts to record.
        add_options: Adds a peer's own options.
    """
    given = _arguments(add_options)
    os.environ["HF_HUB_OFFLINE"] = "1"  # the model is a folder: nobody has to ask a hub
    began = time.perf_counter()
    work, facts = prepare(given)
    tokens, following = case.make_tokens(given.model, given.tokens, given.length)
    found = dict(work(tokens, following))
    ready = time.perf_counter() - began
    seconds, busy = _rounds(lambda: work(tokens, following), given.repeats)
    expected = set(case.QUANTITIES)
    if set(found) != expected:
        sys.exit(f"quantities {sorted(set(found) ^ expected)} are missing or too many")
    arrays: dict[str, Any] = {name: np.asarray(value) for name, value in found.items()}
    np.savez(given.out, **arrays)
    measured = {
        "tokens": given.tokens,
        "device": given.device,
        "seconds": seconds,
        "processor_seconds": busy,
        "seconds_until_ready": ready,
        "peak_bytes": _peak_bytes(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
        **facts,
    }
    print(json.dumps(measured))


def _arguments(add_options: Callable[[argparse.ArgumentParser], None]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=pathlib.Path, required=True, help="folder of case.py")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--length", type=int, default=256, help="tokens a line")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--out", type=pathlib.Path, required=True, help=".npz of the quantities")
    add_options(parser)
    return parser.parse_args()


def _rounds(work: Callable[[], Any], repeats: int) -> tuple[list[float], list[float]]:
    """Seconds by the clock, and of all threads on processors, of each repetition."""
    seconds, busy = [], []
    for _ in range(repeats):
        began, used = time.perf_counter(), time.process_time()
        work()
        seconds.append(time.perf_counter() - began)
        busy.append(time.process_time() - used)
    return seconds, busy


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
