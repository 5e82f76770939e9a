"""The second edition of the study's tallies: what each holds, and by which axes.

It replaces the covariates by regressors without outcomes among them, counts exits and retrievals by
group of documents, and compares each token type with itself where it was not read.
"""

from __future__ import annotations

from jaxlens.tally import axes, first_edition, tally
from jaxlens.tally.tally import Tally

_FIXED = "2**-16"

_REPLACED = (
    "type_covariate",
    "covariate_product",
    "covariate_outcome",
    "copied_covariate",
    "first_exit",
    "half_life",
)

_BY_GROUP: tuple[Tally, ...] = (
    tally.define(
        "first_exit_by_group",
        ("rank_input",),
        "exit_cut group frequency depth",
        "positions by the first layer after the input where the rank is beyond a cut",
    ),
    tally.define(
        "half_life_by_group",
        ("rank_input",),
        "group frequency depth",
        "positions by the first layer where preservation is half of that at the input",
    ),
    tally.define(
        "settled_by_group",
        ("rank_final",),
        "retrieval_cut group depth",
        "positions by the layer from which the model's own top-1 stays within a rank",
    ),
    tally.define(
        "next_rarity_count",
        (),
        "group",
        "positions with a next token, by group of documents",
    ),
    tally.define(
        "next_rarity_sum",
        (),
        "group",
        "sum of the rarity of the next token, by group of documents",
        _FIXED,
    ),
    tally.define(
        "foreign_retention_count",
        ("retention_foreign",),
        "group layer",
        "positions with a token of another document, by group of documents",
    ),
    tally.define(
        "foreign_retention_sum",
        ("retention_foreign",),
        "group layer",
        "sum of the projections on the centred embedding of a token of another document",
        _FIXED,
    ),
)

_REGRESSIONS: tuple[Tally, ...] = (
    tally.define(
        "type_regressor",
        (),
        "vocab regressor",
        "sum of the regressors of each token",
        _FIXED,
    ),
    tally.define(
        "regressor_product",
        (),
        "group regressor regressor_too",
        "sum of products of regressors by group of documents",
        _FIXED,
    ),
    tally.define(
        "regressor_outcome",
        ("rank_input",),
        "group regressor layer",
        "sum of products of regressors and ln rank_input by group of documents",
        _FIXED,
    ),
    tally.define(
        "copied_regressor",
        (),
        "regressor",
        "sum of the regressors of positions that are copied later",
        _FIXED,
    ),
)

_TYPES: tuple[Tally, ...] = (
    tally.define(
        "foreign_type_count",
        ("rank_foreign",),
        "vocab",
        "positions for which each token was drawn from another document",
    ),
    tally.define(
        "foreign_type_sum",
        ("rank_foreign",),
        "vocab layer",
        "sum of ln rank_foreign of each token that was drawn from another document",
        _FIXED,
    ),
    tally.define(
        "foreign_type_square",
        ("rank_foreign",),
        "vocab layer",
        "sum of squares of ln rank_foreign of each token that was drawn from another document",
        _FIXED,
    ),
    tally.define(
        "type_weight_product",
        tuple(f"rank_{name}" for name in axes.COMPARED),
        "compared weighting group power",
        "sum of weights times powers of the rarity of the token type, by group of documents",
        _FIXED,
    ),
    tally.define(
        "type_weight_outcome",
        tuple(f"rank_{name}" for name in axes.COMPARED),
        "compared weighting group outcome_power layer",
        "sum of weights times powers of the type's rarity times ln rank, by group of documents",
        _FIXED,
    ),
)

SECOND: tuple[Tally, ...] = (
    *(one for one in first_edition.FIRST if one.name not in _REPLACED),
    *_BY_GROUP,
    *_REGRESSIONS,
    *_TYPES,
)
"""The second edition."""
