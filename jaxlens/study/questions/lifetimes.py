"""Q2, continued. How many layers does the input stay in sight?"""

from __future__ import annotations

import numpy as np

from jaxlens.study import curves, passages
from jaxlens.study.inputs import Inputs
from jaxlens.study.table import Result
from jaxlens.tally import definitions

QUESTION = "Q2"


def answer(of: Inputs) -> list[Result]:
    """Layers until half of the preservation is gone, and until the first ranks are left."""
    effect = curves.design_effect(of)
    kinds = {"half_life": (of.tallies["half_life"], "preservation is half of what it was")}
    for place, cut in enumerate(definitions.EXIT_CUTS):
        counts = of.tallies["first_exit"][place]
        kinds[f"exit_from_{cut}"] = counts, f"the input is out of the first {cut}"
    return [
        line
        for name, (counts, what) in kinds.items()
        for stratum, bins in _thirds(counts.sum(1)).items()
        for line in passages.lines(
            of, QUESTION, name, counts[bins].sum(0), what, effect=effect, stratum=stratum
        )
    ]


def _thirds(tokens: np.ndarray) -> dict[str, np.ndarray]:
    """Bins of rarity in three strata of as equal numbers of tokens as bins allow."""
    reached = (np.cumsum(tokens) - tokens / 2) / max(tokens.sum(), 1)
    third = np.minimum((3 * reached).astype(int), 2)
    names = ("frequent third", "middle third", "rare third")
    return {name: np.flatnonzero(third == i) for i, name in enumerate(names) if (third == i).any()}
