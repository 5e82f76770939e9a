"""The dilution null: what rank the input would have if nothing of it were erased.

A residual that keeps its embedding ``e`` whole and adds a part that has nothing to do with the
vocabulary grows in norm, and the input is outshouted. If that part is isotropic in ``d``
dimensions, the logit of a random token is normal beside that of the input, and

    rank = 1 + (V - 1) Phi(-c sqrt(d) / sqrt(1 - c^2)),    c = |e| / |h|.

With the projection that is really left, ``c`` times the retention, it is the rank that the amount
of the embedding explains. What is between the two was erased; what is beyond the second, other
directions outdo it. It is a rough law: gain and bias of the final norm and the crowding of
embeddings are left out.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy import stats

from jaxlens.study import curves, table
from jaxlens.study.inputs import Inputs
from jaxlens.study.stats import binned, bootstrap
from jaxlens.study.table import Result, result
from jaxlens.tally import bins, definitions

QUESTION = "Q1"

LAW = "a rough law"

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


def answer(of: Inputs) -> list[Result]:
    """Observed median rank of the input beside the two predictions, and norm and retention."""
    if not (of.has("norm") and of.has("retention")):
        found = bootstrap.missing(NEEDS if of.group_rows.any() else bootstrap.EMPTY)
        return [result(of, QUESTION, "dilution_rank", "dilution null", found, unit="1")]
    lines = []
    for name, meaning in (
        ("norm", "mean norm of the residual"),
        ("retention", "mean projection on the token's own centred embedding, 1 at the embedding"),
    ):
        found = curves.means(of, name)
        lines += table.by_layer(of, QUESTION, f"mean_{name}", meaning, found, unit="1")
    observed = of.ranks("input").sum((1, 2))
    medians = np.exp(binned.ln_rank_quantile(observed, bins.RANK_EDGES))
    pure, kept = predictions(of)
    n = int(observed[0].sum())
    for name, ranks, meaning, note in (
        ("median_rank_input", medians, "median rank of the input token", "a quantile of tokens"),
        ("dilution_rank", pure, "median rank that growth of the norm alone explains", LAW),
        ("retained_rank", kept, "median rank that norm and retention explain", LAW),
    ):
        found = [bootstrap.missing(note, float(rank), n) for rank in ranks]
        lines += table.by_layer(of, QUESTION, name, meaning, found, unit="1")
    return lines


def predictions(of: Inputs) -> tuple[np.ndarray, np.ndarray]:
    """Median ranks by layer under pure dilution, and with the retention that is left.

    The norms are means by rarity, and ln rank is averaged over the bins of rarity.
    """
    counts = of.tallies["frequency_count"][definitions.MEASURES.index("norm")][:, 0]
    used = counts > 0
    own = of.tallies["frequency_norm"][used] / bins.ONE / counts[used]
    cosine = own[:, None] / of.by_frequency("norm")[used]
    embed = int(of.spec["model"]["architecture"]["n_embd"])
    weight = counts[used] / counts.sum()
    both = []
    for share in (cosine, cosine * of.by_frequency("retention")[used]):
        ranks = np.log(median_rank(share, embed, of.vocab_size))
        both.append(np.exp((weight[:, None] * ranks).sum(0)))
    return both[0], both[1]
