"""Data with a known truth for estimators of the first edition, and how often they cover it.

Documents are of unequal sizes (lognormal, sigma 1), carry random effects, and are put into 256
random groups, as a corpus is. ``python tests/study/planted.py`` prints the table.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np

from jaxlens.study import curves
from jaxlens.study.stats import matched, matching, shape, slope

GROUPS = 256
LAYERS = 13
DOCUMENTS = (40, 200, 2_000)
FIXED = 2.0**16
RARITY = np.arange(2.5, 18.5)  # the middles of 16 bins of one nat
RNG_SEED = 20_200_831
MIN_PRINTED = 0.9  # of the replicas must have an interval


@dataclass(frozen=True)
class Score:
    """How an estimator did on replicas of one kind of data."""

    primary: str
    documents: int
    effect: float
    coverage: float
    rejection: float
    bias: float
    width: float


def sizes(rng, documents, mean):
    drawn = rng.lognormal(0, 1, documents)
    return np.maximum(1, np.rint(drawn * mean / np.exp(0.5))).astype(int)


def by_group(rng, values):
    """Sums over random groups of documents."""
    group = rng.integers(0, GROUPS, len(values))
    summed = np.zeros((GROUPS, *values.shape[1:]), values.dtype)
    np.add.at(summed, group, values)
    return summed


def fixed(values):
    return np.rint(values * FIXED).astype(np.int64)


def curve(share):
    """Falls from 6 to 0 with a given first step; the other steps shrink slowly."""
    later = np.linspace(1.5, 0.5, LAYERS - 2)
    steps = 6 * np.concatenate([[share], (1 - share) * later / later.sum()])
    return 6 - np.concatenate([[0], np.cumsum(steps)])


def jump(rng, documents, effect, tokens=200):
    """Q1: phi of KL(output || layer), trained minus two null models over the same documents."""
    n = sizes(rng, documents, tokens)
    group = rng.integers(0, GROUPS, documents)
    common = rng.normal(0, 0.3, documents)  # hard documents are hard for every model

    def tally(share):
        scale = np.exp(0.2 * common + rng.normal(0, 0.15, documents) - 0.03)[:, None]
        first = rng.normal(0, 0.15, (documents, 1)) * (np.arange(LAYERS) == 0)
        wiggle = rng.normal(0, 0.03, (documents, LAYERS))
        mean = curve(share) * scale + first + wiggle
        noise = rng.normal(0, 1, (documents, LAYERS)) * 0.5 * np.sqrt(n)[:, None]
        summed = np.zeros((GROUPS, LAYERS), np.int64)
        np.add.at(summed, group, fixed(mean * n[:, None] + noise))
        return summed

    counts = np.zeros((GROUPS, LAYERS), np.int64)
    np.add.at(counts, group, np.repeat(n[:, None], LAYERS, 1))
    nulls = [(tally(0.2), counts), (tally(0.2), counts)]
    return curves.difference(tally(0.2 + effect), counts, nulls, shape.jump_share)


def _bins(rng, documents, tokens):
    """Tokens of each document in each bin of rarity; frequent bins hold most of them."""
    chance = np.exp(-0.25 * RARITY)
    taste = rng.lognormal(0, 0.4, (documents, len(RARITY))) * chance
    taste /= taste.sum(axis=1, keepdims=True)
    return rng.multinomial(sizes(rng, documents, tokens), taste)


def _excess_effects(rng, documents, effect):
    """Mean ln rank of own and foreign tokens by document, [document, 2, bin]."""
    centred = RARITY - RARITY.mean()
    own = 5 + 0.15 * centred + rng.normal(0, 0.3, (documents, 1))
    tilt = rng.normal(0, 0.05, (documents, 1)) * centred
    gap = 0.8 + effect * centred + tilt + rng.normal(0, 0.4, (documents, 1))
    return np.stack([own, own + gap], axis=1)


def mean_slope(rng, documents, effect, tokens=400):
    """Q2: slope of excess preservation on rarity, by means."""
    n = np.stack([_bins(rng, documents, tokens) for _ in range(2)], axis=1)
    mean = _excess_effects(rng, documents, effect)
    sums = fixed(mean * n + rng.normal(0, 1.5, n.shape) * np.sqrt(n))
    both = by_group(rng, np.stack([sums, n], axis=1))
    return slope.mean_slope(both[:, 0], both[:, 1], RARITY)


def median_slope(rng, documents, effect, tokens=400):
    """Q2 by medians, from histograms of ln rank."""
    n = np.stack([_bins(rng, documents, tokens) for _ in range(2)], axis=1)
    cell = np.repeat(np.arange(n.size), n.ravel())
    mean = _excess_effects(rng, documents, effect).ravel()[cell]
    values = mean + rng.normal(0, 1.2, len(cell))
    bins = np.clip(values / 0.2, 0, 63).astype(int)
    group = rng.integers(0, GROUPS, documents)
    place = (group[cell // (2 * len(RARITY))] * 2 * len(RARITY) + cell % (2 * len(RARITY))) * 64
    counts = np.bincount(place + bins, minlength=GROUPS * 2 * len(RARITY) * 64)
    histogram = counts.reshape(GROUPS, 2, len(RARITY), 64)
    return slope.median_slope(histogram, np.linspace(0, 12.8, 65), RARITY)


def depth(rng, documents, effect):
    """Q3: retrieval depth of copies minus matched controls, in twelfths of the depth."""
    n = sizes(rng, documents, 90 if documents <= 200 else 20)  # matching is the slow part
    document = np.repeat(np.arange(documents), n)
    eager = rng.beta(1, 6, documents)  # copying documents differ widely
    copied = rng.random(len(document)) < eager[document]
    strata = np.stack([rng.integers(0, 3, len(document)), rng.integers(0, 2, len(document))], 1)
    measures = rng.normal(0, 0.5, (len(document), 2))
    keys = rng.permutation(len(document)).astype(np.uint64)
    latent = 6 + strata @ [0.8, -0.5] + measures.sum(1) + rng.normal(0, 0.7, documents)[document]
    found = np.rint(latent + rng.normal(0, 1.2, len(document))) + 12 * effect * copied
    copy, other = np.flatnonzero(copied), np.flatnonzero(~copied)
    pairs = matching.match(
        strata[copy], measures[copy], keys[copy], strata[other], measures[other], keys[other]
    )
    control = other[pairs.control]
    values = np.where(pairs.control >= 0, found[control], np.nan)
    ours = copy[pairs.copy]
    return matched.difference(
        matched.values(found[ours] / 12, values / 12, document[ours], document[control])
    )


PRIMARIES = {
    "phi, trained - null": (jump, 0.1),
    "slope of excess (mean)": (mean_slope, 0.05),
    "slope of excess (median)": (median_slope, 0.05),
    "matched depth": (depth, 1 / 12),
}
"""Estimator on planted data, and the effect planted; every one has a truth of 0 without it."""


def score(primary, documents, planted, replicas):
    """Coverage, rejection of 0, relative bias and width over replicas with fixed seeds."""
    draw, size = PRIMARIES[primary]
    effect = size if planted else 0.0
    place = list(PRIMARIES).index(primary)
    found = [
        draw(np.random.default_rng([RNG_SEED, place, documents, planted, i]), documents, effect)
        for i in range(replicas)
    ]
    low, high, value = (np.array([getattr(e, k) for e in found]) for k in ("low", "high", "value"))
    # Where a heavy tail leaves effectively fewer than five documents no interval is printed.
    printed = np.isfinite(low) & np.isfinite(high)
    assert printed.mean() >= MIN_PRINTED
    low, high = low[printed], high[printed]
    return Score(
        primary,
        documents,
        effect,
        float(np.mean((low <= effect) & (effect <= high))),
        float(np.mean((low > 0) | (high < 0))),
        float(value.mean() - effect) / size,
        float(np.median(high - low)) / size,
    )


def table(replicas=1_000, documents=DOCUMENTS):
    """Scores of every primary estimator, effect absent and present."""
    kinds = [(p, d, e) for p in PRIMARIES for d in documents for e in (False, True)]
    return [score(*kind, replicas) for kind in kinds]


def markdown(scores):
    """The table as the documentation shows it."""
    lines = [
        "| estimator | documents | truth | covers | rejects 0 | bias | width |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {s.primary} | {s.documents:,} | {s.effect:.3g} | {s.coverage:.1%} "
        f"| {s.rejection:.1%} | {s.bias:+.3f} | {s.width:.2f} |"
        for s in scores
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    print(markdown(table(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000)))
