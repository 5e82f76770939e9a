"""Q3. When are copies retrieved, and are they scrambled before?"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

from jaxlens.study import inputs, table
from jaxlens.study.estimators import RETRIEVAL_RANKS, RETRIEVED
from jaxlens.study.inputs import TRAINED, Inputs
from jaxlens.study.questions import copy_pairs
from jaxlens.study.questions.copy_pairs import Pairs
from jaxlens.study.stats import binned, bootstrap, matched, multiplicity, shape, slope
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
        values = _values(pairs, rank)
        half_a_layer = 1 / (2 * (run.n_layers - 1))
        note = f"{pairs.note}; smallest effect: half a layer"
        difference = matched.matched_difference(*values, *pairs.documents)
        lines.append(
            result(run, f"retrieval_depth_{rank}", difference, smallest=half_a_layer, note=note)
        )
        lines.append(
            result(
                run,
                f"retrieval_depth_adjusted_{rank}",
                _adjusted(pairs, rank),
                smallest=half_a_layer,
                primary=rank == RETRIEVED and run.kind == TRAINED,
                note=note + pairs.unbalanced,
            )
        )
        lines += _means(run, f"mean_retrieval_depth_{rank}", *values)
        if rank == RETRIEVED:
            lines += _effects(run, *values, pairs)
    return lines


def _values(pairs: Pairs, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Retrieval depths of the matched copies and of their controls."""
    return pairs.values(
        *(retrieval_depth(rows.layers("rank_next"), rank) for rows in (pairs.copies, pairs.others))
    )


def _adjusted(pairs: Pairs, rank: int) -> bootstrap.Estimate:
    """Difference of retrieval depths at equal covariates."""
    sides = [pairs.values(*both) for both in pairs.covariates.values()]
    mine, theirs = (np.stack([side[i] for side in sides], axis=-1) for i in (0, 1))
    return matched.adjusted_difference(
        *_values(pairs, rank), mine, np.nan_to_num(theirs), *pairs.documents
    )


def _by_rarity(run: Inputs, pairs: Pairs) -> list[Result]:
    """The adjusted difference in each bin of the rarity of the token that is copied."""
    rarity = pairs.copies["rarity_next"][pairs.matches.copy] >> bins.FIXED_POINT_BITS
    number = np.clip(rarity, 0, bins.FREQUENCY_BINS - 1)
    lines = []
    for i in range(bins.FREQUENCY_BINS):
        few = pairs.where(number == i)
        n = len(few.matches.copy)
        types = len(np.unique(pairs.copies["next_token"][few.matches.copy]))
        why = "" if types >= slope.MIN_TYPES else f"fewer than {slope.MIN_TYPES} token types"
        why = f"fewer than {MIN_MATCHES} matches" if n < MIN_MATCHES else why
        difference = bootstrap.missing(why, n=n) if why else _adjusted(few, RETRIEVED)
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


def _balance(run: Inputs, pairs: Pairs) -> list[Result]:
    """Standardized differences of the covariates, before and after matching."""
    lines = []
    for name, (mine, theirs) in pairs.covariates.items():
        spread = float(mine.std(ddof=1)) if len(mine) > 1 else 0.0
        apart = float(mine.mean() - theirs.mean()) if len(mine) and len(theirs) else math.nan
        values = {
            "sampled": (apart / spread if spread > 0 else math.nan, len(mine)),
            "matched": (
                matched.standardized_difference(*pairs.values(mine, theirs)),
                len(pairs.matches.copy),
            ),
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


def _means(run: Inputs, name: str, copies: np.ndarray, controls: np.ndarray) -> list[Result]:
    """Means of the matched copies and of their controls, whose difference is the matched one."""
    lines = []
    for stratum, values in (("copies", copies), ("controls", _row_means(controls))):
        mean = float(values.mean()) if len(values) else math.nan
        without = bootstrap.missing("of the matched, without interval", mean, len(values))
        lines.append(result(run, name, without, stratum=stratum))
    return lines


def _effects(run: Inputs, copies: np.ndarray, controls: np.ndarray, pairs: Pairs) -> list[Result]:
    """Cliff's delta and the Hodges-Lehmann shift of the matched."""
    delta = matched.cliff(copies, controls, *pairs.documents)
    centre = hodges_lehmann(copies - _row_means(controls))
    shift = bootstrap.missing("depths have few values: no interval of it covers", centre)
    smallest = multiplicity.SMALLEST["cliff"]
    return [
        result(run, "cliff_delta", delta, smallest=smallest, note=pairs.note),
        result(run, "hodges_lehmann", shift, note=pairs.note),
    ]


def _row_means(values: Float[np.ndarray, "match control"]) -> Float[np.ndarray, " match"]:
    """Mean of the controls of each match."""
    known = np.isfinite(values)
    return binned.ratio(np.where(known, values, 0.0).sum(1), known.sum(1))


def _prominence(run: Inputs, pairs: Pairs) -> list[Result]:
    """How far ln rank rises and falls again on its way: scrambled, then recovered."""
    values = pairs.values(
        *(shape.prominence(ln_rank(r.layers("rank_next"))) for r in (pairs.copies, pairs.others))
    )
    difference = matched.matched_difference(*values, *pairs.documents)
    return [
        result(run, "scramble_recover", difference, note=pairs.note),
        *_means(run, "mean_prominence", *values),
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
            copies, controls = pairs.values(*(side[:, layer] for side in sides))
            for stratum, values in (("copies", copies), ("controls", _row_means(controls))):
                mean = bootstrap.clustered_mean(values, pairs.documents[0])
                lines.append(result(run, name, mean, layer=layer, stratum=stratum, note=pairs.note))
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
