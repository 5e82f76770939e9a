"""The quantities in PyTorch, as good as we can write them: what every PyTorch peer's user adds.

Blocks of tokens keep the logits in bounds (and in cache); each layer of a block is reduced while
it is warm, with one softmax and one pass a number; divergences use
``KL(q || p) = E_q[log q] - E_q[log p]``, so that no difference of two tables is made.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

Head = Callable[[torch.Tensor], torch.Tensor]
Pair = tuple[torch.Tensor, torch.Tensor]
"""Log-probabilities and probabilities."""

BLOCK = {"cpu": 128, "cuda": 512}
"""Tokens a block; on CPU the best of 16, 32, 64, 128 and 256."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of every script that uses this module."""
    parser.add_argument("--block", type=int, help="tokens a block")
    parser.add_argument("--threads", type=int, help="by default one a core")


def start(given: argparse.Namespace) -> dict[str, Any]:
    """Sets threads and float32 arithmetic; returns facts to record."""
    if given.threads:
        torch.set_num_threads(given.threads)
    torch.backends.cuda.matmul.allow_tf32 = False
    given.block = given.block or BLOCK[given.device]
    return {"threads": torch.get_num_threads(), "block": given.block}


def read(
    states: torch.Tensor, head: Head, tokens: torch.Tensor, following: torch.Tensor, block: int
) -> dict[str, np.ndarray]:
    """All quantities of normalised states ``[layer, batch, position, embed]``."""
    shape = states.shape[:3]
    flat, ids, after = states.flatten(1, 2), tokens.flatten(), following.flatten()
    parts = []
    for begin in range(0, len(ids), block):
        here = slice(begin, begin + block)
        logits = head(flat[:, here])
        parts.append(reduce(logits, ids[here], after[here]))
    return gather(parts, shape)


def read_whole(
    states: torch.Tensor, head: Head, tokens: torch.Tensor, following: torch.Tensor
) -> dict[str, np.ndarray]:
    """The same from all logits at once, by the formulas as they stand in tutorials."""
    logits = head(states)
    log_p = logits.log_softmax(-1)
    p = log_p.exp()
    references = torch.stack([tokens, following, logits[-1].argmax(-1)], -1)
    at = logits.gather(-1, references.expand(len(states), *references.shape))
    above = [(logits > at[..., i, None]).sum(-1, dtype=torch.int32) + 1 for i in range(3)]
    found = {
        "rank_input": above[0],
        "rank_next": above[1],
        "rank_final": above[2],
        "logp_input": log_p.gather(-1, references[..., :1].expand(len(states), -1, -1, -1))[..., 0],
        "kl_final": (p[-1] * (log_p[-1] - log_p)).sum(-1).clamp_min(0),
        "kl_input": (p[0] * (log_p[0] - log_p)).sum(-1).clamp_min(0),
        "kl_to_final": (p * (log_p - log_p[-1])).sum(-1).clamp_min(0),
        "entropy": -(p * log_p).sum(-1),
        "top_id": logits.argmax(-1),
    }
    return {name: value.cpu().numpy() for name, value in found.items()}


def gather(parts: list[dict[str, torch.Tensor]], shape: torch.Size) -> dict[str, np.ndarray]:
    """Blocks ``[layer, token]`` put together to ``[layer, batch, position]`` of NumPy."""
    whole = {name: torch.cat([part[name] for part in parts], 1) for name in parts[0]}
    return {name: value.view(shape).cpu().numpy() for name, value in whole.items()}


def reduce(
    logits: torch.Tensor, ids: torch.Tensor, after: torch.Tensor, normalised: bool = False
) -> dict[str, torch.Tensor]:
    """All quantities of one block.

    Args:
        logits: ``[layer, token, vocab]``.
        ids: The tokens.
        after: Their next tokens.
        normalised: Whether the logits are log-probabilities already.
    """
    log_p = [logits[0], logits[-1]]
    if not normalised:
        log_p = [z.log_softmax(-1) for z in log_p]
    first, last = ((end, end.exp()) for end in log_p)
    references = torch.stack([ids, after, logits[-1].argmax(-1)], -1)
    rows = [_layer(logits[0], *first, first, last, references)]
    rows += [interior(z, first, last, references, normalised) for z in logits[1:-1]]
    rows.append(_layer(logits[-1], *last, first, last, references))
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def interior(
    z: torch.Tensor, first: Pair, last: Pair, references: torch.Tensor, normalised: bool
) -> dict[str, torch.Tensor]:
    """The quantities of a layer between the ends; the part that is worth compiling."""
    log_p = z if normalised else z.log_softmax(-1)
    return _layer(z, log_p, log_p.exp(), first, last, references)


def _layer(
    z: torch.Tensor,
    log_p: torch.Tensor,
    p: torch.Tensor,
    first: Pair,
    last: Pair,
    references: torch.Tensor,
) -> dict[str, torch.Tensor]:
    def mean(weights: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        return torch.linalg.vecdot(weights, values)

    at = z.gather(-1, references)
    above = [(z > at[:, i, None]).sum(-1, dtype=torch.int32) + 1 for i in range(3)]
    negentropy = mean(p, log_p)
    return {
        "rank_input": above[0],
        "rank_next": above[1],
        "rank_final": above[2],
        "logp_input": log_p.gather(-1, references[:, :1])[:, 0],
        "kl_final": (mean(last[1], last[0]) - mean(last[1], log_p)).clamp_min(0),
        "kl_input": (mean(first[1], first[0]) - mean(first[1], log_p)).clamp_min(0),
        "kl_to_final": (negentropy - mean(p, last[0])).clamp_min(0),
        "entropy": -negentropy,
        "top_id": z.argmax(-1),
    }
