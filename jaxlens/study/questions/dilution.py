"""The dilution null: what rank the input would have if nothing of it were erased.

A residual that keeps its embedding ``e`` whole and adds a part that has nothing to do with the
vocabulary grows in norm, and its other directions outweigh the input. If that part is isotropic
in ``d`` dimensions, the logit of a random token is normal beside that of the input, and

    rank = 1 + (V - 1) Phi(-c sqrt(d) / sqrt(1 - c^2)),    c = |e| / |h|.

With the projection that is really left, ``c`` times the retention, it is the rank that the amount
of the embedding explains. What is between the two was erased; what is beyond the second is due to
other directions. It is a rough law: gain and bias of the final norm and the crowding of
embeddings are left out. Where the head is not the embedding, nothing follows from the embedding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import stats

from jaxlens.study import curves, table
from jaxlens.study.inputs import Inputs
from jaxlens.study.stats import binned, bootstrap
from jaxlens.study.table import Result, result
from jaxlens.tally import axes, bins

LAW = "a rough law"

UNTIED = "the head of this model is not its embedding"

NEEDS = "needs norm and retention: --tallies study, or --set store.quantities=[norm,retention]"


def median_rank(
    share: Float[np.ndarray, "..."], embed: int, vocab_size: int
) -> Float[np.ndarray, "..."]:
    """Median rank of a token to whose embedding a residual has this cosine.

    Args:
        share: Cosine, from -1 to 1.
        embed: Dimensions.
        vocab_size: Tokens.
    """
    share = np.clip(share, -1.0, 1.0)
    with np.errstate(divide="ignore"):
        distance = share * np.sqrt(embed) / np.sqrt(1 - np.square(share))
    return 1 + (vocab_size - 1) * stats.norm.sf(distance)


def is_tied(spec: Mapping[str, Any]) -> bool:
    """Whether the head of a run's model is its embedding; else the law says nothing."""
    return bool(spec["model"]["architecture"].get("tie_word_embeddings", True))


def estimate(run: Inputs) -> list[Result]:
    """Observed median rank of the input beside the two predictions, and norm and retention."""
    if not (run.has("norm") and run.has("retention")):
        absent = bootstrap.missing(NEEDS if run.group_rows.any() else bootstrap.EMPTY)
        return [result(run, "dilution_rank", absent, meaning="dilution null")]
    lines = []
    for measure in ("norm", "retention"):
        lines += table.by_layer(run, f"mean_{measure}", curves.means(run, measure))
    observed = run.ranks("input").sum((1, 2))
    medians = np.exp(binned.ln_rank_quantile(observed, bins.RANK_EDGES))
    nothing = np.full(len(medians), np.nan)
    diluted, retained = predictions(run) if is_tied(run.spec) else (nothing, nothing)
    n, law = int(observed[0].sum()), LAW if is_tied(run.spec) else UNTIED
    for name, ranks, note in (
        ("median_rank_input", medians, "a quantile of tokens"),
        ("dilution_rank", diluted, law),
        ("retained_rank", retained, law),
    ):
        estimates = [bootstrap.missing(note, float(rank), n) for rank in ranks]
        lines += table.by_layer(run, name, estimates)
    return lines


def predictions(run: Inputs) -> tuple[np.ndarray, np.ndarray]:
    """Median ranks by layer under pure dilution, and with the retention that is left.

    The norms are means by rarity, and ln rank is averaged over the bins of rarity.
    """
    counts = run.tallies["frequency_count"][axes.MEASURES.index("norm")][:, 0]
    used = counts > 0
    own = run.tallies["frequency_norm"][used] / bins.ONE / counts[used]
    cosine = own[:, None] / run.by_frequency("norm")[used]
    embed = int(run.spec["model"]["architecture"]["n_embd"])
    weight = counts[used] / counts.sum()
    both = []
    for share in (cosine, cosine * run.by_frequency("retention")[used]):
        ranks = np.log(median_rank(share, embed, run.vocab_size))
        both.append(np.exp((weight[:, None] * ranks).sum(0)))
    return both[0], both[1]
