"""Rows within token types and documents: a slope within types, and what would pass for one."""

from dataclasses import dataclass

import numpy as np

from jaxlens.study.stats import within_type

VOCAB, GROUPS, RNG_SEED = 1_200, 256, 20_261_201
NAMES = ("surprisal", "position")


@dataclass(frozen=True)
class Case:
    """Planted data.

    Attributes:
        slope: Within types.
        between: Slope of the means of types, which is none within them.
        of_documents: Standard deviation of the slope of documents.
        strong: Standard deviation of what documents add to column and outcome.
        tail: Sigma of the lognormal sizes of documents.
        tied: How far a standard deviation of a document's size moves its slope.
    """

    slope: float = 0.0
    between: float = 0.0
    of_documents: float = 0.1
    strong: float = 0.5
    tail: float = 0.7
    tied: float = 0.0


CASES = {
    "no effect": Case(),
    "effect": Case(slope=0.1),
    "none within, strong between": Case(between=1.0),
    "strong dependence, heavy tail": Case(slope=0.1, of_documents=0.3, strong=1.0, tail=1.0),
    "size tied to effect": Case(slope=0.1, of_documents=0.15, tied=0.05),
}
DOCUMENTS = (40, 200)


def replica(rng, documents, case):
    """Estimate of one replica."""
    token, _, group, x, y = draw(rng, documents, case)
    return estimate(token, group, x, y)


def draw(rng, documents, case, tokens=600):
    """Rows of one replica: type, document and its group, columns, outcome."""
    chance = 1 / np.arange(3, VOCAB + 3)
    deviate = rng.normal(0, 1, documents)
    sizes = np.rint(np.exp(case.tail * (deviate - case.tail / 2)) * tokens).astype(int) + 20
    document = np.repeat(np.arange(documents), sizes)
    n = len(document)
    token = rng.choice(VOCAB, n, p=chance / chance.sum())
    of_type = rng.normal(0, 1, VOCAB)
    shared = rng.normal(0, case.strong, (2, documents))[:, document]
    x = np.stack([of_type[token] + rng.normal(0, 1, n) + shared[0], rng.normal(0, 1, n)], axis=1)
    slopes = case.slope + rng.normal(0, case.of_documents, documents) + case.tied * deviate
    y = slopes[document] * (x[:, 0] - of_type[token]) + case.between * of_type[token]
    y = y + rng.normal(0, 1, VOCAB)[token] + 0.2 * x[:, 1] + shared[1] + rng.normal(0, 1, n)
    return token, document, rng.integers(0, GROUPS, documents)[document], x, y


def truth(case):
    """Documents weigh by their tokens, so a slope tied to the size is moved by the tail."""
    return case.slope + case.tied * case.tail


def estimate(token, group, x, y, names=NAMES):
    """The slope of the first column from rows."""
    sums = sums_of(token, x, y)
    mean = np.maximum(sums.type_counts, 1)
    u, v = x - (sums.type_x / mean[:, None])[token], y - (sums.type_y / mean)[token]
    return within_type.slope(sums, products(group, u, v), names, names[0])


def sums_of(token, x, y):
    """Sums over all rows."""
    size = int(token.max()) + 1
    count = np.bincount(token, minlength=size)
    type_x = np.stack([np.bincount(token, column, size) for column in x.T], axis=1)
    return within_type.Sums(
        x.T @ x, x.T @ y, float(y @ y), count, type_x, np.bincount(token, y, size)
    )


def products(group, u, v):
    """Sums by group of columns that have no means of types any more."""
    order = np.argsort(group, kind="stable")
    first = np.flatnonzero(np.diff(group[order], prepend=-1))
    held = group[order][first]
    xtx = np.zeros((GROUPS, u.shape[1], u.shape[1]))
    xty = np.zeros((GROUPS, u.shape[1]))
    xtx[held] = np.add.reduceat((u[:, :, None] * u[:, None, :])[order], first)
    xty[held] = np.add.reduceat((u * v[:, None])[order], first)
    return within_type.Groups(xtx, xty, np.bincount(group, minlength=GROUPS))


def coverage(name, documents, replicas):
    """Share of the intervals that hold the truth, of those that are printed, and the mean error."""
    case, place = CASES[name], list(CASES).index(name)
    found = [
        replica(np.random.default_rng([RNG_SEED, place, documents, i]), documents, case)
        for i in range(replicas)
    ]
    printed = [e for e in found if np.isfinite(e.low)]
    assert len(printed) >= 0.9 * replicas
    covered = np.mean([e.low <= truth(case) <= e.high for e in printed])
    return float(covered), float(np.mean([e.value for e in printed]) - truth(case))
