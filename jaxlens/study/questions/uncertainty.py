"""Q0. How fast does uncertainty fall with depth?"""

from __future__ import annotations

import numpy as np

from jaxlens.study import curves, passages, table
from jaxlens.study.inputs import Inputs
from jaxlens.study.stats import binned
from jaxlens.study.table import Result
from jaxlens.tally import axes, bins


def estimate(run: Inputs) -> list[Result]:
    """Entropy, rank of the final top-1, and the layer from which it stays within the first ranks.

    Args:
        run: Trained or null.
    """
    return [*_means(run), *_quantiles(run), *_settled(run)]


def _means(run: Inputs) -> list[Result]:
    return [
        line
        for measure in ("entropy", "kl_final", "rank_final", "rank_next")
        for line in table.by_layer(run, curves.name_of_mean(measure), curves.means(run, measure))
    ]


def _quantiles(run: Inputs) -> list[Result]:
    histogram = run.ranks("final").sum((1, 2))
    lines = []
    for share in curves.QUARTERS:
        ranks = np.exp(binned.ln_rank_quantile(histogram, bins.RANK_EDGES, share))
        lines += curves.quantile_lines(run, "rank_final", ranks, share)
    for measure in ("entropy", "kl_final"):
        lines += curves.quartiles(run, measure)
    return lines


def _settled(run: Inputs) -> list[Result]:
    """Share whose final top-1 is within the first ranks for good from each layer on."""
    why, lines = run.lacks("settled_by_group"), []
    for i, rank in enumerate(axes.RETRIEVAL_CUTS):
        name = f"settled_within_{rank}"
        if why:
            lines += passages.lacking(run, name, why, happened=True)
        else:
            lines += passages.lines(run, name, run.tallies["settled_by_group"][i], happened=True)
    return lines
