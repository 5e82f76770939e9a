"""nnsight: the residual stream saved in a trace, decoded by the model's own norm and head.

python benchmarks/peers/run_nnsight.py --model FOLDER --out FILE.npz [--tokens 256]

Its tutorial decodes inside the trace, all tokens at once; only the streams are saved here, so
that the logits can be read block by block.
"""

from __future__ import annotations

import argparse
from typing import Any

import measure
import numpy as np


def prepare(given: argparse.Namespace) -> tuple[measure.Work, dict[str, Any]]:
    """Loads the model; returns the work."""
    import nnsight
    import torch
    import torch_read
    import transformers

    facts = torch_read.start(given)
    model = transformers.GPT2LMHeadModel.from_pretrained(given.model, dtype=torch.float32)
    model = model.eval().to(given.device)
    traced = nnsight.NNsight(
        model.transformer
    )  # the trunk: the lens computes the last logits itself

    @torch.inference_mode()
    def work(tokens: np.ndarray, following: np.ndarray) -> dict[str, np.ndarray]:
        ids = torch.from_numpy(tokens).long().to(given.device)
        after = torch.from_numpy(following).long().to(given.device)
        with traced.trace(ids, use_cache=False):
            streams = nnsight.save([traced.h[0].input])
            for block in traced.h:
                streams.append(block.output)
        normed = model.transformer.ln_f(torch.stack(streams))
        return torch_read.read(normed, model.lm_head, ids, after, given.block)

    return work, facts


def add_options(parser: argparse.ArgumentParser) -> None:
    """``--block`` and ``--threads``."""
    import torch_read

    torch_read.add_options(parser)


if __name__ == "__main__":
    measure.main(("torch", "transformers", "nnsight", "numpy"), prepare, add_options)
