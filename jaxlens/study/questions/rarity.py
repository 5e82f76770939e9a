"""Q2. Are rare tokens kept, beyond frequency and chance?"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from jaxlens.study import curves, inputs, over_types, table
from jaxlens.study.inputs import TRAINED, Inputs
from jaxlens.study.stats import binned, bootstrap, multiplicity, same_type, slope
from jaxlens.study.table import Result, result
from jaxlens.tally import axes, bins

RARITY = np.arange(bins.FREQUENCY_BINS) + 0.5
"""Middle of each bin of rarity, nat."""

FEW_TOKENS = f"fewer than {slope.MIN_TOKENS} tokens"
FEW_TYPES = f"fewer than {slope.MIN_TYPES} token types"

WEIGHED = {"types": "types", "root": "the root of tokens", "tokens": "tokens"}
"""Weightings in words."""

PIECES = ("whole word", "first piece", "middle piece", "last piece")


def estimate(run: Inputs) -> list[Result]:
    """Everything of one run, trained or null; the primaries are marked for a trained one."""
    return [
        *_same_type(run),
        *_slopes(run),
        *_excess(run),
        *_fan(run),
        *_preservation(run),
        *_pieces(run),
    ]


def contrasts(run: Inputs, nulls: Sequence[Inputs]) -> list[Result]:
    """The slope of excess preservation against null runs, paired by groups of documents."""
    lines = []
    for kind in dict.fromkeys(null.kind for null in nulls):
        same = [null for null in nulls if null.kind == kind]
        ours, *others = (_compared(one, one.middle) for one in (run, *same))
        weight = slope.bin_weights(ours[1].sum(0), n_types=run.n_types)

        def of_means(means: np.ndarray, weight: np.ndarray = weight) -> np.ndarray:
            return slope.weighted_slope(slope.excess(means), RARITY, weight)

        lines.append(
            result(
                run,
                "excess_slope_of_means",
                curves.difference(*ours, others, of_means, run.group_rows),
                layer=run.middle,
                null=f"{kind} x {len(same)}",
                smallest=smallest_slope(run),
            )
        )
    return lines


def smallest_slope(run: Inputs) -> float:
    """Slope that makes preservation differ by the smallest effect between rare and frequent.

    The difference of P, 0.02, is one of 0.02 ln V in ln rank; rare and frequent are the ninth and
    the first decile of the tokens' rarity. NaN where no position counts.
    """
    counts = run.ranks("input")[0].sum((1, 2))
    if not counts.any():
        return math.nan
    reached = np.cumsum(counts) / counts.sum()
    low, high = (float(RARITY[int(np.searchsorted(reached, share))]) for share in (0.1, 0.9))
    wide = multiplicity.SMALLEST["preservation"] * math.log(run.vocab_size)
    return wide / max(high - low, 1.0)


def _compared(run: Inputs, layer: int) -> tuple[np.ndarray, np.ndarray]:
    """Sums and counts of own and foreign ln ranks, ``[group, own_foreign, bin]``."""
    sums, counts = (np.moveaxis(run.tallies[f"excess_{what}"], 0, 1) for what in ("sum", "count"))
    return sums[..., layer], counts


def _same_type(run: Inputs) -> list[Result]:
    """Each type against itself where it was not read; equal types are the primary."""
    smallest = smallest_slope(run)
    why = run.lacks("foreign_type_sum", "type_weight_product", "type_weight_outcome")
    if run.token_counts is None:
        why = "the counts of tokens are not known"
    lines = []
    for i, weighting in enumerate(axes.WEIGHTINGS):
        slopes = [bootstrap.missing(why)] * run.n_layers if why else _same_type_slopes(run, i)
        for layer, estimate in enumerate(slopes):
            lines.append(
                result(
                    run,
                    "excess_slope_same_type",
                    estimate,
                    layer=layer,
                    stratum="all" if i == 0 else f"weighted by {WEIGHED[weighting]}",
                    smallest=smallest,
                    primary=run.kind == TRAINED and i == 0 and layer == run.middle,
                )
            )
    return lines


def _same_type_slopes(run: Inputs, weighting: int) -> list[bootstrap.Estimate]:
    """Slopes over types by layer; types that are seldom in the corpus have no weight."""
    counts = run.token_counts
    assert counts is not None
    rarity, weight = over_types.rarity(counts), over_types.weights(counts)[weighting]
    return [
        same_type.slope(
            _side(run, "", layer),
            _side(run, "foreign_", layer),
            rarity,
            weight,
            _groups(run, weighting, layer),
        )
        for layer in range(run.n_layers)
    ]


def _groups(run: Inputs, weighting: int, layer: int) -> same_type.Scores | same_type.Groups:
    """What documents make of the slope: of rows less the means of types, or of raw sums."""
    if run.within is not None and run.within.over_types is not None:
        scores = run.within.over_types[weighting, :, layer]
        return same_type.Scores(scores, run.group_rows)
    product, outcome = (
        run.tallies[f"type_weight_{what}"][:, weighting] / bins.ONE
        for what in ("product", "outcome")
    )
    return same_type.Groups(product, outcome[..., layer], run.group_rows)


def _side(run: Inputs, side: str, layer: int) -> same_type.Side:
    """Sums of each type at a layer, where it was read or, with ``foreign_``, where it was not."""
    total, square = (
        run.tallies[f"{side}type_{what}"][:, layer] / bins.ONE for what in ("sum", "square")
    )
    return same_type.Side(run.tallies[f"{side}type_count"], total, square)


def _slopes(run: Inputs) -> list[Result]:
    smallest = smallest_slope(run)
    histogram = np.moveaxis(run.tallies["excess_histogram"], 0, 1)
    of_medians = result(
        run,
        "excess_slope",
        slope.median_slope(histogram, bins.RANK_EDGES, RARITY, n_types=run.n_types),
        layer=run.middle,
        smallest=smallest,
    )
    of_means = [
        slope.mean_slope(*_compared(run, layer), RARITY, n_types=run.n_types)
        for layer in range(run.n_layers)
    ]
    return [
        of_medians,
        *table.by_layer(run, "excess_slope_of_means", of_means, smallest=smallest),
    ]


def _excess(run: Inputs) -> list[Result]:
    """Excess preservation in each bin of rarity, at mid depth."""
    sums, counts = _compared(run, run.middle)
    return [
        result(
            run,
            "excess_preservation",
            _excess_of(sums[:, :, i], counts[:, :, i], _few(run, i)),
            layer=run.middle,
            stratum=inputs.rarity_label(i),
        )
        for i in range(bins.FREQUENCY_BINS)
    ]


def _few(run: Inputs, i: int) -> str:
    """Why a bin of rarity has no number whatever its tokens, or nothing."""
    return FEW_TYPES if run.n_types is not None and run.n_types[i] < slope.MIN_TYPES else ""


def _excess_of(sums: np.ndarray, counts: np.ndarray, few: str) -> bootstrap.Estimate:
    """Of one bin, ``[group, own_foreign]``; without a number where it holds too few tokens."""
    fewest = int(counts.sum(0).min())
    few = FEW_TOKENS if fewest < slope.MIN_TOKENS else few
    if few:
        return bootstrap.missing(few, n=fewest, clusters=int(np.count_nonzero(counts[:, 0])))

    def of_totals(total: np.ndarray, count: np.ndarray) -> np.ndarray:
        means = binned.mean(total, count)
        return means[..., 1] - means[..., 0]

    return bootstrap.bootstrap(of_totals, (sums, counts), counts[:, 0])


def _fan(run: Inputs) -> list[Result]:
    """Mean ln rank at each layer by rarity: of the own tokens, and of others equally rare."""
    return [
        line
        for i, whose in enumerate(axes.COMPARED)
        for rarity in range(bins.FREQUENCY_BINS)
        for line in table.by_layer(
            run,
            f"fan_{whose}",
            _means_of_bin(
                run.tallies["excess_sum"][i, :, rarity],
                run.tallies["excess_count"][i, :, rarity],
                _few(run, rarity),
            ),
            stratum=inputs.rarity_label(rarity),
        )
    ]


def _means_of_bin(sums: np.ndarray, counts: np.ndarray, few: str) -> list[bootstrap.Estimate]:
    """Of one bin of rarity, ``[group, layer]`` and ``[group]``; none where it holds too few."""
    n, clusters = int(counts.sum()), int(np.count_nonzero(counts))
    few = FEW_TOKENS if n < slope.MIN_TOKENS else few
    if few:
        return [bootstrap.missing(few, n=n, clusters=clusters)] * sums.shape[1]
    return curves.by_layer(sums, np.repeat(counts[:, None], sums.shape[1], axis=1))


def landscape(run: Inputs) -> Float[np.ndarray, "rarity surprisal"]:
    """Mean preservation over the interior layers, by rarity and surprisal of the token.

    Bins are the fine ones of ``bins``; NaN where a bin holds fewer than ``slope.MIN_TOKENS``
    tokens.
    """
    counts = run.tallies["joint_histogram"][0].sum(-1)
    if run.n_layers <= 2:  # a model of one block has no interior layer
        return np.full(counts.shape, np.nan)
    sums = run.tallies["preservation_sum"] / bins.ONE / (run.n_layers - 2)
    mean = np.where(counts >= slope.MIN_TOKENS, binned.ratio(sums, counts), np.nan)
    return 1 - mean / math.log(run.vocab_size)


def _preservation(run: Inputs) -> list[Result]:
    """P = 1 - ln rank / ln V: its mean over interior layers, and by rarity at each layer."""
    ln_vocab, measure = math.log(run.vocab_size), "rank_input"
    interior = slice(1, run.n_layers - 1)
    area = bootstrap.missing("no layer lies between the input and the last")
    if run.n_layers > 2:
        area = curves.statistic(
            *run.measured(measure), lambda curve: 1 - curve[..., interior].mean(-1) / ln_vocab
        )
    means = [_preserved(mean, ln_vocab) for mean in curves.means(run, measure)]
    lines = [result(run, "aupc", area), *table.by_layer(run, "preservation", means)]
    counts = run.tallies["frequency_count"][axes.MEASURES.index(measure)][:, 0]
    by_bin = 1 - run.by_frequency(measure) / ln_vocab
    for i, n in enumerate(counts.tolist()):
        few = FEW_TOKENS if n < slope.MIN_TOKENS else _few(run, i)
        values = np.full(run.n_layers, math.nan) if few else by_bin[i]
        note = few or "by bin, without interval"
        estimates = [bootstrap.missing(note, float(value), n) for value in values]
        lines += table.by_layer(run, "preservation", estimates, stratum=inputs.rarity_label(i))
    return lines


def _preserved(mean: bootstrap.Estimate, ln_vocab: float) -> bootstrap.Estimate:
    """Preservation of a mean ln rank; greater ranks preserve less."""
    return dataclasses.replace(
        mean,
        value=1 - mean.value / ln_vocab,
        low=1 - mean.high / ln_vocab,
        high=1 - mean.low / ln_vocab,
        se=mean.se / ln_vocab,
    )


def _pieces(run: Inputs) -> list[Result]:
    """Median ln rank by piece of a word, on rarity, at mid depth."""
    histogram = run.ranks("input")[run.middle]
    lines = []
    for piece, name in enumerate(PIECES):
        counts = histogram[:, [piece, piece + 4]].sum(1)
        medians = binned.ln_rank_quantile(counts, bins.RANK_EDGES)
        tokens = counts.sum(-1)
        weight = np.where(tokens >= slope.MIN_TOKENS, np.sqrt(tokens), 0.0)
        value = float(slope.weighted_slope(medians, RARITY, weight))
        estimate = bootstrap.missing("by piece, without interval", value, int(tokens.sum()))
        lines.append(result(run, "median_slope", estimate, layer=run.middle, stratum=name))
    return lines
