"""Lines of the study's table as curves: the trained run, and its nulls beside it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxlens.study import estimators, inputs, readings, study, table
from jaxlens.view import printable
from jaxlens.view.figures import plots

STYLES = {
    inputs.TRAINED: plots.Style(0, "-", "o"),
    inputs.RANDOM_INIT: plots.Style(1, "--", "s"),
    inputs.SHUFFLED: plots.Style(2, ":", "^"),
}
"""How each kind of run is drawn, in every figure."""

_OTHER = plots.Style(3, "-.", "D")

NAMES = {inputs.RANDOM_INIT: "fresh weights", inputs.SHUFFLED: "shuffled text"}

Number = Callable[[float], float]


@dataclass(frozen=True)
class Kind:
    """Runs that are drawn as one: the trained run, or all seeds of a kind of null.

    Attributes:
        kind: See ``inputs.RunInfo``.
        name: For legends.
        labels: Of its runs, as the table has them.
    """

    kind: str
    name: str
    labels: tuple[str, ...]

    @property
    def style(self) -> plots.Style:
        """How it is drawn."""
        return STYLES.get(self.kind, _OTHER)


class Source:
    """The table of a study, by estimator, run and stratum.

    Attributes:
        studied: The study.
        kinds: The trained run, then its nulls by kind.
    """

    def __init__(self, studied: study.Study) -> None:
        self.study = studied
        self._lines: dict[tuple[str, str, str], list[table.Result]] = {}
        for line in studied.results:
            if not line.null:
                key = line.estimator, line.run, line.stratum
                self._lines.setdefault(key, []).append(line)
        kinds = [Kind(inputs.TRAINED, "this model", (studied.run.label,))]
        for kind in dict.fromkeys(null.kind for null in studied.nulls):
            labels = tuple(null.label for null in studied.nulls if null.kind == kind)
            many = f", {len(labels)} seeds" if len(labels) > 1 else ""
            kinds.append(Kind(kind, NAMES.get(kind, printable.line(kind)[:40]) + many, labels))
        self.kinds = tuple(kinds)

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers."""
        return tuple(printable.line(name)[:40] for name in self.study.run.layer_names)

    def _of_run(self, estimator: str) -> dict[str, list[table.Result]]:
        """Lines of the trained run by stratum."""
        name, label = estimators.ESTIMATORS[estimator].name, self.study.run.label
        return {s: lines for (n, run, s), lines in self._lines.items() if (n, run) == (name, label)}

    def has(self, estimator: str) -> bool:
        """Whether the trained run has any number of an estimator."""
        strata = self._of_run(estimator).values()
        return any(math.isfinite(line.estimate) for lines in strata for line in lines)

    def why(self, *names: str) -> str:
        """Why the trained run has no number of these estimators; empty where it has one.

        Args:
            names: The first that has a reason decides.
        """
        if any(map(self.has, names)):
            return ""
        strata = (lines for name in names for lines in self._of_run(name).values())
        reasons = (readings.reason(line) for lines in strata for line in lines)
        return printable.line(next(filter(None, reasons), ""))

    def why_no_interval(self) -> str:
        """Why the trained run has numbers without an interval; empty where no reason is known."""
        label = self.study.run.label
        reasons = (
            readings.reason(line)
            for (_, run, _), lines in self._lines.items()
            if run == label
            for line in lines
            if math.isfinite(line.estimate) and math.isnan(line.low)
        )
        return printable.line(next(filter(None, reasons), ""))

    def line(self, estimator: str, run: str, stratum: str = "all") -> table.Result | None:
        """The line of an estimator that has one; None where there is none."""
        lines = self._of(estimator, run, stratum)
        return lines[0] if len(lines) == 1 else None

    def _of(self, estimator: str, run: str, stratum: str) -> list[table.Result]:
        return self._lines.get((estimators.ESTIMATORS[estimator].name, run, stratum), [])

    def smallest(self, estimator: str) -> float:
        """The smallest effect of interest of an estimator; NaN where it has none."""
        strata = self._of_run(estimator).values()
        return next((line.smallest for lines in strata for line in lines), math.nan)

    def strata(self, estimator: str) -> list[str]:
        """The strata of an estimator, in the order of the table."""
        return list(self._of_run(estimator))

    def along(
        self, estimator: str, run: str, stratum: str = "all", scale: Number | None = None
    ) -> Float[np.ndarray, "3 layer"]:
        """Estimates by layer with both ends of their intervals; NaN where there is none.

        Args:
            estimator: See ``table.Result``.
            run: See ``table.Result``.
            stratum: See ``table.Result``.
            scale: Applied to all, increasing; such as ``math.exp`` to logarithms of ranks.
        """
        values = np.full((3, len(self.layers)), np.nan)
        for line in self._of(estimator, run, stratum):
            if line.layer is not None:
                numbers = (line.estimate, line.low, line.high)
                values[:, line.layer] = [scale(n) if scale else n for n in numbers]
        return values

    def curve(
        self,
        estimator: str,
        kind: Kind,
        stratum: str = "all",
        *,
        scale: Number | None = None,
        name: str | None = None,
        style: plots.Style | None = None,
    ) -> plots.Curve:
        """A curve over the layers: of several seeds the mean, and the range of their intervals."""
        of_runs = np.stack([self.along(estimator, run, stratum, scale) for run in kind.labels])
        values, low, high = merged(of_runs)
        return plots.Curve(name or kind.name, style or kind.style, values, low, high)

    def curves(
        self, estimator: str, stratum: str = "all", scale: Number | None = None
    ) -> tuple[plots.Curve, ...]:
        """The curve of this model, and of each kind of null."""
        return tuple(self.curve(estimator, kind, stratum, scale=scale) for kind in self.kinds)

    def panel(
        self, title: str, up: str, estimator: str, scale: str = plots.LINEAR, **more: Any
    ) -> plots.Lines:
        """An estimator over the layers, of this model and of its nulls.

        Args:
            title: See ``plots.Lines``.
            up: See ``plots.Lines``.
            estimator: See ``table.Result``.
            scale: See ``plots.Lines``.
            more: What ``plots.Lines`` takes beside.
        """
        more.setdefault("why", self.why(estimator))
        return plots.Lines(title, "layer", self.layers, up, self.curves(estimator), scale, **more)

    def points(
        self, rows: Sequence[tuple[str, str]], kind: Kind, name: str | None = None
    ) -> plots.Curve:
        """Single estimates: pairs of estimator and stratum."""
        values = np.full((len(kind.labels), 3, len(rows)), np.nan)
        for i, run in enumerate(kind.labels):
            for j, (estimator, stratum) in enumerate(rows):
                line = self.line(estimator, run, stratum)
                if line is not None:
                    values[i, :, j] = line.estimate, line.low, line.high
        return plots.Curve(name or kind.name, kind.style, *merged(values))


def merged(of_runs: Float[np.ndarray, "run 3 x"]) -> Float[np.ndarray, "3 x"]:
    """Of several runs: the mean, the lowest lower end and the highest upper end.

    An end is NaN where a run has none.
    """
    return np.stack([of_runs[:, 0].mean(0), of_runs[:, 1].min(0), of_runs[:, 2].max(0)])


CLUSTERED = ", clustered by document"


def basis(
    source: Source, panels: Sequence[plots.Panel], what: str = "Bands", how: str = CLUSTERED
) -> str:
    """What the intervals of a figure are, as a sentence below it; or why none is drawn.

    Args:
        source: Where its numbers come from.
        panels: Of the figure.
        what: How intervals are drawn: ``Bands`` or ``Bars``.
        how: What they are clustered by.
    """
    words = f"{what}: 95\u00a0% intervals{how}"
    if any(len(kind.labels) > 1 for kind in source.kinds[1:]):
        words += "; of several seeds, the mean and the range of their intervals"
    return plots.basis(panels, words + ".", source.why_no_interval())
