"""Token types and documents with effects of their own, and a planted slope on rarity."""

from dataclasses import dataclass

import numpy as np

from jaxlens.study.stats import same_type

VOCAB, GROUPS, RNG_SEED = 1_500, 256, 20_261_130


@dataclass(frozen=True)
class Case:
    """Planted data.

    Attributes:
        slope: Of the excess on rarity.
        of_types: Standard deviation of the excess of types about the line.
        of_documents: Standard deviation of the slope of documents.
        tail: Sigma of the lognormal sizes of documents.
        tied: How far a standard deviation of a document's size moves its slope.
        tokens: Tokens a document.
    """

    slope: float = 0.0
    of_types: float = 0.5
    of_documents: float = 0.05
    tail: float = 0.7
    tied: float = 0.0
    tokens: int = 1_000


CASES = {
    "no effect": Case(),
    "effect": Case(slope=0.1),
    "scatter of positions alone": Case(slope=0.1, of_types=0.0, of_documents=0.0),
    "peculiar types": Case(slope=0.1, of_types=1.5, of_documents=0.02),
    "strong dependence, heavy tail": Case(slope=0.1, of_documents=0.15, tail=1.0),
    "size tied to effect": Case(slope=0.1, of_types=0.3, of_documents=0.1, tied=0.05),
}
DOCUMENTS = (40, 200)


def replica(rng, documents, case, weighting="types", rows=True):
    """Estimate of one replica, of rows or of tallies alone; the truth is that of equal types."""
    chance = 1 / np.arange(3, VOCAB + 3)
    chance /= chance.sum()
    rarity = -np.log(chance)
    deviate = rng.normal(0, 1, documents)
    sizes = np.rint(np.exp(case.tail * (deviate - case.tail / 2)) * case.tokens).astype(int) + 20
    document = np.repeat(np.arange(documents), sizes)
    own, foreign = (rng.choice(VOCAB, len(document), p=chance) for _ in range(2))
    centred = rarity - 8.0
    level, peculiar = rng.normal(4, 1, VOCAB), rng.normal(0, case.of_types, VOCAB)
    slopes = case.slope + rng.normal(0, case.of_documents, documents) + case.tied * deviate
    common = rng.normal(0, 0.4, documents)
    gap = 1 + slopes[document] * centred[own] + peculiar[own] + common[document]
    noise = rng.normal(0, 1.5, (2, len(document)))
    y = np.stack([level[own] - gap, level[foreign]]) + noise
    group = rng.integers(0, GROUPS, documents)[document]
    return _estimate(rarity, np.stack([own, foreign]), y, group, weighting, rows)


def truth(case):
    """Documents weigh by their tokens, so a slope tied to the size is moved by the tail."""
    return case.slope + case.tied * case.tail


def _estimate(rarity, token, y, group, weighting, rows):
    count = np.stack([np.bincount(t, minlength=VOCAB) for t in token])
    n = count[0]
    by = {"types": np.ones(VOCAB), "root": np.sqrt(n), "tokens": n.astype(float)}[weighting]
    weight = np.where(n >= 5, by, 0.0)
    sides = [
        same_type.Side(c, np.bincount(t, v, VOCAB), np.bincount(t, v * v, VOCAB))
        for c, t, v in zip(count, token, y, strict=True)
    ]
    of_position = (weight / np.maximum(n, 1))[token]
    x = rarity[token]

    def summed(values):
        return np.stack([np.bincount(group, v, GROUPS) for v in values])

    if rows:
        each = same_type.coefficients(*count, rarity, weight)
        left = (
            (v - (np.bincount(t, v, VOCAB) / np.maximum(c, 1))[t]) * of_type[t]
            for of_type, c, t, v in zip(each, count, token, y, strict=True)
        )
        scores = np.bincount(group, sum(left), GROUPS)
        groups = same_type.Scores(scores, np.bincount(group, minlength=GROUPS))
        return same_type.slope(*sides, rarity, weight, groups)
    product = np.stack([summed(of_position * x**power) for power in range(3)], axis=2)
    outcome = np.stack([summed(of_position * y * x**power) for power in range(2)], axis=2)
    groups = same_type.Groups(product, outcome, np.bincount(group, minlength=GROUPS))
    return same_type.slope(*sides, rarity, weight, groups)


def coverage(name, documents, replicas, weighting="types", rows=True):
    """Share of the intervals that hold the truth, of those that are printed, and the mean error."""
    case, place = CASES[name], list(CASES).index(name)
    found = [
        replica(
            np.random.default_rng([RNG_SEED, place, documents, i]), documents, case, weighting, rows
        )
        for i in range(replicas)
    ]
    printed = [e for e in found if np.isfinite(e.low)]
    assert len(printed) >= 0.9 * replicas
    covered = np.mean([e.low <= truth(case) <= e.high for e in printed])
    return float(covered), float(np.mean([e.value for e in printed]) - truth(case))
