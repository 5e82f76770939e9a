"""Columns of the regressions within types: their sums over all rows, and those of sampled rows."""

from __future__ import annotations

import numpy as np

from jaxlens import schema
from jaxlens.study.estimators import HELD
from jaxlens.study.inputs import Inputs
from jaxlens.study.sampled import Lines
from jaxlens.study.stats import within_type
from jaxlens.tally import axes, bins

OF_THE_TYPE = ("constant", "rarity", "embedding_norm")

NAMES = tuple(name for name in HELD if name not in OF_THE_TYPE)
"""What varies within a type and is held there: rarity and the embedding's norm do not vary."""

RANKED = ("ln_rank_input", *NAMES)


def of_rank(run: Inputs, layer: int) -> tuple[within_type.Sums, within_type.Sample]:
    """Ln rank_input of a layer as the outcome of ``NAMES``."""
    varying = [axes.COVARIATES.index(name) for name in NAMES]
    products = run.tallies["covariate_product"].sum(0) / bins.ONE
    sums = within_type.Sums(
        xtx=products[np.ix_(varying, varying)],
        xty=run.tallies["covariate_outcome"].sum(0)[varying, layer] / bins.ONE,
        yty=float(run.tallies["outcome_square"][:, layer].sum() / bins.ONE),
        type_counts=run.tallies["type_count"],
        type_x=run.tallies["type_covariate"][:, varying] / bins.ONE,
        type_y=run.tallies["type_sum"][:, layer] / bins.ONE,
    )
    rows = _reservoir(run)
    sample = within_type.Sample(
        types=rows["token"],
        clusters=rows["document"],
        x=_sampled(rows),
        y=np.log(np.maximum(rows[f"rank_input.{layer}"], 1)),
    )
    return sums, sample


def of_copied(run: Inputs, layer: int) -> tuple[within_type.Sums, within_type.Sample]:
    """Whether a position is copied later, as the outcome of ``RANKED``."""
    ranks, sample = of_rank(run, layer)
    varying = [axes.COVARIATES.index(name) for name in NAMES]
    copied = run.tallies["type_copied"].astype(np.float64)
    products = [run.tallies["copied_outcome"][layer], *run.tallies["copied_covariate"][varying]]
    sums = within_type.Sums(
        xtx=np.block([[np.array(ranks.yty), ranks.xty], [ranks.xty[:, None], ranks.xtx]]),
        xty=np.array(products) / bins.ONE,
        yty=float(copied.sum()),
        type_counts=ranks.type_counts,
        type_x=np.column_stack([ranks.type_y, ranks.type_x]),
        type_y=copied,
    )
    x = np.column_stack([sample.y, sample.x])
    y = _reservoir(run)["copied"].astype(np.float64)
    return sums, within_type.Sample(sample.types, sample.clusters, x, y)


def _reservoir(run: Inputs) -> Lines:
    return Lines.of(run.tallies["reservoir"], run.n_layers)


def _sampled(rows: Lines) -> np.ndarray:
    piece = rows["piece"]
    x = {
        "surprisal": rows["surprisal"] / bins.ONE,
        "ln_position": np.log1p(rows["position"]),
        "later_occurrence": rows["prev_count"] > 0,
        "ln_distance": np.log(np.maximum(rows["prev_distance"], 1)),
        "ln_count": np.log1p(rows["prev_count"]),
        "first_piece": piece == schema.PIECE_FIRST,
        "middle_piece": piece == schema.PIECE_MIDDLE,
        "last_piece": piece == schema.PIECE_LAST,
    }
    return np.stack([x[name].astype(np.float64) for name in NAMES], axis=1)
