"""Two prompts, models or decoders compared: the difference of every metric where tokens are equal.

Differences are first minus second; of ranks, whose size matters by its logarithm, they are the
logarithm of first over second.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxlens import arguments, errors
from jaxlens.view.comparison import alignment, difference, side_names
from jaxlens.view.prompt import metrics, prompt


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two prompts and what of them is aligned.

    Attributes:
        first: One side, whole.
        second: The other.
        decoders: Which reading of each.
        names: What to call the sides.
        pairs: Places of the layers that belong together.
        columns: Places of tokens in both prompts, -1 where one has none.
        equal: Whether the tokens of a column are the same, so that their numbers are compared.
        notes: What is aligned, in words.
    """

    first: prompt.Prompt
    second: prompt.Prompt
    decoders: tuple[str, str]
    names: tuple[str, str]
    pairs: alignment.Pairs
    columns: Int[np.ndarray, "column 2"]
    equal: Bool[np.ndarray, " column"]
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.columns)

    def __repr__(self) -> str:
        one, two = self.names
        return f"<Comparison of {one} and {two}: {'; '.join(self.notes)}>"

    @property
    def what(self) -> str:
        """What differs between the sides, for headings."""
        if self.first.model != self.second.model:
            return "models"
        return "decoders" if self.decoders[0] != self.decoders[1] else "prompts"

    @property
    def sides(self) -> tuple[prompt.Prompt, prompt.Prompt]:
        """Both prompts."""
        return self.first, self.second

    @property
    def readings(self) -> tuple[prompt.Readings, prompt.Readings]:
        """What was read of both."""
        return tuple(  # type: ignore[return-value]
            side.readings[decoder] for side, decoder in zip(self.sides, self.decoders, strict=True)
        )

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Names of the pairs of layers; of two names both."""
        pairs = [(self.first.layers[i], self.second.layers[j]) for i, j in self.pairs]
        return tuple(one if one == two else f"{one} | {two}" for one, two in pairs)

    def views(self) -> dict[str, metrics.Metric]:
        """The metrics that both sides have, as they are offered."""
        one, two = (side.views() for side in self.sides)
        return {n: m for n, m in one.items() if n in two and m.title == two[n].title}

    def view(self, name: str | None = None) -> metrics.Metric:
        """One of the `views`; the first by default.

        Raises:
            ConfigError: One of the sides does not have it.
        """
        views = self.views()
        if not views:
            raise errors.ConfigError(
                "nothing was read of both that can be compared",
                f"read one of {', '.join(prompt.QUANTITIES)} with both",
            )
        name = (
            None if name is None else arguments.text(name, "metric", f"one of {', '.join(views)}")
        )
        if name is not None and name not in views:
            for side in self.sides:
                side.view(name)  # says what is missing
            raise errors.ConfigError(
                f"{name} is of another token on each side", f"one of {', '.join(views)}"
            )
        return views[next(iter(views)) if name is None else name]

    def values(self, name: str, side: int) -> Float[np.ndarray, "layer column"]:
        """A metric of one side at the aligned layers, by column; NaN where the side has no token.

        Args:
            name: Of a metric.
            side: 0 or 1.
        """
        metric = self.sides[side].view(name)
        columns = metric.values(self.readings[side])[[pair[side] for pair in self.pairs]]
        places = self.columns[:, side]
        return np.where(places >= 0, columns[:, places], np.nan)

    def difference(self, name: str | None = None) -> difference.Difference:
        """First minus second, where the tokens are the same.

        What is about the next token is compared where that is the same too.

        Args:
            name: Of a metric; the first of the `views` by default.

        Raises:
            ConfigError: One of the sides does not have it.
        """
        metric = self.view(name)
        one, two = (self.values(metric.name, side) for side in (0, 1))
        if metric.kind == metrics.RANK:
            one, two = np.log(one), np.log(two)
        compared = (
            self.equal & self._same_next() if metric.quantity.endswith("_next") else self.equal
        )
        values = np.where(compared, one - two, np.nan)
        return difference.Difference(metric, values, difference.limit_of(values, metric.kind))

    def following(self, column: int) -> tuple[str, str]:
        """The true next tokens of a column as they can be shown; empty where there is none."""
        next_tokens = []
        for side, at in zip(self.sides, self.columns[column].tolist(), strict=True):
            number = side.following[at] if at >= 0 else -1
            next_tokens.append(side.name(number) if number >= 0 else "")
        return next_tokens[0], next_tokens[1]

    def _same_next(self) -> Bool[np.ndarray, " column"]:
        pairs = [self.following(column) for column in range(len(self))]
        return np.array([one == two for one, two in pairs], bool)

    def part(self, start: int, stop: int | None) -> Comparison:
        """Some of its columns.

        Raises:
            ConfigError: There are none there, or none of them is aligned.
        """
        start = arguments.whole(start, "start")
        stop = None if stop is None else arguments.whole(stop, "stop")
        first, last, _ = slice(start, stop).indices(len(self))
        if first >= last:
            raise errors.ConfigError(
                f"no tokens from {start} to {'the end' if stop is None else stop}",
                f"there are {len(self)}; count from 0, or from the end with negative numbers",
            )
        columns = slice(first, last)
        return dataclasses.replace(self, columns=self.columns[columns], equal=self.equal[columns])

    def token(self, column: int) -> tuple[str, str]:
        """The tokens of a column as they can be shown; empty where a side has none."""
        places = zip(self.sides, self.columns[column].tolist(), strict=True)
        one, two = (side.name(side.ids[at]) if at >= 0 else "" for side, at in places)
        return one, two

    def plot(self, metric: str | None = None, path: str | Path | None = None) -> Any:
        """Draws the difference, and both sides below it.

        Args:
            metric: Of what, as for ``jaxlens show``; the first of the `views` by default.
            path: File to write as well: ``.png``, ``.svg``, ``.pdf``.

        Returns:
            A ``matplotlib.figure.Figure``.

        Raises:
            ConfigError: No such metric, more than 64 tokens, or matplotlib is not installed.
            StorageError: The file cannot be written.
        """
        from jaxlens.view.comparison import figure

        return figure.plot(self, metric, path)

    def html(self, metric: str | None = None) -> str:
        """The interactive page, which loads nothing.

        Args:
            metric: Which is shown first.

        Raises:
            ConfigError: No such metric, too many tokens, or jinja2 is not installed.
        """
        from jaxlens.view.comparison import html

        return html.page(self, metric)

    def _repr_html_(self) -> str:
        """What notebooks show: the difference as a coloured table."""
        from jaxlens.view.prompt import notebook

        return notebook.difference(self)

    def document(self) -> dict[str, Any]:
        """Everything as plain values: what ``--json`` prints; see `prompt.Prompt.document`."""
        differences = {name: self.difference(name) for name in self.views()}
        return {
            "first": {"name": self.names[0], "decoder": self.decoders[0], **self.first.document()},
            "second": {
                "name": self.names[1],
                "decoder": self.decoders[1],
                **self.second.document(),
            },
            "aligned": list(self.notes),
            "layers": [list(pair) for pair in self.pairs],
            "tokens": [
                {"first": one, "second": two, "equal": same}
                for (one, two), same in zip(self.columns.tolist(), self.equal.tolist(), strict=True)
            ],
            "differences": {
                name: {
                    "unit": "ln ratio" if one.metric.kind == metrics.RANK else one.metric.kind,
                    "values": [[_plain(v) for v in row] for row in one.values.tolist()],
                }
                for name, one in differences.items()
            },
        }


def compare(
    first: prompt.Prompt,
    second: prompt.Prompt,
    decoders: tuple[str, str] | None = None,
    *,
    names: tuple[str, str] | None = None,
    relative_depth: bool = False,
) -> Comparison:
    """Aligns two whole prompts.

    Args:
        first: One.
        second: The other.
        decoders: Which reading of each; the first of each by default.
        names: What to call them; by default what differs: model, decoder or text.
        relative_depth: Whether layers of models of different depth are aligned by relative depth.

    Raises:
        ConfigError: No token is aligned, or layers or vocabularies cannot be compared.
    """
    if first.start or second.start:
        raise errors.ConfigError(
            "a part of a prompt was given", "compare whole prompts, then take a part of both"
        )
    compared = decoders or (first.decoders[0], second.decoders[0])
    pairs, by_layer = alignment.layers(first, second, relative_depth)
    alike = alignment.same_vocabulary(first, second)
    align = alignment.by_position if alike else alignment.by_text
    columns, equal, by_token = align(first, second)
    if not equal.any():
        raise errors.ConfigError(
            "no token stands at the same place in both",
            "compare prompts that begin alike, or that differ in some tokens only",
        )
    called = names or side_names.tell_apart(first, second, compared)
    return Comparison(first, second, compared, called, pairs, columns, equal, (by_token, by_layer))


def _plain(value: float) -> float | None:
    """With the digits that a float32 has, which is what was read."""
    return None if math.isnan(value) else float(str(np.float32(value)))
