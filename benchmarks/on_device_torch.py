"""A part of `on_device.py`: PyTorch on the same device, eager and compiled, at the same work.

Weights and operands in bfloat16, logits and reductions in float32, in blocks of the best size:
``peers/torch_read.py``, which computes nine quantities where jaxlens computes those of `full`.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "peers"))

ROUNDS = 3
SHAPES = {"gpt2": (12, 12, 768), "gpt2-xl": (48, 25, 1600)}
SMALL: dict[str, Any] = {
    "n_layer": 2,
    "n_head": 2,
    "n_embd": 64,
    "n_positions": 128,
    "vocab_size": 1_001,
}


def main() -> None:
    """Prints a line for the device, a line for eager and one for compiled PyTorch."""
    parser = argparse.ArgumentParser()
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("--small", action="store_true")
    given = parser.parse_args()
    try:
        import torch
        import transformers
    except ImportError as error:
        print(json.dumps({"skipped": str(error)}), flush=True)
        return
    device = "cuda" if torch.cuda.is_available() else "cpu"
    layers, heads, embed = SHAPES[given.shape]
    sizes: dict[str, Any] = {"n_layer": layers, "n_head": heads, "n_embd": embed}
    shape = transformers.GPT2Config(**(SMALL if given.small else sizes))
    with torch.device(device):
        model = transformers.GPT2LMHeadModel(shape).eval().to(torch.bfloat16)
    say_device(torch, transformers, device, shape.n_embd, given.small)
    lines = 1 if given.small else 8
    count = (lines, shape.n_positions + 1)
    ids = torch.from_numpy(np.random.default_rng(0).integers(0, shape.vocab_size, count)).to(device)
    for how in ("eager", "compile"):
        if how == "compile":
            compile_parts(torch, model)
        work = worker(torch, model, ids[:, :-1], ids[:, 1:], 512 if device == "cuda" else 128)
        seconds = timed(work)
        rate = lines * shape.n_positions / statistics.median(seconds)
        print(json.dumps({"what": how, "rate": rate, "seconds": seconds}), flush=True)


def worker(torch: Any, model: Any, ids: Any, after: Any, block: int) -> Callable[[], Any]:
    """The work: streams, the model's own norm and head, and every quantity in NumPy."""
    import torch_read

    weight = model.lm_head.weight.t()

    def head(rows: Any) -> Any:
        if rows.device.type != "cuda":
            return (rows @ weight).float()
        flat = torch.mm(rows.flatten(0, 1), weight, out_dtype=torch.float32)
        return flat.unflatten(0, rows.shape[:2])

    @torch.inference_mode()
    def work() -> Any:
        parts = model.transformer(ids, output_hidden_states=True, use_cache=False).hidden_states
        streams = torch.stack(parts)
        streams[:-1] = model.transformer.ln_f(streams[:-1])
        return torch_read.read(streams, head, ids, after, block)

    return work


def compile_parts(torch: Any, model: Any) -> None:
    """Compiles the blocks, all by one program, and the reductions of a layer."""
    import torch_read

    for block in model.transformer.h:
        block.compile(dynamic=False)
    torch_read.interior = torch.compile(torch_read.interior, dynamic=False)


def timed(work: Callable[[], Any]) -> list[float]:
    """Seconds of each round; the result is in NumPy, so that nothing is left under way."""
    for _ in range(2):
        work()
    seconds = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return seconds


def say_device(torch: Any, transformers: Any, device: str, depth: int, small: bool) -> None:
    """Prints the device, the versions, and the rates of this process, on random numbers."""
    rows = 512 if small else 8_192
    left = torch.randn(rows, depth, device=device, dtype=torch.bfloat16)
    right = torch.randn(depth, rows, device=device, dtype=torch.bfloat16)
    data = torch.randn(2**20 if small else 2**28, device=device)

    def rate(call: Callable[[], Any], amount: float) -> float:
        seconds = []
        for number in range(8):
            began = time.perf_counter()
            call()
            if device == "cuda":
                torch.cuda.synchronize()
            if number > 2:
                seconds.append(time.perf_counter() - began)
        return amount / statistics.median(seconds)

    name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    line = {"device": name, "versions": versions, "precision": "bfloat16"}
    line |= {"multiply_flops": rate(lambda: left @ right, 2.0 * rows * rows * depth)}
    line |= {"copy_bytes": rate(data.clone, 8.0 * data.numel())}
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
