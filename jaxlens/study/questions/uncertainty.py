"""Q0. How fast does uncertainty fall with depth?"""

from __future__ import annotations

import numpy as np

from jaxlens.study import curves, passages, table
from jaxlens.study.inputs import Inputs
from jaxlens.study.stats import binned
from jaxlens.study.table import Result
from jaxlens.tally import bins, definitions

QUESTION = "Q0"


def answer(of: Inputs) -> list[Result]:
    """Entropy, rank of the final top-1, and the layer from which it stays within the first ranks.

    Args:
        of: Run, trained or null.
    """
    return [*_means(of), *_quantiles(of), *_settled(of)]


def _means(of: Inputs) -> list[Result]:
    lines = []
    for name, meaning in (
        ("entropy", "mean entropy of a layer's prediction"),
        ("kl_final", "mean KL(last layer || this layer)"),
        ("rank_final", "mean ln rank of the model's own top-1"),
        ("rank_next", "mean ln rank of the true next token"),
    ):
        label, found = curves.name_of_mean(name), curves.means(of, name)
        lines += table.by_layer(of, QUESTION, label, meaning, found, unit="nat")
    return lines


def _quantiles(of: Inputs) -> list[Result]:
    ranks = of.ranks("final").sum((1, 2))
    lines = []
    for share in curves.QUARTERS:
        found = np.exp(binned.ln_rank_quantile(ranks, bins.RANK_EDGES, share))
        lines += curves.quantile_lines(of, QUESTION, "rank_final", found, share, "1")
    for name in ("entropy", "kl_final"):
        lines += curves.quartiles(of, QUESTION, name)
    return lines


def _settled(of: Inputs) -> list[Result]:
    """Share whose final top-1 is within the first k for good from each layer on."""
    target, effect = definitions.TARGETS.index("final"), curves.design_effect(of)
    lines = []
    for place, cut in enumerate(definitions.RETRIEVAL_CUTS):
        lines += passages.lines(
            of,
            QUESTION,
            f"settled_within_{cut}",
            of.tallies["retrieval"][target, place].sum(0),
            f"the final top-1 is within the first {cut} for good",
            effect=effect,
            happened=True,
        )
    return lines
