"""Plain PyTorch and transformers: the model's hidden states, its own norm and head.

python benchmarks/peers/run_pytorch.py --model FOLDER --out FILE.npz [--tokens 256]
    [--whole] [--onednn] [--compile] [--precision bfloat16]

transformers normalises the last entry of ``hidden_states`` already; the others need ``ln_f``.
``--onednn`` gives the head to oneDNN, which is faster than PyTorch's default library on some
processors; few users know of it. ``--precision bfloat16`` multiplies as jaxlens does with it:
weights and operands rounded, residual streams and reductions in float32. PyTorch rounds each
product to bfloat16 too, the logits among them.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from typing import Any

import measure
import numpy as np


def prepare(given: argparse.Namespace) -> tuple[measure.Work, dict[str, Any]]:
    """Loads the model; returns the work."""
    import torch
    import torch_read
    import transformers

    facts = {**torch_read.start(given), "precision": given.precision}
    model = transformers.GPT2LMHeadModel.from_pretrained(given.model, dtype=torch.float32)
    model = model.eval().to(given.device)
    rounded = given.precision == "bfloat16"
    head = rounded_head(model) if rounded else model.lm_head
    head = packed(model.lm_head) if given.onednn else head
    if given.compile:
        torch._inductor.config.freezing = True  # lets the compiler pack the weights
        torch_read.interior = torch.compile(torch_read.interior, dynamic=False)
        head = torch.compile(head, dynamic=False)
        model.transformer = torch.compile(model.transformer, dynamic=False)

    @torch.inference_mode()
    def work(tokens: np.ndarray, following: np.ndarray) -> dict[str, np.ndarray]:
        ids = torch.from_numpy(tokens).long().to(given.device)
        after = torch.from_numpy(following).long().to(given.device)
        with torch.autocast(given.device, torch.bfloat16, enabled=rounded):
            found = model.transformer(ids, output_hidden_states=True, use_cache=False)
        hidden = [stream.float() for stream in found.hidden_states]
        streams = torch.stack(hidden)
        streams[:-1] = model.transformer.ln_f(streams[:-1])
        if given.whole:
            return torch_read.read_whole(streams, head, ids, after)
        return torch_read.read(streams, head, ids, after, given.block)

    return work, facts


def rounded_head(model: Any) -> Callable[[Any], Any]:
    """The head in bfloat16, and the weights of the blocks' multiplies rounded once.

    Under autocast the norms and the residual streams stay in float32.
    """
    import torch

    head = copy.deepcopy(model.lm_head).to(torch.bfloat16)
    for module in model.transformer.h.modules():
        if type(module).__name__ == "Conv1D":
            module.to(torch.bfloat16)
    return lambda rows: head(rows.to(torch.bfloat16)).float()


def packed(head: Any) -> Callable[[Any], Any]:
    """The same linear map by oneDNN, its weights laid out once."""
    from torch.utils import mkldnn

    linear = mkldnn.to_mkldnn(copy.deepcopy(head))

    def apply(rows: Any) -> Any:
        product = linear(rows.flatten(0, 1).to_mkldnn()).to_dense()
        return product.unflatten(0, rows.shape[:2])

    return apply


def add_options(parser: argparse.ArgumentParser) -> None:
    """``--block``, ``--threads``, ``--whole``, ``--onednn``, ``--compile`` and ``--precision``."""
    import torch_read

    torch_read.add_options(parser)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--whole", action="store_true", help="all logits at once")
    parser.add_argument("--onednn", action="store_true", help="the head by oneDNN, on CPU")
    parser.add_argument("--compile", action="store_true", help="torch.compile everything")


if __name__ == "__main__":
    measure.main(("torch", "transformers", "numpy"), prepare, add_options)
