"""Axes of the tallies: what their places stand for, and how many there are."""

from __future__ import annotations

from jaxlens import schema
from jaxlens.tally import bins, sampling

REFERENCE_RANKS = tuple(f"rank_{name}" for name in schema.REFERENCES)

OF_STREAM = ("norm", "retention")
"""Measures of the residual stream itself, which may be large."""

MEASURES = (*schema.SUMMED, "js_final", "js_input", *OF_STREAM)
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

KNOTS = tuple(2**octave for octave in range(1, 12))
"""Positions, and tokens left in a context, where the lines of a linear spline meet; 1 is the
reference, and beyond the last nothing changes."""

REGRESSORS = (
    "constant",
    "rarity",
    "surprisal",
    *(f"position_{knot}" for knot in KNOTS),
    "later_occurrence",
    "ln_distance",
    "ln_count",
    "first_piece",
    "middle_piece",
    "last_piece",
    "embedding_norm",
    *(f"room_{knot}" for knot in KNOTS),
)
"""What outcomes are regressed on in the second edition: position and the room that is left in the
context by splines, and nothing that follows from the outcome."""

OF_THE_TYPE = ("constant", "rarity", "embedding_norm")
"""Regressors that do not vary within a token type, or only by the fold of its document."""

VARYING = tuple(name for name in REGRESSORS if name not in OF_THE_TYPE)
"""Regressors that vary within a token type."""

WITHIN = (*VARYING, "copied")
"""Columns whose mean over a token type is subtracted in the third edition; ``copied`` is whether
the position is copied later."""

WEIGHTINGS = ("types", "root", "tokens")
"""How much a token type weighs: all alike, by the root of its number of tokens, or by it."""

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
    "regressor": REGRESSORS,
    "regressor_too": REGRESSORS,
    "within": WITHIN,
    "within_too": WITHIN,
    "weighting": WEIGHTINGS,
    "stratum": bins.STRATA,
    "exit_cut": tuple(str(cut) for cut in EXIT_CUTS),
    "retrieval_cut": tuple(str(cut) for cut in RETRIEVAL_CUTS),
}
"""Axes whose places have names."""

LENGTHS: dict[str, int] = {
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
    "power": 3,
    "outcome_power": 2,
    **{axis: len(names) for axis, names in AXIS_LABELS.items()},
}
"""Places of each axis whose length does not depend on the model."""
