"""The numbers of a comparison as lines of its table."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from jaxlens import schema
from jaxlens.store import reader, summary
from jaxlens.study import table
from jaxlens.study.comparison import paired, pairing
from jaxlens.study.stats import bootstrap

MEAN, AGREEMENT, CORRELATION = "mean difference", "agreement", "rank correlation"

NO_ROWS = "totals only"
NO_DOCUMENTS = "no index of the tokens, so documents are unknown"


@dataclass(frozen=True)
class Line:
    """One number of a comparison.

    Attributes:
        quantity: As recorded; ``top_id`` for the best token.
        statistic: ``mean difference``, ``agreement`` or ``rank correlation``.
        first_layer: Layer of the first run.
        second_layer: That of the second.
        depth: Layer over number of blocks, in the shallower run.
        unit: Unit; ``ln rank`` for ranks.
        first: Mean in the first run, of ranks of ln rank; NaN where the statistic has none.
        second: Mean in the second.
        estimate: The number: first minus second, a share of tokens, or Spearman's coefficient.
        low: Lower end of the 95 % interval; NaN where there is none, and `note` says why.
        high: Upper end.
        se: Standard error.
        n: Tokens that both runs have a value of.
        clusters: Groups of documents that hold any; documents of few are as many.
        note: Why there is no number or no interval, or what it rests on.
    """

    quantity: str
    statistic: str
    first_layer: str
    second_layer: str
    depth: float
    unit: str
    first: float
    second: float
    estimate: float
    low: float
    high: float
    se: float
    n: int
    clusters: int
    note: str = ""


@dataclass(frozen=True)
class Sides:
    """Two runs and their layers that belong together.

    Attributes:
        one: The first run.
        two: The second.
        pairs: Layers of both.
    """

    one: reader.Run
    two: reader.Run
    pairs: pairing.Pairs

    @property
    def layer_names(self) -> tuple[tuple[str, str], ...]:
        """Names of the pairs of layers."""
        return tuple((self.one.layer_names[i], self.two.layer_names[j]) for i, j in self.pairs)

    def depth(self, pair: int) -> float:
        """Depth of a pair of layers in the shallower run, 0 to 1."""
        sizes = len(self.one.layer_names), len(self.two.layer_names)
        shallower = 0 if sizes[0] <= sizes[1] else 1
        return self.pairs[pair][shallower] / (sizes[shallower] - 1)

    def line(
        self,
        pair: int,
        name: str,
        statistic: str,
        estimate: bootstrap.Estimate,
        means: Sequence[float] = (math.nan, math.nan),
    ) -> Line:
        """A line from an estimate and, of a difference, the mean of each side."""
        quantity = schema.QUANTITIES[name]
        unit = "ln rank" if quantity.kind == "rank" else quantity.unit
        first_layer, second_layer = self.layer_names[pair]
        return Line(
            quantity=name,
            statistic=statistic,
            first_layer=first_layer,
            second_layer=second_layer,
            depth=self.depth(pair),
            unit=unit if statistic == MEAN else "1",
            first=means[0],
            second=means[1],
            **table.numbers(estimate),
            note=estimate.note,
        )


def of_sums(sides: Sides, sums: paired.Sums, documents_known: bool) -> Iterator[Line]:
    """Lines of paired tokens, by quantity and pair of layers; intervals need the documents."""
    note = "" if documents_known else NO_DOCUMENTS
    for name, count in sums.count.items():
        for pair, estimate in enumerate(paired.mean_differences(sums, name)):
            totals = (sums.first[name], sums.second[name])
            means = [_mean(total[:, pair], count[:, pair]) for total in totals]
            yield sides.line(pair, name, MEAN, _checked(estimate, note), means)
    if sums.equal is not None:
        for pair, estimate in enumerate(paired.agreements(sums)):
            yield sides.line(pair, "top_id", AGREEMENT, _checked(estimate, note))
    for name, joint in sums.joint.items():
        for pair in range(len(sides.pairs)):
            estimate = _checked(paired.rank_correlation(joint[:, pair]), note)
            yield sides.line(pair, name, CORRELATION, estimate)


def _checked(estimate: bootstrap.Estimate, note: str) -> bootstrap.Estimate:
    """Without an interval where documents are unknown, or where nothing varies between them."""
    why = note or (paired.CONSTANT if estimate.se == 0 else "")
    clusters = 0 if note else estimate.clusters
    return bootstrap.missing(why, estimate.value, estimate.n, clusters) if why else estimate


def _mean(total: np.ndarray, count: np.ndarray) -> float:
    n = int(count.sum())
    return float(total.sum() / n) if n else math.nan


def of_totals(sides: Sides) -> Iterator[Line]:
    """Means of totals; a run counts every value that it has, paired or not."""
    runs = sides.one, sides.two
    statistics = [summary.statistics(run.tally, run.tally_labels) for run in runs]
    counts = [run.tally["count"] for run in runs]
    for i, name in enumerate(schema.SUMMED):
        key = f"mean_ln_{name}" if schema.QUANTITIES[name].kind == "rank" else f"mean_{name}"
        if not all(key in of_run for of_run in statistics):
            continue
        for pair, layers in enumerate(sides.pairs):
            means = [
                float(of_run[key].values[layer])
                for of_run, layer in zip(statistics, layers, strict=True)
            ]
            n = min(int(count[i, layer]) for count, layer in zip(counts, layers, strict=True))
            difference = bootstrap.missing(NO_ROWS, means[0] - means[1], n)
            yield sides.line(pair, name, MEAN, difference, means)
