"""Q0. How fast does uncertainty fall with depth?"""

from __future__ import annotations

import numpy as np

from jaxlens import binning, ledger
from jaxlens.study import binned, curves, passages, resample
from jaxlens.study.inputs import Inputs
from jaxlens.study.table import Result, result

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
        label = f"mean_ln_{name}" if name.startswith("rank") else f"mean_{name}"
        for layer, found in enumerate(curves.means(of, name)):
            lines.append(result(of, QUESTION, label, meaning, found, unit="nat", layer=layer))
    return lines


def _quantiles(of: Inputs) -> list[Result]:
    """Quartiles of entropy and of the final token's rank; descriptive, without intervals."""
    line = ledger.DIVERGENCES.index("entropy")
    entropy = of.tallies["divergence_histogram"][line].sum(1)
    edges = np.concatenate([[0.0], binning.LOG_EDGES, [np.inf]])
    ranks = of.ranks("final").sum((1, 2))
    lines = []
    for share in (0.25, 0.5, 0.75):
        for layer in range(of.n_layers):
            value = float(binned.bucket_quantile(entropy[layer], edges, share))
            rank = float(np.exp(binned.ln_rank_quantile(ranks[layer], RANK_EDGES, share)))
            for name, number, unit in (("entropy", value, "nat"), ("rank_final", rank, "1")):
                found = resample.missing("a quantile of tokens", number, int(ranks[layer].sum()))
                meaning = f"{share:.0%} of the positions are at or below"
                label = f"quantile_{name}"
                stratum = f"quantile {share}"
                lines.append(
                    result(
                        of, QUESTION, label, meaning, found, unit=unit, layer=layer, stratum=stratum
                    )
                )
    return lines


RANK_EDGES = binning.LN_RANK_EDGES[::2].astype(np.float64)
"""Edges of the study's bins of ln rank."""


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
