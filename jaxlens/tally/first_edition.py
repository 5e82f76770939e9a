"""The first edition of the study's tallies: what each holds, and by which axes.

A run keeps the edition that it began with. The last place of ``depth`` counts what never happened.
"""

from __future__ import annotations

from jaxlens.tally import axes, tally
from jaxlens.tally.tally import Tally

_FIXED = "2**-16"

FIRST: tuple[Tally, ...] = (
    tally.define(
        "rank_histogram",
        axes.REFERENCE_RANKS,
        "reference layer frequency stratum rank_bin",
        "positions by ln rank of a reference, its rarity and the stratum of the position",
    ),
    tally.define(
        "joint_histogram",
        ("rank_input",),
        "layer fine_frequency fine_surprisal rank_bin",
        "positions by rarity, surprisal and ln rank of the input token",
    ),
    tally.define(
        "preservation_sum",
        ("rank_input",),
        "fine_frequency fine_surprisal",
        "sum over the interior layers of ln rank_input, by rarity and surprisal",
        _FIXED,
    ),
    tally.define("type_count", ("rank_input",), "vocab", "positions of each token"),
    tally.define(
        "type_sum", ("rank_input",), "vocab layer", "sum of ln rank_input of each token", _FIXED
    ),
    tally.define(
        "type_square",
        ("rank_input",),
        "vocab layer",
        "sum of squares of ln rank_input of each token",
        _FIXED,
    ),
    tally.define(
        "type_covariate",
        (),
        "vocab covariate",
        "sum of the covariates of each token where none is missing",
        _FIXED,
    ),
    tally.define(
        "covariate_product",
        (),
        "group covariate covariate_too",
        "sum of products of covariates by group of documents",
        _FIXED,
    ),
    tally.define(
        "covariate_outcome",
        ("rank_input",),
        "group covariate layer",
        "sum of products of covariates and ln rank_input by group",
        _FIXED,
    ),
    tally.define(
        "outcome_square",
        ("rank_input",),
        "group layer",
        "sum of squares of ln rank_input, by group",
        _FIXED,
    ),
    tally.define("type_copied", (), "vocab", "positions of each token that are copied later"),
    tally.define(
        "copied_covariate",
        (),
        "covariate",
        "sum of the covariates of positions that are copied later",
        _FIXED,
    ),
    tally.define(
        "copied_outcome",
        ("rank_input",),
        "layer",
        "sum of ln rank_input of positions that are copied later",
        _FIXED,
    ),
    tally.define(
        "group_count",
        axes.MEASURES,
        "measure group layer",
        "values that are not missing, by group of documents",
    ),
    tally.define(
        "group_sum",
        axes.MEASURES,
        "measure group layer",
        "sum of the values, of ranks of ln rank, by group of documents",
        _FIXED,
    ),
    tally.define(
        "frequency_count",
        axes.MEASURES,
        "measure frequency layer",
        "values that are not missing, by rarity of the input token",
    ),
    tally.define(
        "frequency_sum",
        axes.MEASURES,
        "measure frequency layer",
        "sum of the values, of ranks of ln rank, by rarity of the input token",
        _FIXED,
    ),
    tally.define(
        "frequency_norm",
        ("embedding_norm",),
        "frequency",
        "sum of the embeddings' norms by rarity of the input token",
        _FIXED,
    ),
    tally.define(
        "excess_count",
        tuple(f"rank_{name}" for name in axes.COMPARED),
        "compared group frequency",
        "positions by the rarity of the token whose rank is taken, by group of documents",
    ),
    tally.define(
        "excess_sum",
        tuple(f"rank_{name}" for name in axes.COMPARED),
        "compared group frequency layer",
        "sum of ln rank by the rarity of the token, by group of documents",
        _FIXED,
    ),
    tally.define(
        "excess_histogram",
        tuple(f"rank_{name}" for name in axes.COMPARED),
        "compared group frequency rank_bin",
        "positions by rarity and ln rank of the token at mid depth, by group of documents",
    ),
    tally.define(
        "nearer_final",
        ("kl_final", "kl_input"),
        "group layer",
        "positions that are nearer the last layer than the input layer, by group of documents",
    ),
    tally.define(
        "descending",
        axes.JUMPS,
        "jump group layer",
        "positions whose value is lower than at the layer before, by group of documents",
    ),
    tally.define(
        "divergence_histogram",
        axes.DIVERGENCES,
        "divergence layer frequency log_bin",
        "positions by value, in logarithmic bins, and rarity of the input token",
    ),
    tally.define(
        "jump_histogram",
        axes.JUMPS,
        "jump frequency jump_bin",
        "positions by the share that the first step has in all steps of a curve",
    ),
    tally.define(
        "first_exit",
        ("rank_input",),
        "exit_cut frequency depth",
        "positions by the first layer after the input where the rank is beyond a cut",
    ),
    tally.define(
        "half_life",
        ("rank_input",),
        "frequency depth",
        "positions by the first layer where preservation is half of that at the input",
    ),
    tally.define(
        "flip",
        ("kl_final", "kl_input"),
        "frequency depth",
        "positions by the first layer that is nearer the last layer than the input layer",
    ),
    tally.define(
        "retrieval",
        tuple(f"rank_{name}" for name in axes.TARGETS),
        "target retrieval_cut frequency depth",
        "positions by the layer from which a target stays within a rank, and by its rarity",
    ),
    tally.define(
        "copies",
        (),
        "copy field",
        "rows of copy events: the next token is the one that followed the last earlier occurrence",
        merge="bottom_k",
    ),
    tally.define(
        "controls",
        (),
        "control field",
        "rows that are no copy events, the more probable their next token the more of them",
        merge="bottom_k",
    ),
    tally.define("reservoir", (), "sample field", "rows drawn evenly from all", merge="bottom_k"),
)
"""The first edition."""
