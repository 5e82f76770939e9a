"""Whether two peers did the same work: their numbers beside each other.

Two correct programs differ by rounding only. In nats that is a small difference; a rank moves by
a few where other tokens' logits lie closer to the reference's than the rounding (random weights
crowd about 16,000 tokens into one nat); with operands in bfloat16 all of it is larger.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import case
import numpy as np


@dataclass(frozen=True)
class Limits:
    """What still is the same work.

    Attributes:
        nats: Greatest difference of a float.
        ranks: Greatest difference of a rank, as a share of the vocabulary.
        same_ranks: Least share of equal ranks.
        same_top: Least share of equal best tokens.
    """

    nats: float
    ranks: float
    same_ranks: float
    same_top: float


# Measured with float32: 1.3e-4 nat, ranks off by 2 of 50,257, 98 % of them equal. A norm that is
# applied twice or a bias that is left out moves divergences by tenths of a nat.
LIMITS = {
    "float32": Limits(nats=1e-3, ranks=2e-4, same_ranks=0.95, same_top=0.995),
    "bfloat16": Limits(nats=0.1, ranks=0.05, same_ranks=0.0, same_top=0.95),
}


def differences(
    wanted: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray]
) -> dict[str, dict[str, float]]:
    """For each quantity the share of equal values and the greatest difference.

    The final token is each program's own; where a near tie at the last layer made it another,
    its ranks are of different tokens and left out.
    """
    same_final = wanted["top_id"][-1] == found["top_id"][-1]
    table = {}
    for name in case.QUANTITIES:
        want, got = wanted[name].astype(np.float64), found[name].astype(np.float64)
        if want.shape != got.shape:
            raise ValueError(f"{name} has shape {got.shape}, not {want.shape}")
        if name == "rank_final":
            want, got = want[:, same_final], got[:, same_final]
        apart = np.abs(want - got)
        table[name] = {"same": float((apart == 0).mean()), "worst": float(apart.max(initial=0.0))}
    return table


def objections(table: Mapping[str, Mapping[str, float]], vocab: int, precision: str) -> list[str]:
    """Why this is not the same work; empty where it is."""
    limits, found = LIMITS[precision], []
    for name in case.NATS:
        worst = table[name]["worst"]
        if not worst <= limits.nats:  # so that NaN is refused
            found.append(f"{name} differs by {worst:.2g} nat")
    for name in case.RANKS:
        worst, same = table[name]["worst"], table[name]["same"]
        if not worst <= max(2.0, limits.ranks * vocab):
            found.append(f"{name} differs by {worst:.0f}")
        if not same >= limits.same_ranks:
            found.append(f"{name} is equal in {same:.1%} only")
    if not table["top_id"]["same"] >= limits.same_top:
        found.append(f"top_id is equal in {table['top_id']['same']:.1%} only")
    return found


def summary(table: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The four figures that say it: worst over the kind of quantity."""
    return {
        "worst_nats": max(table[name]["worst"] for name in case.NATS),
        "worst_rank": max(table[name]["worst"] for name in case.RANKS),
        "same_ranks": min(table[name]["same"] for name in case.RANKS),
        "same_top": table["top_id"]["same"],
    }
