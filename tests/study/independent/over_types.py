"""Q2: what is random are token types: omega squared, and the slope over types beside documents."""

from __future__ import annotations

import numpy as np
from study.independent import bootstrap, curves, rows
from study.independent.lines import Lines

STRATA = ("all", "weighted by the root of tokens", "weighted by tokens")
FEWEST_OCCURRENCES, FEWEST_POSITIONS = 5, 3


def of_run(run):
    lines = Lines()
    _omega_squared(run, lines)
    _same_type(run, lines)
    return lines


def _omega_squared(run, lines):
    ln = run.ln("input") - run.ln("input").mean(0)
    n = np.bincount(run["token"], minlength=run.vocab)
    used = n > 0
    s, q = (bootstrap.totals(x, run["token"], run.vocab)[used] for x in (ln, ln**2))
    n = n[used, None].astype(float)

    def omega(k, n, s, q, means):
        total = q - s**2 / n
        within = (q - means) / (n - k)
        # Of fresh weights all ranks are 1 at the input: nothing varies.
        return curves.ratio(total - (q - means) - (k - 1) * within, total + within)

    # Of the types with most tokens the jackknife is wider than a bootstrap, and it is the design.
    parts = np.ones_like(n), n, s, q, s**2 / n
    value = omega(*(part.sum(0) for part in parts))
    lines.by_layer("omega_squared", value, bootstrap.jackknife(omega, *parts))


def _same_type(run, lines):
    """Slope on rarity, over types, of the mean foreign ln rank less the mean own one."""
    occurrences = run.counts.sum(0)
    rarity = rows.rarity_of(occurrences)
    kinds = {
        "all": np.ones(run.vocab),
        STRATA[1]: np.sqrt(occurrences),
        STRATA[2]: occurrences.astype(float),
    }
    for layer in range(run.n_layers):
        own, foreign = (_cells(run, side, layer) for side in ("input", "foreign"))
        used = np.minimum(own[0].sum(0), foreign[0].sum(0)) >= FEWEST_POSITIONS
        used &= occurrences >= FEWEST_OCCURRENCES
        sides = [part[:, used] for side in (own, foreign) for part in side]
        for stratum, weight in kinds.items():
            number = _slope_over_types(sides, rarity[used], weight[used])
            lines.put("excess_slope_same_type", *number, stratum=stratum, layer=layer)


def _cells(run, side, layer):
    """Positions and sums of ln rank, ``[document, type]``."""
    token = run["token" if side == "input" else "foreign_token"]
    there = run[f"rank_{side}"][:, 0] > 0
    cell = run.document[there] * run.vocab + token[there]
    size = run.n_documents * run.vocab
    ln = run.ln(side)[there, layer]
    parts = np.bincount(cell, minlength=size), np.bincount(cell, ln, minlength=size)
    return [part.reshape(run.n_documents, run.vocab).astype(float) for part in parts]


def _fit(x, y, w):
    centred = x - w @ x / w.sum()
    return (w * centred) @ y / ((w * centred) @ x)


def _slope_over_types(sides, x, w):
    """The slope, and its error by two-way clusters: types plus documents less what both contain.

    The first two variances are those of bootstraps of types and of documents; the third is the sum
    of squares of what each type in each document adds to the slope.

    Reference:
        Cameron, Gelbach and Miller 2011, doi:10.1198/jbes.2010.07136.
    """
    n, s, foreign_n, foreign_s = sides
    own, foreign = s.sum(0) / n.sum(0), foreign_s.sum(0) / foreign_n.sum(0)
    excess = foreign - own
    value = _fit(x, excess, w)
    of_types = [_fit(x, excess, w * times) for times in bootstrap.drawn(len(x))]
    lever = w * (x - w @ x / w.sum())
    lever /= lever @ x
    cells = (foreign_s - foreign_n * foreign) / foreign_n.sum(0) - (s - n * own) / n.sum(0)
    both = np.square(lever * cells).sum()
    variance = np.var(of_types, ddof=1) + _of_documents(sides, x, w) - both
    return value, np.sqrt(variance)


def _of_documents(sides, x, w):
    times = bootstrap.drawn(len(sides[0])).astype(float)
    n, s, foreign_n, foreign_s = (times @ part for part in sides)
    with np.errstate(invalid="ignore", divide="ignore"):
        excess = foreign_s / foreign_n - s / n
    slopes = []
    for y in excess:  # a replica may have lost a type that few documents hold
        there = np.isfinite(y)
        slopes.append(_fit(x[there], y[there], w[there]))
    return np.var(slopes, ddof=1)
