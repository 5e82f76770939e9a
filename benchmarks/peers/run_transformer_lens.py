"""TransformerLens: `run_with_cache` of the residual stream, `accumulated_resid`, `unembed`.

python benchmarks/peers/run_transformer_lens.py --model FOLDER --out FILE.npz [--tokens 256]

The library's own `logit_lens` reads one reference token a call and no divergences, so it would
have to read all layers several times; this is its documented recipe underneath.
"""

from __future__ import annotations

import argparse
from typing import Any

import measure
import numpy as np


def prepare(given: argparse.Namespace) -> tuple[measure.Work, dict[str, Any]]:
    """Loads the model; returns the work."""
    import torch
    import torch_read
    import transformers
    from transformer_lens.model_bridge import TransformerBridge

    facts = torch_read.start(given)
    model = transformers.GPT2LMHeadModel.from_pretrained(given.model, dtype=torch.float32)
    bridge = TransformerBridge.boot_transformers(
        str(given.model), device=given.device, dtype=torch.float32, hf_model=model
    )
    bridge.eval()
    layers = range(bridge.cfg.n_layers)
    names = [f"blocks.{layer}.hook_resid_pre" for layer in layers]
    names.append(f"blocks.{layers[-1]}.hook_resid_post")

    @torch.inference_mode()
    def work(tokens: np.ndarray, following: np.ndarray) -> dict[str, np.ndarray]:
        ids = torch.from_numpy(tokens).long().to(given.device)
        after = torch.from_numpy(following).long().to(given.device)
        _, cache = bridge.run_with_cache(ids, names_filter=names, return_type=None)
        streams = cache.accumulated_resid(apply_ln=True)
        return torch_read.read(streams, bridge.unembed, ids, after, given.block)

    return work, facts


def add_options(parser: argparse.ArgumentParser) -> None:
    """``--block`` and ``--threads``."""
    import torch_read

    torch_read.add_options(parser)


if __name__ == "__main__":
    packages = ("torch", "transformers", "transformer-lens", "numpy")
    measure.main(packages, prepare, add_options)
