"""Lines of the study's table as curves: the trained run, and its nulls beside it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxlens.study import inputs, readings, table
from jaxlens.study import study as answers
from jaxlens.view import visible
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
        kind: See ``inputs.Made``.
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
        study: The study.
        kinds: The trained run, then its nulls by kind.
    """

    def __init__(self, study: answers.Study) -> None:
        self.study = study
        self._lines: dict[tuple[str, str, str], list[table.Result]] = {}
        for line in study.results:
            if not line.null:
                key = line.estimator, line.run, line.stratum
                self._lines.setdefault(key, []).append(line)
        kinds = [Kind(inputs.TRAINED, "this model", (study.run.label,))]
        for kind in dict.fromkeys(null.kind for null in study.nulls):
            labels = tuple(null.label for null in study.nulls if null.kind == kind)
            many = f", {len(labels)} seeds" if len(labels) > 1 else ""
            kinds.append(Kind(kind, NAMES.get(kind, visible.line(kind)[:40]) + many, labels))
        self.kinds = tuple(kinds)

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers."""
        return tuple(visible.line(name)[:40] for name in self.study.run.layer_names)

    def has(self, estimator: str) -> bool:
        """Whether the trained run has any number of an estimator."""
        label = self.study.run.label
        return any(
            math.isfinite(line.estimate)
            for (name, run, _), lines in self._lines.items()
            for line in lines
            if (name, run) == (estimator, label)
        )

    def why(self, *estimators: str) -> str:
        """Why the trained run has no number of these estimators; empty where it has one.

        Args:
            estimators: The first that has a reason decides.
        """
        if any(map(self.has, estimators)):
            return ""
        label = self.study.run.label
        for wanted in estimators:
            for (name, run, _), lines in self._lines.items():
                for line in lines:
                    if (name, run) == (wanted, label) and (found := readings.reason(line)):
                        return visible.line(found)
        return ""

    def why_no_interval(self) -> str:
        """Why the trained run has numbers without an interval; empty where no reason is known."""
        label = self.study.run.label
        for (_, run, _), lines in self._lines.items():
            for line in lines:
                bare = math.isfinite(line.estimate) and math.isnan(line.low)
                if run == label and bare and (found := readings.reason(line)):
                    return visible.line(found)
        return ""

    def line(self, estimator: str, run: str, stratum: str = "all") -> table.Result | None:
        """The line of an estimator that has one; None where there is none."""
        found = self._lines.get((estimator, run, stratum), [])
        return found[0] if len(found) == 1 else None

    def smallest(self, estimator: str) -> float:
        """The smallest effect of interest of an estimator; NaN where it has none."""
        label = self.study.run.label
        return next(
            (
                line.smallest
                for (name, run, _), lines in self._lines.items()
                if (name, run) == (estimator, label)
                for line in lines
            ),
            math.nan,
        )

    def strata(self, estimator: str) -> list[str]:
        """The strata of an estimator, in the order of the table."""
        label = self.study.run.label
        return [s for name, run, s in self._lines if (name, run) == (estimator, label)]

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
        found = np.full((3, len(self.layers)), np.nan)
        for line in self._lines.get((estimator, run, stratum), []):
            if line.layer is not None:
                numbers = (line.estimate, line.low, line.high)
                found[:, line.layer] = [scale(n) if scale else n for n in numbers]
        return found

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
        found = np.full((len(kind.labels), 3, len(rows)), np.nan)
        for i, run in enumerate(kind.labels):
            for j, (estimator, stratum) in enumerate(rows):
                line = self.line(estimator, run, stratum)
                if line is not None:
                    found[i, :, j] = line.estimate, line.low, line.high
        return plots.Curve(name or kind.name, kind.style, *merged(found))


def merged(of_runs: Float[np.ndarray, "run 3 x"]) -> Float[np.ndarray, "3 x"]:
    """Of several runs: the mean, the lowest lower end and the highest upper end.

    An end is NaN where a run has none.
    """
    return np.stack([of_runs[:, 0].mean(0), of_runs[:, 1].min(0), of_runs[:, 2].max(0)])


CLUSTERED = ", clustered by document"
WIDENED = ", widened for the clustering of documents"


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
