"""Q2 and Q3: partial correlations, the pooled regression, and slopes within token types."""

from __future__ import annotations

import itertools

import numpy as np
from scipy import stats
from study.independent import bootstrap, curves, rows
from study.independent.lines import Lines

KNOTS = 2 ** np.arange(1, 12)
CONTEXT = ("later_occurrence", "ln_distance", "ln_count", "first_piece", "middle_piece")
CONTEXT += ("last_piece",)
POSITION = tuple(f"position_{knot}" for knot in KNOTS)
ROOM = tuple(f"room_{knot}" for knot in KNOTS)
WITHIN = ("surprisal", *POSITION, *CONTEXT)
POOLED = ("constant", "rarity", *WITHIN, "embedding_norm")


def of_run(run):
    lines = Lines()
    x = columns(run)
    _correlations(run, lines, x)
    _rank_correlations(run, lines)
    _pooled(run, lines, x)
    _within_types(run, lines, x)
    lines.put("copied_share", run["copied"].mean())
    return lines


def columns(run):
    """What regressions hold, ``[row]`` each."""
    piece = run["piece"]
    named = {
        "constant": np.ones(len(piece)),
        "rarity": run.rarity["input"],
        "surprisal": run["surprisal"].astype(float),
        "embedding_norm": run["embedding_norm"].astype(float),
        "later_occurrence": (run["prev_count"] > 0).astype(float),
        "ln_distance": np.log(np.maximum(run["prev_distance"], 1)),
        "ln_count": np.log1p(run["prev_count"]),
        "first_piece": (piece == 1).astype(float),
        "middle_piece": (piece == 2).astype(float),
        "last_piece": (piece == 3).astype(float),
    }
    begin = run["offset"] - run["position"]
    end = np.minimum(begin + run.length, run.document_size[run.document])
    named |= dict(zip(POSITION, _hats(run["position"]), strict=True))
    return named | dict(zip(ROOM, _hats(end - run["offset"]), strict=True))


def _hats(number):
    """Hat functions of log2, one at each knot; a number of 1 is where all are 0."""
    octave = np.minimum(np.log2(number), len(KNOTS))
    return [np.maximum(1 - np.abs(octave - 1 - i), 0) for i in range(len(KNOTS))]


def partial(r):
    """Correlation of the first and the second of three variables given the third."""
    left = (1 - r[0, 2] ** 2) * (1 - r[1, 2] ** 2)
    return (r[0, 1] - r[0, 2] * r[1, 2]) / np.sqrt(left)


GIVEN = {"surprisal": "rarity", "rarity": "surprisal"}


def _correlations(run, lines, x):
    for name, held in GIVEN.items():
        numbers = []
        for ln in run.ln("input").T:
            z = np.stack([np.ones(len(ln)), ln, x[name], x[held]], axis=1)

            def correlation(products):
                mean = products[0, 1:] / products[0, 0]
                covariance = products[1:, 1:] / products[0, 0] - np.outer(mean, mean)
                spread = np.sqrt(np.maximum(np.diag(covariance), 0))
                return partial(curves.ratio(covariance, np.outer(spread, spread)))

            products = _products(z, run)
            numbers.append(bootstrap.estimate(correlation, products))
        lines.by_layer(f"partial_correlation_{name}", *zip(*numbers, strict=True))


def _products(z, run):
    """Z'Z by document."""
    order = np.argsort(run.document, kind="stable")
    edges = np.searchsorted(run.document[order], np.arange(run.n_documents + 1))
    z = z[order]
    return np.stack([z[a:b].T @ z[a:b] for a, b in itertools.pairwise(edges)])


def _rank_correlations(run, lines):
    """Of the numbers of bins, ties at their middle rank."""
    ln_bins = np.searchsorted(
        np.linspace(0, 12.8, 65, dtype=np.float32), run.ln("input").astype(np.float32), "right"
    )
    half_nats = {
        "rarity": np.clip(np.floor(2 * rows.fixed(run.rarity["input"])), 0, 31),
        "surprisal": np.clip(np.floor(2 * rows.fixed(run["surprisal"])), 0, 31),
    }
    ranked = {name: stats.rankdata(bins) for name, bins in half_nats.items()}
    of_layer = [stats.rankdata(column) for column in ln_bins.T]
    for name, held in GIVEN.items():
        with np.errstate(invalid="ignore"):  # of fresh weights all ranks are 1 at the input
            values = [partial(np.corrcoef([r, ranked[name], ranked[held]])) for r in of_layer]
        lines.by_layer(f"partial_spearman_{name}", values)


def slopes(products, n_outcomes=1):
    """Coefficients of the columns before the outcomes; those without any variation have none."""
    x, y = products[:-n_outcomes, :-n_outcomes], products[:-n_outcomes, -n_outcomes:]
    length = np.sqrt(np.maximum(np.diag(x), 0))
    used = length > 1e-6 * length.max()
    scale = length[used]
    inside = x[np.ix_(used, used)] / np.outer(scale, scale)
    found = np.full((len(x), n_outcomes), np.nan)
    solved = np.linalg.lstsq(inside, y[used] / scale[:, None], rcond=1e-11)[0]
    found[used] = solved / scale[:, None]
    return found


def _pooled(run, lines, x):
    z = np.stack([*(x[name] for name in POOLED), run.ln("input")[:, run.middle]], axis=1)
    value, se = bootstrap.estimate(lambda zz: slopes(zz)[:, 0], _products(z, run))
    for i, name in enumerate(POOLED):
        if name != "constant" and name not in POSITION:
            lines.put(f"pooled_{name}", value[i], se[i], layer=run.middle)


def _within_types(run, lines, x):
    """Regressions with a dummy for every type, of replicas of documents too.

    Columns: what is held, the room, ln rank at each layer, and being copied.
    """
    held = [*WITHIN, *ROOM]
    z = np.stack([x[n] for n in held] + [*run.ln("input").T, run["copied"].astype(float)], axis=1)
    of_types = _TypeSums(run, z)
    weights = np.concatenate([np.ones((1, run.n_documents)), bootstrap.drawn(run.n_documents)])
    sizes = len(WITHIN), len(ROOM), run.n_layers
    value, *again = [_of_within(left, *sizes) for left in of_types.left(weights)]
    names = ("within_type_surprisal", "copied_within_type")
    for name, *number in zip(names, value, np.std(again, axis=0, ddof=1), strict=True):
        lines.by_layer(name, *number)


class _TypeSums:
    """Sums of columns by document and type, so that a replica takes one product of matrices."""

    def __init__(self, run, z):
        self.products = _products(z, run)
        _, token = np.unique(run["token"], return_inverse=True)
        n_types = token.max() + 1
        cell = run.document * n_types + token
        size = run.n_documents * n_types
        sums = np.stack([np.bincount(cell, c, size) for c in (*z.T, np.ones(len(z)))], axis=1)
        self.sums = sums.reshape(run.n_documents, n_types * (z.shape[1] + 1))
        self.width = z.shape[1] + 1

    def left(self, weights):
        """Products of what the means of the types leave, of each replica."""
        for some in np.array_split(weights, len(weights) // 16):
            for weight, flat in zip(some, some @ self.sums, strict=True):
                sums = flat.reshape(-1, self.width)
                sums = sums[sums[:, -1] > 0]
                scaled = sums[:, :-1] / np.sqrt(sums[:, -1:])
                yield np.tensordot(weight, self.products, 1) - scaled.T @ scaled


def _of_within(left, n_held, n_room, n_layers):
    """Slopes on surprisal of ln rank, and of being copied on ln rank, ``[2, layer]``."""
    outcomes = np.arange(n_held + n_room, n_held + n_room + n_layers)
    first = [*range(n_held), *outcomes]
    of_rank = slopes(left[np.ix_(first, first)], n_layers)[0]
    of_copied = []
    for layer in outcomes:
        both = [layer, *range(n_held + n_room), len(left) - 1]
        of_copied.append(slopes(left[np.ix_(both, both)])[0, 0])
    return np.stack([of_rank, of_copied])
