"""Every tally: the exact totals over rows that shards keep and runs merge.

This module is data, as ``schema`` is for the rows. ``basic`` is kept of every run. ``study`` is
all that the study needs, so that a run without rows can answer it; ``tally.rules`` says how each of
them follows from a row. The study's tallies leave out the first position of a context, where
attention has nothing else to look at and norms are massive.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from jaxlens import schema
from jaxlens.tally import bins, sampling

REFERENCE_RANKS = tuple(f"rank_{name}" for name in schema.REFERENCES)

MEASURES = (*schema.SUMMED, "js_final", "js_input", "norm", "retention")
"""Quantities whose means the study takes, by groups of documents and by frequency."""

DIVERGENCES = ("kl_final", "kl_final_matched", "kl_input", "js_final", "js_input", "entropy")
"""Quantities with a histogram of logarithmic bins."""

JUMPS = ("kl_final", "kl_final_matched", "kl_input", "logp_input", "rank_input")
"""Curves whose first step is compared with all of them; of a rank its logarithm."""

TARGETS = ("next", "final", "copy")
"""References whose retrieval is timed."""

EXIT_CUTS = (10, 100, 1000)
"""Ranks above which the input token has left the first ranks."""

RETRIEVAL_CUTS = (1, 5, 10, 100)
"""Ranks within which a target must stay to count as retrieved."""

COMPARED = ("input", "foreign")
"""The token's own rank, and that of a token of another document, for the excess preservation."""

COVARIATES = (
    "constant",
    "rarity",
    "surprisal",
    "ln_position",
    "later_occurrence",
    "ln_distance",
    "ln_count",
    "first_piece",
    "middle_piece",
    "last_piece",
    "embedding_norm",
    "logp_input_last",
)
"""What ln rank_input is regressed on; ln_position is ln(1 + position), ln_count ln(1 + count)."""


@dataclass(frozen=True)
class Tally:
    """An exact, mergeable total.

    Attributes:
        name: Dataset in ``/tally``.
        source: Quantities it is made from, in the order of its first axis.
        axes: Axis names.
        meaning: One sentence, stored as ``long_name``.
        unit: Unit of the stored integer.
        kind: Which update computes it, see ``jaxlens.tally``.
        merge: ``sum``, or ``bottom_k``: of all lines those with the lowest keys.
    """

    name: str
    source: tuple[str, ...]
    axes: tuple[str, ...]
    meaning: str
    unit: str
    kind: str
    merge: str = "sum"


_FIXED = "2**-16"

BASIC: tuple[Tally, ...] = (
    Tally(
        "count",
        schema.SUMMED,
        ("quantity", "layer"),
        "number of values that are not missing",
        "1",
        "count",
    ),
    Tally(
        "sum",
        schema.SUMMED,
        ("quantity", "layer"),
        "sum of the values, of ranks the sum of ln rank, in fixed point",
        _FIXED,
        "sum",
    ),
    Tally(
        "saturated",
        schema.SUMMED,
        ("quantity", "layer"),
        "number of values whose magnitude exceeded 2**14 and was clipped in the sum",
        "1",
        "saturated",
    ),
    Tally(
        "ln_rank_histogram",
        tuple(f"rank_{name}" for name in schema.REFERENCES),
        ("reference", "layer", "ln_rank_bin"),
        "number of values in each bin of ln rank",
        "1",
        "ln_rank_histogram",
    ),
    Tally("token_count", ("token",), ("vocab",), "occurrences of each token", "1", "token_count"),
    Tally(
        "token_sum_ln_rank_input",
        ("rank_input",),
        ("vocab", "layer"),
        "sum of ln rank_input over the occurrences of each token, in fixed point",
        _FIXED,
        "token_sum",
    ),
)


def _study(
    name: str,
    source: tuple[str, ...],
    axes: tuple[str, ...],
    meaning: str,
    unit: str = "1",
    merge: str = "sum",
) -> Tally:
    return Tally(name, source, axes, meaning, unit, "study", merge)


STUDY = (
    _study(
        "rank_histogram",
        REFERENCE_RANKS,
        ("reference", "layer", "frequency", "stratum", "rank_bin"),
        "positions by ln rank of a reference, its rarity and the stratum of the position",
    ),
    _study(
        "joint_histogram",
        ("rank_input",),
        ("layer", "fine_frequency", "fine_surprisal", "rank_bin"),
        "positions by rarity, surprisal and ln rank of the input token",
    ),
    _study(
        "preservation_sum",
        ("rank_input",),
        ("fine_frequency", "fine_surprisal"),
        "sum over the interior layers of ln rank_input, by rarity and surprisal",
        _FIXED,
    ),
    _study("type_count", ("rank_input",), ("vocab",), "positions of each token"),
    _study(
        "type_sum",
        ("rank_input",),
        ("vocab", "layer"),
        "sum of ln rank_input of each token",
        _FIXED,
    ),
    _study(
        "type_square",
        ("rank_input",),
        ("vocab", "layer"),
        "sum of squares of ln rank_input of each token",
        _FIXED,
    ),
    _study(
        "type_covariate",
        (),
        ("vocab", "covariate"),
        "sum of the covariates of each token where none is missing",
        _FIXED,
    ),
    _study(
        "covariate_product",
        (),
        ("group", "covariate", "covariate_too"),
        "sum of products of covariates by group of documents",
        _FIXED,
    ),
    _study(
        "covariate_outcome",
        ("rank_input",),
        ("group", "covariate", "layer"),
        "sum of products of covariates and ln rank_input by group",
        _FIXED,
    ),
    _study(
        "outcome_square",
        ("rank_input",),
        ("group", "layer"),
        "sum of squares of ln rank_input, by group",
        _FIXED,
    ),
    _study("type_copied", (), ("vocab",), "positions of each token that are copied later"),
    _study(
        "copied_covariate",
        (),
        ("covariate",),
        "sum of the covariates of positions that are copied later",
        _FIXED,
    ),
    _study(
        "copied_outcome",
        ("rank_input",),
        ("layer",),
        "sum of ln rank_input of positions that are copied later",
        _FIXED,
    ),
    _study(
        "group_count",
        MEASURES,
        ("measure", "group", "layer"),
        "values that are not missing, by group of documents",
    ),
    _study(
        "group_sum",
        MEASURES,
        ("measure", "group", "layer"),
        "sum of the values, of ranks of ln rank, by group of documents",
        _FIXED,
    ),
    _study(
        "frequency_count",
        MEASURES,
        ("measure", "frequency", "layer"),
        "values that are not missing, by rarity of the input token",
    ),
    _study(
        "frequency_sum",
        MEASURES,
        ("measure", "frequency", "layer"),
        "sum of the values, of ranks of ln rank, by rarity of the input token",
        _FIXED,
    ),
    _study(
        "frequency_norm",
        ("embedding_norm",),
        ("frequency",),
        "sum of the embeddings' norms by rarity of the input token",
        _FIXED,
    ),
    _study(
        "excess_count",
        tuple(f"rank_{name}" for name in COMPARED),
        ("compared", "group", "frequency"),
        "positions by the rarity of the token whose rank is taken, by group of documents",
    ),
    _study(
        "excess_sum",
        tuple(f"rank_{name}" for name in COMPARED),
        ("compared", "group", "frequency", "layer"),
        "sum of ln rank by the rarity of the token, by group of documents",
        _FIXED,
    ),
    _study(
        "excess_histogram",
        tuple(f"rank_{name}" for name in COMPARED),
        ("compared", "group", "frequency", "rank_bin"),
        "positions by rarity and ln rank of the token at mid depth, by group of documents",
    ),
    _study(
        "nearer_final",
        ("kl_final", "kl_input"),
        ("group", "layer"),
        "positions that are nearer the last layer than the input layer, by group of documents",
    ),
    _study(
        "descending",
        JUMPS,
        ("jump", "group", "layer"),
        "positions whose value is lower than at the layer before, by group of documents",
    ),
    _study(
        "divergence_histogram",
        DIVERGENCES,
        ("divergence", "layer", "frequency", "log_bin"),
        "positions by value, in logarithmic bins, and rarity of the input token",
    ),
    _study(
        "jump_histogram",
        JUMPS,
        ("jump", "frequency", "jump_bin"),
        "positions by the share that the first step has in all steps of a curve",
    ),
    _study(
        "first_exit",
        ("rank_input",),
        ("exit_cut", "frequency", "depth"),
        "positions by the first layer after the input where the rank is beyond a cut",
    ),
    _study(
        "half_life",
        ("rank_input",),
        ("frequency", "depth"),
        "positions by the first layer where preservation is half of that at the input",
    ),
    _study(
        "flip",
        ("kl_final", "kl_input"),
        ("frequency", "depth"),
        "positions by the first layer that is nearer the last layer than the input layer",
    ),
    _study(
        "retrieval",
        tuple(f"rank_{name}" for name in TARGETS),
        ("target", "retrieval_cut", "frequency", "depth"),
        "positions by the layer from which a target stays within a rank, and by its rarity",
    ),
    _study(
        "copies",
        (),
        ("copy", "field"),
        "rows of copy events: the next token is the one that followed the last earlier occurrence",
        merge="bottom_k",
    ),
    _study(
        "controls",
        (),
        ("control", "field"),
        "rows that are no copy events, the more probable their next token the more of them",
        merge="bottom_k",
    ),
    _study("reservoir", (), ("sample", "field"), "rows drawn evenly from all", merge="bottom_k"),
)
"""What the study needs; the last place of ``depth`` counts what never happened."""

TALLIES: dict[str, tuple[Tally, ...]] = {"basic": BASIC, "study": (*BASIC, *STUDY)}
"""Tallies that ``store.tallies`` names."""

BY_NAME = {tally.name: tally for tally in TALLIES["study"]}

AXIS_LABELS: dict[str, tuple[str, ...]] = {
    "quantity": schema.SUMMED,
    "reference": schema.REFERENCES,
    "measure": MEASURES,
    "divergence": DIVERGENCES,
    "jump": JUMPS,
    "target": TARGETS,
    "compared": COMPARED,
    "covariate": COVARIATES,
    "covariate_too": COVARIATES,
    "stratum": bins.STRATA,
    "exit_cut": tuple(str(cut) for cut in EXIT_CUTS),
    "retrieval_cut": tuple(str(cut) for cut in RETRIEVAL_CUTS),
}
"""Axes whose places have names."""

_LENGTHS = {
    "ln_rank_bin": len(bins.LN_RANK_EDGES) - 1,
    "frequency": bins.FREQUENCY_BINS,
    "fine_frequency": bins.FINE_BINS,
    "fine_surprisal": bins.FINE_BINS,
    "rank_bin": len(bins.RANK_EDGES) - 1,
    "log_bin": len(bins.LOG_EDGES) + 1,
    "jump_bin": bins.JUMP_BINS,
    "group": bins.GROUPS,
    "copy": sampling.COPIES,
    "control": sampling.CONTROLS,
    "sample": sampling.RESERVOIR,
    **{axis: len(names) for axis, names in AXIS_LABELS.items()},
}


def shape(tally: Tally, n_layers: int, vocab_size: int) -> tuple[int, ...]:
    """Lengths of a tally's axes."""
    sizes = {"layer": n_layers, "depth": n_layers + 1, "vocab": vocab_size}
    sizes["field"] = len(sampling.fields(n_layers))
    return tuple((_LENGTHS | sizes)[axis] for axis in tally.axes)


def items(n_layers: int, vocab_size: int, name: str = "basic") -> int:
    """Integers that a set of tallies holds, eight bytes each."""
    return sum(math.prod(shape(tally, n_layers, vocab_size)) for tally in TALLIES[name])


def mid_depth(n_layers: int) -> int:
    """The layer in the middle."""
    return n_layers // 2


def nothing(name: str, lengths: tuple[int, ...]) -> Int64[np.ndarray, "..."]:
    """A tally of no rows: zeros; of sampled rows lines whose keys are beyond all others."""
    empty = np.zeros(lengths, np.int64)
    if BY_NAME[name].merge == "bottom_k":
        empty[:, 0] = sampling.NO_KEY
    return empty
