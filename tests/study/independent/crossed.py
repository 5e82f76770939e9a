"""Q2: the crossed model of sampled positions, by conjugate gradients on the whole covariance."""

from __future__ import annotations

import functools

import numpy as np
from scipy.sparse import linalg
from study.independent import bootstrap, rows
from study.independent.lines import Lines

NAMES = ("crossed_rarity", "crossed_rarity_squared")
MOST = 20_000
INTEREST = [4, 5]
_WORD = 2**64 - 1


def of_run(run):
    lines = Lines()
    for layer in range(run.n_layers):
        for name, *number in zip(NAMES, *estimates([Fit(run, layer)]), strict=True):
            lines.put(name, *number, layer=layer)
    return lines


def contrasts(run, null):
    lines = Lines()
    both = [Fit(one, one.middle) for one in (run, null)]
    for name, *number in zip(NAMES, *estimates(both), strict=True):
        lines.put(name, *number, layer=run.middle)
    return lines


def estimates(fits):
    """Coefficients of one fit, or of the first less the second, and their errors."""

    def of(parts):
        return parts[0] - parts[1] if len(parts) > 1 else parts[0]

    types, documents = (
        np.var(of([fit.replicas(name) for fit in fits]), axis=0, ddof=1)
        for name in ("type", "document")
    )
    cells = np.square(of([fit.cells() for fit in fits])).sum((0, 1))
    # Documents that do not matter have the variance of cells, more or less by chance.
    variance = types + np.maximum(documents - cells, -cells / 8)
    return of([fit.beta[INTEREST] for fit in fits]), np.sqrt(variance)


def _mixed(x):
    """SplitMix64."""
    x = (x + 0x9E3779B97F4A7C15) & _WORD
    x = ((x ^ x >> 30) * 0xBF58476D1CE4E5B9) & _WORD
    x = ((x ^ x >> 27) * 0x94D049BB133111EB) & _WORD
    return x ^ x >> 31


@functools.cache
def sampled(run):
    """Rows of the sample: the lowest hashes of document and offset, of rows with both ranks."""
    there = np.flatnonzero(run["rank_foreign"][:, 0] > 0)
    hashes = [_mixed(int(h)) for h in run.document_hashes]
    places = zip(run.document[there].tolist(), run["offset"][there].tolist(), strict=True)
    key = [_mixed((hashes[document] + offset) & _WORD) >> 1 for document, offset in places]
    return there[np.argsort(np.array(key, np.uint64), kind="stable")[:MOST]]


class Fit:
    """Generalised least squares of minus ln rank at a layer."""

    def __init__(self, run, layer):
        rarity = rows.rarity_of(run.counts.sum(0))
        rarity = rarity - (run.counts.sum(0) * rarity).sum() / run.counts.sum()
        place = sampled(run)
        ones = np.ones(len(place))
        mean = [
            bootstrap.totals(rarity[run["token"]] ** power, run.document, run.n_documents)
            for power in range(3)
        ]
        document = run.document[place]
        level = [(mean[power] / np.maximum(mean[0], 1))[document] for power in (1, 2)]
        sides = []
        for side, column, read in (("input", "token", 1), ("foreign", "foreign_token", 0)):
            x = rarity[run[column][place]]
            powers = [ones, x, x**2]
            fixed = np.stack(powers + [read * p for p in powers] + [read * m for m in level], 1)
            sides.append((run[column][place], fixed, -run.ln(side)[place, layer]))
        tokens, x, y = (np.concatenate(parts) for parts in zip(*sides, strict=True))
        # All types and documents have a number, so that two runs draw the same ones.
        self.type, self.document = tokens, np.tile(document, 2)
        self.n = {"type": run.vocab, "document": run.n_documents}
        self.side = np.repeat([0, 1], len(place))
        self.x, self.y = x, y
        self.variances()
        self.w = np.stack([self.solved(column) for column in x.T], axis=1)
        self.beta = np.linalg.solve(self.w.T @ x, self.w.T @ y)

    def table(self, values):
        """Sums of values, ``[side, type, document]``."""
        size = tuple(self.n.values())
        cell = np.ravel_multi_index((self.side, self.type, self.document), (2, *size))
        return np.bincount(cell, values, 2 * size[0] * size[1]).reshape(2, *size)

    def variances(self):
        """Those of types, of documents, and of the rest, by mean products of pairs."""
        count = self.table(np.ones(len(self.y)))
        weight = 1 / (1 + count.sum(2))
        root = np.sqrt(weight[self.side, self.type])[:, None]
        first = np.linalg.lstsq(self.x * root, self.y * root[:, 0], rcond=None)[0]
        left = self.y - self.x @ first
        sums = self.table(left)
        of_document = 1 / np.sqrt(np.maximum(count.sum(1), 1))
        self.of_types = _pairs(sums, count, 2, weight)
        self.of_documents = _pairs(sums, count, 1, of_document)
        each = weight[self.side, self.type]
        square = np.array(
            [np.average(left[self.side == s] ** 2, weights=each[self.side == s]) for s in (0, 1)]
        )
        rest = square - self.of_types.diagonal() - self.of_documents.diagonal()
        self.rest = np.maximum(rest, 0.05 * square.mean())

    def times(self, v):
        """The covariance times a vector."""
        out = self.rest[self.side] * v
        for cluster, covariance, size in (
            (self.type, self.of_types, self.n["type"]),
            (self.document, self.of_documents, self.n["document"]),
        ):
            effect = covariance @ np.stack(
                [np.bincount(cluster[self.side == s], v[self.side == s], size) for s in (0, 1)]
            )
            out += effect[self.side, cluster]
        return out

    def solved(self, column):
        n = len(column)
        operator = linalg.LinearOperator((n, n), matvec=self.times, dtype=float)
        found, failed = linalg.cg(operator, column, rtol=1e-11, maxiter=20_000)
        assert not failed
        return found

    def replicas(self, name):
        """Coefficients of replicas that draw types or documents, weights as they are."""
        cluster, n = getattr(self, name), self.n[name]
        product = bootstrap.totals(self.w[:, :, None] * self.x[:, None], cluster, n)
        outcome = bootstrap.totals(self.w * self.y[:, None], cluster, n)
        times = bootstrap.drawn(n).astype(float)
        left = np.tensordot(times, product, 1)
        return np.linalg.solve(left, (times @ outcome)[:, :, None])[:, INTEREST, 0]

    def cells(self):
        """What each type in each document adds to the coefficients."""
        error = self.w * (self.y - self.x @ self.beta)[:, None]
        error = error @ np.linalg.inv(self.w.T @ self.x).T[:, INTEREST]
        return np.stack([self.table(column).sum(0) for column in error.T], axis=2)


def _pairs(sums, count, axis, weight):
    """Mean products of two residuals of one cluster; those that share both clusters left out.

    Args:
        sums: Of residuals, ``[side, type, document]``.
        count: Observations.
        axis: The one over which a cluster extends.
        weight: Of clusters, ``[side, cluster]``.
    """
    found = np.zeros((2, 2))
    for a in (0, 1):
        for b in (0, 1):
            both = weight[a] * weight[b]
            total = both @ (sums[a].sum(axis - 1) * sums[b].sum(axis - 1))
            total -= both @ (sums[a] * sums[b]).sum(axis - 1)
            n = both @ (count[a].sum(axis - 1) * count[b].sum(axis - 1))
            n -= both @ (count[a] * count[b]).sum(axis - 1)
            found[a, b] = total / n
    values, vectors = np.linalg.eigh(found)
    return vectors @ np.diag(np.maximum(values, 0)) @ vectors.T
