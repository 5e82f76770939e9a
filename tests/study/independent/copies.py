"""Q3: copy events against their matched controls, from the rows that the samples name."""

from __future__ import annotations

import functools

import numpy as np
from study.independent import bootstrap, matching, rows
from study.independent.lines import Lines
from study.independent.passages import NEVER, stays

SUFFIX = 2
FEWEST_MATCHES, FEWEST_TYPES = 50, 20
RANKS = (1, 5, 10)
COVARIATES = ("rarity_next", "surprisal", "logp_next_last", "entropy_last")
COVARIATES += ("ln_position", "ln_distance", "ln_count")


def of_run(run):
    lines = Lines()
    pairs = Pairs(run)
    _depths(pairs, lines)
    _by_rarity(pairs, lines)
    _balance(pairs, lines)
    _on_the_way(pairs, lines)
    there = run["rank_copy"][:, 0] > 0
    layer = stays(run["rank_copy"][there] <= 10)
    lines.by_layer("copy_within_10", [(layer <= k).mean() for k in range(run.n_layers)])
    return lines


def retrieval_depth(ranks, cut):
    """Depth from which a rank stays within a cut; one layer beyond the last where it never does."""
    n_layers = ranks.shape[1]
    layer = stays(ranks <= cut)
    return np.where(layer == NEVER, n_layers, layer) / (n_layers - 1)


def prominence(ranks):
    """How far ln rank rises above its lowest values before and after, at most."""
    curve = np.log(ranks)
    before = np.minimum.accumulate(curve, axis=1)
    after = np.minimum.accumulate(curve[:, ::-1], axis=1)[:, ::-1]
    return (curve - np.maximum(before, after)).max(1)


class Pairs:
    """Pairs of a copy and a control; those of one copy weigh together what those of another do.

    Attributes:
        copy: Place of the copy of each pair; ``control``: that of its control.
        mass: Weight of each pair.
    """

    def __init__(self, run):
        self.run = run
        copies, self.others = (
            matching.facts(run, run.samples[name]) for name in ("copies", "controls")
        )
        assert copies["copies"].all() and not self.others["copies"].any()
        self.copies = matching.some(copies, copies["match_length"] >= SUFFIX)
        self.others = matching.some(self.others, self.others["prev_count"] > 0)
        found = matching.match(self.copies, self.others)
        self.n_matches = sum(bool(f) for f in found)
        self.copy = np.array([i for i, f in enumerate(found) for _ in f])
        self.control = np.array([place for f in found for place in f])
        self.mass = np.array([1 / len(f) for f in found for _ in f]) / self.n_matches

    def sides(self, function):
        """A function of the facts, of the copy and of the control of each pair."""
        return function(self.copies)[self.copy], function(self.others)[self.control]

    @functools.cached_property
    def documents(self):
        return self.sides(lambda side: side["document"])

    def number(self, statistic, terms, mask=slice(None), resample=True):
        """A statistic of the masses of pairs, and its error where pairs share documents.

        A pair has two documents. A replica gives each pair the mass ``1 + (m - 1) + (m' - 1)``, m
        and m' being how often its documents were drawn. What two pairs that share both documents
        have in common is then counted twice, and subtracted once. Of independent pairs that leaves
        at least half, so no less is taken where chance would leave less.

        Args:
            statistic: Of masses, ``[pair]``.
            terms: What each pair adds to the statistic less its mean, times its mass.
            mask: Some of the pairs.
            resample: Otherwise each document in turn is left out, with all its pairs: a regression
                on a hundred pairs has no stable solution where masses are negative.
        """
        ours, theirs = (side[mask] for side in self.documents)
        mass = self.mass[mask] / self.mass[mask].sum()
        apart = ours != theirs
        if resample:
            drawn = bootstrap.drawn(self.run.n_documents) - 1
            again = [statistic(mass * (1 + d[ours] + apart * d[theirs])) for d in drawn]
            by_document = np.var(again, ddof=1)
        else:
            held = np.unique([ours, theirs])
            again = [statistic(mass * ((ours != d) & (theirs != d))) for d in held]
            by_document = (len(held) - 1) * np.var(again)
        couple = np.sort(np.stack([ours, theirs]), axis=0)[:, apart]
        _, couple = np.unique(couple, axis=1, return_inverse=True)
        both = np.square(np.bincount(couple.ravel(), terms(mass)[apart])).sum()
        return statistic(mass), np.sqrt(max(by_document - both, by_document / 2))

    def mean(self, function, of_copies):
        """Mean of the copies, by their documents, or of the controls, by both of a pair."""
        side = self.sides(function)[0 if of_copies else 1].astype(float)

        def mean(mass):
            return mass @ side / mass.sum()

        if not of_copies:
            return self.number(mean, lambda mass: mass * (side - mean(mass)))
        sums = [
            bootstrap.totals(x, self.documents[0], self.run.n_documents)
            for x in (self.mass * side, self.mass)
        ]
        return bootstrap.estimate(np.divide, *sums)

    def difference(self, function):
        """Mean of the copies' values less that of their controls."""
        mine, theirs = self.sides(function)
        gap = mine - theirs

        def mean(mass):
            return mass @ gap / mass.sum()

        return self.number(mean, lambda mass: mass * (gap - mean(mass)))

    @functools.cached_property
    def apart(self):
        """Differences of the covariates, after a column of ones."""
        gaps = [np.subtract(*self.sides(lambda s, n=name: s[n])) for name in COVARIATES]
        return np.stack([np.ones(len(self.copy)), *gaps], axis=1)

    def adjusted(self, function, mask=slice(None)):
        """The difference at equal covariates: intercept of gaps on gaps."""
        gap, x = np.subtract(*self.sides(function))[mask], self.apart[mask]

        def fit(mass):
            return np.linalg.lstsq((x * mass[:, None]).T @ x, x.T @ (mass * gap), rcond=None)[0]

        def terms(mass):
            inverse = np.linalg.pinv((x * mass[:, None]).T @ x)
            return mass * (x @ inverse[0]) * (gap - x @ fit(mass))

        return self.number(lambda mass: fit(mass)[0], terms, mask, resample=False)

    def means(self, function):
        """Means of the matched copies and of their controls."""
        return {
            name: self.mass @ side
            for name, side in zip(("copies", "controls"), self.sides(function), strict=True)
        }


def depth_within(cut):
    return lambda side: retrieval_depth(side["rank_next"], cut)


def _depths(pairs, lines):
    for cut in RANKS:
        lines.put(f"retrieval_depth_{cut}", *pairs.difference(depth_within(cut)))
        lines.put(f"retrieval_depth_adjusted_{cut}", *pairs.adjusted(depth_within(cut)))
        for stratum, mean in pairs.means(depth_within(cut)).items():
            lines.put(f"mean_retrieval_depth_{cut}", mean, stratum=stratum)
    lines.put("cliff_delta", *_cliff(pairs))
    lines.put("hodges_lehmann", _hodges_lehmann(pairs))
    lines.put("scramble_recover", *pairs.difference(lambda s: prominence(s["rank_next"])))
    for stratum, mean in pairs.means(lambda s: prominence(s["rank_next"])).items():
        lines.put("mean_prominence", mean, stratum=stratum)


def _cliff(pairs):
    """P(copy later) - P(copy earlier) of a copy and a control drawn from all matches."""
    mine, theirs = pairs.sides(depth_within(10))
    levels, place = np.unique(np.concatenate([mine, theirs]), return_inverse=True)
    of_copy, of_control = np.split(place.ravel(), 2)
    sign = np.sign(levels[:, None] - levels[None])

    def shares(mass):
        return [np.bincount(p, mass, len(levels)) / mass.sum() for p in (of_copy, of_control)]

    def delta(mass):
        copies, controls = shares(mass)
        return copies @ sign @ controls

    def terms(mass):
        copies, controls = shares(mass)
        above, below = (sign @ controls)[of_copy], (copies @ sign)[of_control]
        return mass * (above + below - 2 * delta(mass))

    return pairs.number(delta, terms)


def _hodges_lehmann(pairs):
    """Median of the means of all pairs of differences, each with itself too."""
    mine, theirs = pairs.sides(depth_within(10))
    copies, first = np.unique(pairs.copy, return_index=True)
    counts = np.bincount(pairs.copy)[copies]
    mean = np.bincount(pairs.copy, theirs)[copies] / counts
    gap = mine[first] - mean
    i, j = np.triu_indices(len(gap))
    return np.median((gap[i] + gap[j]) / 2)


def _by_rarity(pairs, lines):
    bins = rows.bin_of(pairs.copies["rarity_next"])[pairs.copy]
    for b in range(rows.RARITIES):
        mine = bins == b
        copies = np.unique(pairs.copy[mine])
        number = np.nan, np.nan
        types = np.unique(pairs.copies["next_token"][copies])
        if len(copies) >= FEWEST_MATCHES and len(types) >= FEWEST_TYPES:
            number = pairs.adjusted(depth_within(10), mine)
        lines.put("retrieval_depth_adjusted_10", *number, stratum=rows.rarity_label(b))


def _balance(pairs, lines):
    for name in COVARIATES:
        mine, theirs = pairs.copies[name], pairs.others[name]
        apart = (mine.mean() - theirs.mean()) / mine.std(ddof=1)
        lines.put(f"balance_{name}", apart, stratum="sampled")
        gap = np.subtract(*pairs.sides(lambda s, n=name: s[n]))
        spread = mine[np.unique(pairs.copy)].std(ddof=1)
        lines.put(f"balance_{name}", pairs.mass @ gap / spread, stratum="matched")


def _on_the_way(pairs, lines):
    """Means of the matched at each layer, of copies and of controls."""
    for layer in range(pairs.run.n_layers):
        measures = {
            "retrieved_within_10": lambda s, k=layer: stays(s["rank_next"] <= 10) <= k,
            "matched_ln_rank_next": lambda s, k=layer: np.log(s["rank_next"][:, k]),
        }
        for name, measure in measures.items():
            for stratum, alone in (("copies", True), ("controls", False)):
                number = pairs.mean(measure, alone)
                lines.put(name, *number, stratum=stratum, layer=layer)
