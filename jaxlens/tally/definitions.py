"""Every tally: the exact totals over rows that shards keep and runs merge.

This module is data, as ``schema`` is for the rows. ``basic`` is kept of every run. ``study`` is
all that the study needs, so that a run without rows can answer it; ``tally.rules`` says how each of
them follows from a row. The study's tallies leave out the first position of a context, where
attention has nothing else to look at and norms are massive.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Int64

from jaxlens import schema
from jaxlens.tally import axes, first_edition, sampling, second_edition, tally, third_edition
from jaxlens.tally.tally import Tally

_FIXED = "2**-16"


BASIC: tuple[Tally, ...] = (
    tally.define(
        "count",
        schema.SUMMED,
        "quantity layer",
        "number of values that are not missing",
        "1",
        "count",
    ),
    tally.define(
        "sum",
        schema.SUMMED,
        "quantity layer",
        "sum of the values, of ranks the sum of ln rank, in fixed point",
        _FIXED,
        "sum",
    ),
    tally.define(
        "saturated",
        schema.SUMMED,
        "quantity layer",
        "number of values whose magnitude exceeded 2**14 and was clipped in the sum",
        "1",
        "saturated",
    ),
    tally.define(
        "ln_rank_histogram",
        tuple(f"rank_{name}" for name in schema.REFERENCES),
        "reference layer ln_rank_bin",
        "number of values in each bin of ln rank",
        "1",
        "ln_rank_histogram",
    ),
    tally.define(
        "token_count", ("token",), "vocab", "occurrences of each token", "1", "token_count"
    ),
    tally.define(
        "token_sum_ln_rank_input",
        ("rank_input",),
        "vocab layer",
        "sum of ln rank_input over the occurrences of each token, in fixed point",
        _FIXED,
        "token_sum",
    ),
)

STUDY = second_edition.SECOND
"""What the study needs of runs that keep rows, in the edition of runs that begin now."""

WITHIN = third_edition.ADDED
"""What it needs beside these where no rows are kept."""

STUDY_EDITIONS = ("study", "study-2", "study-3")
"""Sets with all that the study needs, as specs name them: the first edition to the third."""

WITH_TYPE_MEANS = ("study-3",)
"""Sets that subtract means of token types, which are fixed before the sweep."""

TALLIES: dict[str, tuple[Tally, ...]] = {
    "basic": BASIC,
    "study": (*BASIC, *first_edition.FIRST),
    "study-2": (*BASIC, *STUDY),
    "study-3": (*BASIC, *STUDY, *WITHIN),
}
"""Tallies that ``store.tallies`` names."""

QUANTITIES: dict[str, tuple[str, ...]] = {
    "basic": (),
    "study": ("norm", "retention"),
    "study-2": ("norm", "retention", "retention_foreign"),
    "study-3": ("norm", "retention", "retention_foreign"),
}
"""What the lens must read for each set beside what it always reads."""

BY_NAME = {one.name: one for tallies in TALLIES.values() for one in tallies}


def shape(definition: Tally, n_layers: int, vocab_size: int) -> tuple[int, ...]:
    """Lengths of a tally's axes."""
    sizes = {"layer": n_layers, "depth": n_layers + 1, "vocab": vocab_size}
    sizes["field"] = len(sampling.fields(n_layers))
    return tuple((axes.LENGTHS | sizes)[axis] for axis in definition.axes)


def items(n_layers: int, vocab_size: int, name: str = "basic") -> int:
    """Integers that a set of tallies holds, eight bytes each."""
    return sum(math.prod(shape(one, n_layers, vocab_size)) for one in TALLIES[name])


def mid_depth(n_layers: int) -> int:
    """The layer in the middle."""
    return n_layers // 2


def empty(name: str, lengths: tuple[int, ...]) -> Int64[np.ndarray, "..."]:
    """A tally without rows: zeros; of sampled rows lines whose keys are beyond all others."""
    total = np.zeros(lengths, np.int64)
    if BY_NAME[name].merge == "bottom_k":
        total[:, 0] = sampling.NO_KEY
    return total
