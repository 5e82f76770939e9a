"""Q3. When are copies retrieved, and are they scrambled before?"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

from jaxlens.study import inputs, table
from jaxlens.study.estimators import RETRIEVAL_RANKS, RETRIEVED
from jaxlens.study.inputs import Inputs
from jaxlens.study.questions import copy_pairs
from jaxlens.study.questions.copy_pairs import Pairs
from jaxlens.study.stats import bootstrap, matched, matched_means, multiplicity, shape, slope
from jaxlens.study.stats.hodges_lehmann import hodges_lehmann
from jaxlens.study.table import Result, result
from jaxlens.tally import axes, bins

MIN_MATCHES = 50
"""Matches of a bin of rarity below which it has no number."""


def estimate(run: Inputs) -> list[Result]:
    """Copies against controls that are as frequent, as probable and as uncertain in the end.

    Both are positions whose token stood earlier in the context: where it did not, nothing could
    have been copied.
    """
    pairs = copy_pairs.matched_pairs(run)
    return [
        *_depths(run, pairs),
        *_by_rarity(run, pairs),
        *_balance(run, pairs),
        *_prominence(run, pairs),
        *_on_the_way(run, pairs),
        *_retrieval_curve(run),
    ]


def retrieval_depth(ranks: np.ndarray, cut: int) -> np.ndarray:
    """Depth from which a rank stays within a cut, 0 to 1; a layer beyond 1 where it never does.

    Args:
        ranks: ``[row, layer]``.
        cut: Greatest rank that counts.
    """
    stays = np.flip(ranks <= cut, 1).astype(np.int64)
    first = ranks.shape[1] - np.cumprod(stays, axis=1).sum(1)
    return first / (ranks.shape[1] - 1)


def ln_rank(ranks: np.ndarray) -> Float[np.ndarray, "..."]:
    """Natural logarithm of ranks; 0 where there is none."""
    return np.log(np.maximum(ranks, 1))


def _depths(run: Inputs, pairs: Pairs) -> list[Result]:
    lines = []
    for rank in RETRIEVAL_RANKS:
        depths = pairs.values(*_retrieval_depths(pairs, rank))
        half_a_layer = 1 / (2 * (run.n_layers - 1))
        note = f"{pairs.note}; smallest effect: half a layer"
        plain = matched.difference(depths)
        lines.append(
            result(run, f"retrieval_depth_{rank}", plain, smallest=half_a_layer, note=note)
        )
        lines.append(
            result(
                run,
                f"retrieval_depth_adjusted_{rank}",
                matched.adjusted_difference(depths, *pairs.matched_covariates),
                smallest=half_a_layer,
                note=note + pairs.unbalanced,
            )
        )
        lines += _means(run, f"mean_retrieval_depth_{rank}", depths)
        if rank == RETRIEVED:
            lines += _effects(run, depths, pairs.note)
    return lines


def _retrieval_depths(pairs: Pairs, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Retrieval depths of all copies and of all others."""
    copies, others = (rows.layers("rank_next") for rows in (pairs.copies, pairs.others))
    return retrieval_depth(copies, rank), retrieval_depth(others, rank)


def _by_rarity(run: Inputs, pairs: Pairs) -> list[Result]:
    """The adjusted difference in each bin of the rarity of the token that is copied."""
    rarity = pairs.copies["rarity_next"][pairs.matches.copy] >> bins.FIXED_POINT_BITS
    number = np.clip(rarity, 0, bins.FREQUENCY_BINS - 1)
    copied, depths = (
        pairs.copies["next_token"][pairs.matches.copy],
        _retrieval_depths(pairs, RETRIEVED),
    )
    lines = []
    for i in range(bins.FREQUENCY_BINS):
        mine = number == i
        covariates = (side[mine] for side in pairs.matched_covariates)
        difference = (
            bootstrap.missing(why, n=int(mine.sum()))
            if (why := _too_few(copied[mine]))
            else matched.adjusted_difference(pairs.values(*depths, mine), *covariates)
        )
        lines.append(
            result(
                run,
                f"retrieval_depth_adjusted_{RETRIEVED}",
                difference,
                stratum=inputs.rarity_label(i),
                smallest=1 / (2 * (run.n_layers - 1)),
            )
        )
    return lines


def _too_few(copied: np.ndarray) -> str:
    """Why copies of these tokens have no number, or nothing."""
    if len(copied) < MIN_MATCHES:
        return f"fewer than {MIN_MATCHES} matches"
    few = len(np.unique(copied)) < slope.MIN_TYPES
    return f"fewer than {slope.MIN_TYPES} token types" if few else ""


def _balance(run: Inputs, pairs: Pairs) -> list[Result]:
    """Standardized differences of the covariates, before and after matching."""
    lines = []
    for name, (mine, theirs) in pairs.covariates.items():
        spread = float(mine.std(ddof=1)) if len(mine) > 1 else 0.0
        apart = float(mine.mean() - theirs.mean()) if len(mine) and len(theirs) else math.nan
        values = {
            "sampled": (apart / spread if spread > 0 else math.nan, len(mine)),
            "matched": (pairs.balance[name], len(pairs.matches.copy)),
        }
        lines += [
            result(
                run,
                f"balance_{name}",
                bootstrap.missing("describes the matches", value, n),
                stratum=stratum,
            )
            for stratum, (value, n) in values.items()
        ]
    return lines


def _means(run: Inputs, name: str, of: matched.Values) -> list[Result]:
    """Means of the matched copies and of their controls, whose difference is the matched one."""
    lines = []
    for stratum, values in (("copies", of.copies), ("controls", of.control_means)):
        mean = float(values.mean()) if of.n else math.nan
        without = bootstrap.missing("of the matched, without interval", mean, of.n)
        lines.append(result(run, name, without, stratum=stratum))
    return lines


def _effects(run: Inputs, depths: matched.Values, note: str) -> list[Result]:
    """Cliff's delta and the Hodges-Lehmann shift of the matched."""
    centre = hodges_lehmann(depths.copies - depths.control_means)
    shift = bootstrap.missing("no interval, since depths have few values", centre)
    smallest = multiplicity.SMALLEST["cliff"]
    return [
        result(run, "cliff_delta", matched.cliff(depths), smallest=smallest, note=note),
        result(run, "hodges_lehmann", shift, note=note),
    ]


def _prominence(run: Inputs, pairs: Pairs) -> list[Result]:
    """How far ln rank rises and falls again on its way: scrambled, then recovered."""
    values = pairs.values(
        *(shape.prominence(ln_rank(r.layers("rank_next"))) for r in (pairs.copies, pairs.others))
    )
    return [
        result(run, "scramble_recover", matched.difference(values), note=pairs.note),
        *_means(run, "mean_prominence", values),
    ]


def _on_the_way(run: Inputs, pairs: Pairs) -> list[Result]:
    """Of the matched at each layer: the share that is retrieved for good, and mean ln rank."""
    ranks = [rows.layers("rank_next") for rows in (pairs.copies, pairs.others)]
    measures = {
        f"retrieved_within_{RETRIEVED}": [
            retrieval_depth(part, RETRIEVED)[:, None] <= run.depths for part in ranks
        ],
        "matched_ln_rank_next": [ln_rank(part) for part in ranks],
    }
    lines = []
    for name, sides in measures.items():
        for layer in range(run.n_layers):
            of = pairs.values(*(side[:, layer] for side in sides))
            means = {
                "copies": matched_means.of_copies(of),
                "controls": matched_means.of_controls(of),
            }
            lines += [
                result(run, name, mean, layer=layer, stratum=stratum, note=pairs.note)
                for stratum, mean in means.items()
            ]
    return lines


def _retrieval_curve(run: Inputs) -> list[Result]:
    """Of all positions with an earlier occurrence: when the token that followed it is in reach."""
    target, cut = axes.TARGETS.index("copy"), axes.RETRIEVAL_CUTS.index(RETRIEVED)
    counts = run.tallies["retrieval"][target, cut].sum(0)
    total = int(counts.sum())
    shares = np.cumsum(counts)[:-1] / total if total else np.full(run.n_layers, np.nan)
    note = "all positions, without interval"
    estimates = [bootstrap.missing(note, float(share), total) for share in shares]
    return table.by_layer(run, f"copy_within_{RETRIEVED}", estimates)
