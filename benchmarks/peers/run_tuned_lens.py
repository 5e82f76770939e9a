"""tuned-lens: `PredictionTrajectory` of a `LogitLens`, then the quantities.

python benchmarks/peers/run_tuned_lens.py --model FOLDER --out FILE.npz [--tokens 256]

A trajectory holds the log-probabilities of a whole line at every layer in NumPy. Its own
statistics run in NumPy on one thread; PyTorch reads the same memory here with all threads.
Ranks are counted on log-probabilities, since the trajectory keeps no logits.
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
    from tuned_lens import nn
    from tuned_lens.plotting import PredictionTrajectory

    facts = torch_read.start(given)
    model = transformers.GPT2LMHeadModel.from_pretrained(given.model, dtype=torch.float32)
    model = model.eval().to(given.device)
    n_layers = model.config.n_layer + 1
    lens = nn.lenses.LogitLens.from_model(model).to(given.device)

    @torch.inference_mode()
    def work(tokens: np.ndarray, following: np.ndarray) -> dict[str, np.ndarray]:
        parts = []
        for line, after in zip(tokens, following, strict=True):
            trajectory = PredictionTrajectory.from_lens_and_model(lens, model, line)
            log_p = torch.from_numpy(trajectory.log_probs)
            ids = torch.from_numpy(line).long(), torch.from_numpy(after).long()
            for begin in range(0, len(line), given.block):
                here = slice(begin, begin + given.block)
                part = [x.to(given.device) for x in (log_p[:, here], ids[0][here], ids[1][here])]
                parts.append(torch_read.reduce(*part, normalised=True))
        return torch_read.gather(parts, torch.Size((n_layers, *tokens.shape)))

    return work, facts


def add_options(parser: argparse.ArgumentParser) -> None:
    """``--block`` and ``--threads``."""
    import torch_read

    torch_read.add_options(parser)


if __name__ == "__main__":
    measure.main(("torch", "transformers", "tuned-lens", "numpy"), prepare, add_options)
