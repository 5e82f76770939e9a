"""Q2, continued. How many layers does the input stay within the first k ranks?"""

from __future__ import annotations

import numpy as np

from jaxlens.study import passages
from jaxlens.study.inputs import Inputs
from jaxlens.study.table import Result
from jaxlens.tally import axes


def estimate(run: Inputs) -> list[Result]:
    """Layers until half of the preservation is gone, and until the first ranks are left."""
    names = ["half_life", *(f"exit_from_{rank}" for rank in axes.EXIT_CUTS)]
    if why := run.lacks("half_life_by_group", "first_exit_by_group"):
        return [line for name in names for line in passages.lacking(run, name, why)]
    events = [run.tallies["half_life_by_group"], *run.tallies["first_exit_by_group"]]
    return [
        line
        for name, counts in zip(names, events, strict=True)
        for stratum, bins in _thirds(counts.sum((0, 2))).items()
        for line in passages.lines(run, name, counts[:, bins].sum(1), stratum=stratum)
    ]


def _thirds(tokens: np.ndarray) -> dict[str, np.ndarray]:
    """Bins of rarity in three strata of as equal numbers of tokens as bins allow."""
    reached = (np.cumsum(tokens) - tokens / 2) / max(tokens.sum(), 1)
    third = np.minimum((3 * reached).astype(int), 2)
    names = ("frequent third", "middle third", "rare third")
    return {name: np.flatnonzero(third == i) for i, name in enumerate(names) if (third == i).any()}
