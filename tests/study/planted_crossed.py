"""Sampled positions with crossed effects of types and documents, a planted slope and a bend."""

from dataclasses import dataclass

import numpy as np

from jaxlens.study.stats import components, crossed

GROUPS, RNG_SEED = 256, 20_261_129
TRUTHS = ("slope", "bend")
SAMPLED = 3
"""One of so many positions is in the sample."""


@dataclass(frozen=True)
class Case:
    """Planted data.

    Attributes:
        slope: Of the excess on rarity, at the mean rarity.
        bend: Of the excess on rarity squared.
        of_types: Standard deviation of the excess of types about the curve.
        tails: Degrees of freedom of the effects of types and documents, and of the rest.
        of_documents: Standard deviation of the slope of documents; of the bend a fifth of it.
        common: Standard deviation of the excess of documents.
        of_cells: Standard deviation of what a type has in a document.
        rest: Scale of the scatter of positions.
        tail: Sigma of the lognormal sizes of documents.
        tied: How far a standard deviation of a document's size moves its slope.
        shift: How far a standard deviation of a document's level moves its tokens to rare types.
        bursts: Share of tokens that come from twenty types of the document.
        vocab: Token types.
        steep: Exponent of the law of their frequencies.
        positions: Expected in the sample, of all documents together.
    """

    slope: float = 0.0
    bend: float = 0.0
    of_types: float = 0.5
    tails: float = 5.0
    of_documents: float = 0.05
    common: float = 0.4
    of_cells: float = 0.3
    rest: float = 1.0
    tail: float = 0.7
    tied: float = 0.0
    shift: float = 0.0
    bursts: float = 0.2
    vocab: int = 1_500
    steep: float = 1.0
    positions: int = 4_000


CASES = {
    "no effect": Case(),
    "effect and bend": Case(slope=0.1, bend=0.03),
    "scatter of positions alone": Case(
        slope=0.1, of_types=0.0, of_documents=0.0, common=0.0, of_cells=0.0
    ),
    "little beside types": Case(slope=-0.1, of_types=1.0, rest=0.3, of_cells=0.1, common=0.1),
    "peculiar types": Case(slope=0.1, bend=-0.03, of_types=1.5, tails=3.0),
    "few types": Case(slope=0.1, bend=0.03, vocab=200),
    "strong dependence, heavy tail": Case(
        slope=0.1, of_documents=0.15, common=1.0, of_cells=1.0, tail=1.0, bursts=0.5
    ),
    "size tied to effect": Case(slope=0.1, bend=0.03, of_documents=0.1, tied=0.05),
    "none within documents, strong between": Case(common=1.0, shift=0.5),
}
DOCUMENTS = (40, 200)


def replica(rng, documents, case):
    """Estimates of one replica, of the slope and of the bend."""
    rows, ln_rank = draw(rng, documents, case)
    found = crossed.fit(rows, components.Design.of(rows.token, rows.group), ln_rank)
    return [crossed.estimate(found, i) for i in range(len(TRUTHS))]


def truth(case):
    """Documents weigh by their tokens, so a slope tied to the size is moved by the tail."""
    return case.slope + case.tied * case.tail, case.bend


def draw(rng, documents, case):
    """Rows of one replica, and ln ranks of the own and of the foreign tokens."""
    chance = 1 / np.arange(3, case.vocab + 3) ** case.steep
    chance /= chance.sum()
    rarity = -np.log(chance)
    rarity -= chance @ rarity
    deviate, level = rng.normal(0, 1, (2, documents))
    sizes = np.exp(case.tail * (deviate - case.tail / 2)) * case.positions / documents
    document = np.repeat(np.arange(documents), SAMPLED * (rng.poisson(sizes) + 1))
    own = _own_tokens(rng, case, chance, rarity, level, document)
    count = np.bincount(document)
    means = [np.bincount(document, rarity[own] ** power) / count for power in (1, 2)]
    sampled = rng.random(len(document)) < 1 / SAMPLED
    document, own = document[sampled], own[sampled]
    n = len(document)
    foreign = rng.choice(case.vocab, n, p=chance)

    def heavy(sd, *shape):
        return rng.standard_t(case.tails, shape) * sd * np.sqrt(1 - 2 / case.tails)

    x = rarity[own]
    slopes = case.slope + heavy(case.of_documents, documents) + case.tied * deviate
    bends = case.bend + heavy(case.of_documents / 5, documents)
    common = case.common * level if case.shift else heavy(case.common, documents)
    cells, cell = np.unique(own * documents + document, return_inverse=True)
    of_cell = heavy(case.of_cells, len(cells))[cell]
    gap = 1 + slopes[document] * x + bends[document] * x**2 + common[document] + of_cell
    gap = gap + heavy(case.of_types, case.vocab)[own]
    types, documents_alike = rng.normal(4, 1, case.vocab), rng.normal(0, 0.3, documents)
    # Ranks of what was read scatter less, those of rare types more.
    scatter = np.stack([1.2 + 0.1 * np.clip(x, -4, 4), np.full(n, 1.6)])
    rest = heavy(case.rest, 2, n) * scatter + documents_alike[document]
    ln_rank = np.stack([types[own] - gap, types[foreign]]) + rest
    group = rng.integers(0, GROUPS, documents)[document]
    token = np.stack([own, foreign])
    of_document = np.stack(means, axis=1)[document]
    return crossed.Rows(token, rarity[token], of_document, group), ln_rank


def _own_tokens(rng, case, chance, rarity, level, document):
    documents, n = len(level), len(document)
    if case.shift:
        of_document = chance * np.exp(0.5 * case.shift * level[:, None] * rarity)
        reached = np.cumsum(of_document / of_document.sum(1, keepdims=True), axis=1)
        drawn = rng.random(n)
        own = np.array(
            [np.searchsorted(reached[d], u) for d, u in zip(document, drawn, strict=True)]
        )
        own = np.minimum(own, case.vocab - 1)
    else:
        own = rng.choice(case.vocab, n, p=chance)
    favourite = rng.choice(case.vocab, (documents, 20), p=chance)
    again = favourite[document, rng.integers(0, 20, n)]
    return np.where(rng.random(n) < case.bursts, again, own)


def coverage(name, documents, replicas):
    """Shares of intervals that hold slope and bend, their mean errors, and how many are printed."""
    case, place = CASES[name], list(CASES).index(name)
    found = [
        replica(np.random.default_rng([RNG_SEED, place, documents, i]), documents, case)
        for i in range(replicas)
    ]
    scores = []
    for i, true in enumerate(truth(case)):
        printed = [one[i] for one in found if np.isfinite(one[i].low)]
        covered = np.mean([e.low <= true <= e.high for e in printed])
        bias = np.mean([e.value for e in printed]) - true
        scores.append((float(covered), float(bias), len(printed) / replicas))
    return scores
