"""The forward pass with all its residual streams, beside PyTorch's, on the same cores.

python benchmarks/bench_forward.py [--torch PYTHON] [--shapes gpt2 llama gemma3 ...]
    [--tokens 1024] [--length 256] [--rounds 7]

The shapes beside ``gpt2`` have random weights, eight blocks and the width of GPT-2 small. PYTHON is
an interpreter that has PyTorch and transformers, for instance `FOLDER/pytorch/bin/python` of
`peers/setup.sh`; without it jaxlens is timed alone. Both read the same weights and tokens, take
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

_WIDE = {"hidden_size": 768, "num_hidden_layers": 8, "num_attention_heads": 12}
_WIDE |= {"max_position_embeddings": 1024, "vocab_size": 32000}
_GATED = _WIDE | {"intermediate_size": 2048, "num_key_value_heads": 4}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", **_GATED},
    "mistral": {"model_type": "mistral", "sliding_window": 128, **_GATED},
    "qwen2": {"model_type": "qwen2", **_GATED},
    "qwen3": {"model_type": "qwen3", "head_dim": 64, **_GATED},
    "pythia": {"model_type": "gpt_neox", "intermediate_size": 3072, **_WIDE},
    "gemma2": {"model_type": "gemma2", "head_dim": 64, **_GATED},
    "gemma3": {"model_type": "gemma3_text", "head_dim": 64, "sliding_window": 128, **_GATED},
    "olmo2": {"model_type": "olmo2", **_GATED},
}
"""``config.json`` of a shape of each family."""

CLOSE = 1e-4
"""Largest difference of the streams, relative to their largest value."""


def main() -> None:
    """Times both in turn for each shape, and compares what they found."""
    given = _arguments()
    for shape in given.shapes:
        with tempfile.TemporaryDirectory(prefix="jaxlens-forward-") as scratch:
            measure(shape, pathlib.Path(scratch), given)


def measure(shape: str, folder: pathlib.Path, given: argparse.Namespace) -> None:
    """One shape: prints a line and leaves a record."""
    make_model(shape, folder)
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
    line = ", ".join(f"{name} {rate:,.0f} tok/s" for name, rate in rates.items())
    if peer:
        line += f": {rates['jaxlens'] / rates['pytorch']:.2f} times as fast, apart by {worst:.1g}"
    print(f"{shape:<8} {line}", flush=True)
    import harness

    asked = {"tokens": given.tokens, "length": given.length, "dtype": given.dtype}
    found = {"devices": devices, "seconds": seconds, "worst_difference": worst}
    harness.record("bench_forward", {"shape": shape} | asked | found)


def make_model(shape: str, folder: pathlib.Path) -> None:
    """Writes random weights of a shape as transformers reads them."""
    if shape in case.SHAPES:
        return case.make_model(folder, shape)
    from jaxlens import models
    from jaxlens.models.checkpoints import checkpoint

    architecture = models.parse(FAMILIES[shape])
    checkpoint.save(folder, architecture, models.init(architecture, case.SEED), "safetensors")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--torch", type=pathlib.Path, help="an interpreter that has PyTorch")
    parser.add_argument(
        "--shapes", nargs="+", default=["gpt2"], choices=(*case.SHAPES, *FAMILIES), metavar="SHAPE"
    )
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

    kind = getattr(torch, dtype)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=kind).eval()
    ids = torch.from_numpy(np.load(folder / "tokens.npy")).long()
    first = True
    with torch.inference_mode():
        for _ in sys.stdin:
            began = time.perf_counter()
            hidden = model.base_model(ids, output_hidden_states=True, use_cache=False)
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
