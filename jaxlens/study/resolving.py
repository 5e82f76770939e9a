"""Q0. How fast does uncertainty fall with depth?"""

from __future__ import annotations

import numpy as np

from jaxlens import binning, ledger
from jaxlens.study import binned, curves, passages, resample, table
from jaxlens.study.inputs import Inputs
from jaxlens.study.table import Result

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
    """Quartiles of entropy and of the final token's rank; descriptive, without intervals."""
    line = ledger.DIVERGENCES.index("entropy")
    edges = np.concatenate([[0.0], binning.LOG_EDGES, [np.inf]])
    entropy = of.tallies["divergence_histogram"][line].sum(1)
    ranks = of.ranks("final").sum((1, 2))
    lines = []
    for share in (0.25, 0.5, 0.75):
        nats = binned.bucket_quantile(entropy, edges, share)
        found = np.exp(binned.ln_rank_quantile(ranks, binning.RANK_EDGES, share))
        for name, values, unit in (("entropy", nats, "nat"), ("rank_final", found, "1")):
            n = int(ranks[0].sum())
            lines += table.by_layer(
                of,
                QUESTION,
                f"quantile_{name}",
                f"{share:.0%} of the positions are at or below",
                [resample.missing("a quantile of tokens", float(value), n) for value in values],
                unit=unit,
                stratum=f"quantile {share}",
            )
    return lines


def _settled(of: Inputs) -> list[Result]:
    """Share whose final top-1 is within the first k for good from each layer on."""
    target, effect = ledger.TARGETS.index("final"), curves.design_effect(of)
    lines = []
    for place, cut in enumerate(ledger.RETRIEVAL_CUTS):
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
