"""The forward pass with all its residual streams, beside PyTorch's, on the same cores.

python benchmarks/bench_forward.py [--torch PYTHON] [--tokens 1024] [--length 256] [--rounds 7]

PYTHON is an interpreter that has PyTorch and transformers, for instance `FOLDER/pytorch/bin/python`
of `peers/setup.sh`; without it jaxlens is timed alone. Both read the same weights and tokens, take
turns, and must find the same streams. `benchmarks/results/bench_forward.jsonl` has the record.
"""

from __future__ import annotations

import argparse
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import IO, Any

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "peers"))

import case  # noqa: E402 (it lies beside the peers, whose environments import it too)

CLOSE = 1e-4
"""Largest difference of the streams, relative to their largest value."""


def main() -> None:
    """Times both in turn and compares what they found."""
    given = _arguments()
    with tempfile.TemporaryDirectory(prefix="jaxlens-forward-") as scratch:
        folder = pathlib.Path(scratch)
        case.make_model(folder, "gpt2")
        tokens, _ = case.make_tokens(folder, given.tokens, given.length)
        np.save(folder / "tokens.npy", tokens)
        forward, devices = ours(folder, tokens, given.dtype)
        streams = np.asarray(forward())
        seconds: dict[str, list[float]] = {"jaxlens": [], "pytorch": []}
        peer = Peer(given.torch, folder, given.dtype) if given.torch else None
        worst = peer.worst(streams) if peer else None
        for _ in range(given.rounds):
            began = time.perf_counter()
            forward()
            seconds["jaxlens"].append(time.perf_counter() - began)
            if peer:
                seconds["pytorch"].append(peer.time())
    rates = {n: given.tokens / statistics.median(s) for n, s in seconds.items() if s}
    for name, rate in rates.items():
        print(f"{name:<8} {rate:10,.0f} tok/s")
    if peer:
        print(f"jaxlens is {rates['jaxlens'] / rates['pytorch']:.2f} times as fast")
        print(f"largest difference of a stream, relative: {worst:.1g}")
    import harness

    asked = {"tokens": given.tokens, "length": given.length, "dtype": given.dtype}
    found = {"devices": devices, "seconds": seconds, "worst_difference": worst}
    harness.record("bench_forward", asked | found)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--torch", type=pathlib.Path, help="an interpreter that has PyTorch")
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--length", type=int, default=256, help="tokens a line")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--as-torch", type=pathlib.Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def ours(
    folder: pathlib.Path, tokens: np.ndarray, dtype: str
) -> tuple[Callable[[], np.ndarray | list[Any]], int]:
    """The forward of a sweep: the lines go to all devices, on CPUs one a core."""
    import jax

    from jaxlens import models
    from jaxlens.lens import numerics
    from jaxlens.models import loading
    from jaxlens.sweep import devices as places

    places.offer_cores()
    model = loading.from_checkpoint(loading.load_checkpoint(folder), dtype)
    chosen = places.choose(None)[: len(tokens)]
    parts = np.array_split(tokens, len(chosen))
    run = jax.jit(models.residuals, static_argnums=1)
    weights = [places.put(model.params, device) for device in chosen]

    def forward() -> np.ndarray:
        with numerics.matmul_precision("float32"):
            found = [run(mine, model.config, ids) for mine, ids in zip(weights, parts, strict=True)]
        return np.concatenate([np.asarray(part) for part in jax.block_until_ready(found)], 1)

    return forward, len(chosen)


class Peer:
    """PyTorch in a process of its own, which waits on a pipe between its turns."""

    def __init__(self, python: pathlib.Path, folder: pathlib.Path, dtype: str) -> None:
        command = [str(python), __file__, "--as-torch", str(folder), "--dtype", dtype]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._folder = folder
        self._dtype = dtype

    def time(self) -> float:
        """Seconds of one forward pass, by its own clock."""
        to, back = self._pipes()
        to.write("go\n")
        to.flush()
        line = back.readline()
        if not line:
            sys.exit("PyTorch failed")
        return float(line)

    def worst(self, streams: np.ndarray) -> float:
        """Largest difference from ours; the last stream is normalised there and left out."""
        self.time()
        theirs = np.load(self._folder / "streams.npy")
        apart = float(np.abs(streams[:-1] - theirs[:-1]).max() / np.abs(theirs[:-1]).max())
        if apart > (CLOSE if self._dtype == "float32" else 0.02):
            sys.exit(f"not the same streams: off by {apart:.2g} of the largest value")
        return apart

    def _pipes(self) -> tuple[IO[str], IO[str]]:
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("no pipes")
        return self._process.stdin, self._process.stdout


def serve(folder: pathlib.Path, dtype: str) -> None:
    """The process of PyTorch: a pass for every line that it is sent."""
    import torch
    import transformers

    model = transformers.GPT2LMHeadModel.from_pretrained(folder, dtype=getattr(torch, dtype))
    ids = torch.from_numpy(np.load(folder / "tokens.npy")).long()
    first = True
    with torch.inference_mode():
        for _ in sys.stdin:
            began = time.perf_counter()
            hidden = model.eval().transformer(ids, output_hidden_states=True, use_cache=False)
            seconds = time.perf_counter() - began
            if first:
                found = torch.stack(hidden.hidden_states).float().numpy()
                np.save(folder / "streams.npy", found)
                first = False
            print(seconds, flush=True)


if __name__ == "__main__":
    chosen = _arguments()
    if chosen.as_torch:
        serve(chosen.as_torch, chosen.dtype)
    else:
        main()
