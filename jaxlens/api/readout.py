"""Readouts as callers hold them: the arrays of ``types.Readout``, which show themselves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flax import struct

from jaxlens import types


@struct.dataclass
class Readout(types.Readout):
    """What the lens reads at each layer, batch line and position; None where not asked for.

    A pytree with the fields of `jaxlens.types.Readout`, where they are defined.
    """

    def plot(
        self,
        metric: str | None = None,
        line: int | Sequence[int] | None = 0,
        path: str | Path | None = None,
        *,
        start: int = 0,
        stop: int | None = None,
        ax: Any = None,
        figsize: tuple[float, float] | None = None,
        title: str | None = None,
        wrap: int | None = None,
    ) -> Any:
        """Draws prompts of the batch: layers by tokens, the last layer on top.

        Below the cells stand the tokens that were read, above them the true next ones, with a star
        where the model's own best token is the next.

        Args:
            metric: What cells say, as for ``jaxlens show``: ``kl_final``, ``rank_next``, ...; also
                ``rank_follow`` and ``p_follow``, of several followed tokens ``rank_follow.1``, ....
                By default all views of the post that can be made of what was read, one below the
                other, and the rank of each followed token; of several prompts, or in ``ax``, the
                first of these. The first names the best tokens.
            line: Which prompt, negative from the end; several; or None for all. Padding is cut.
            path: File to write as well, its suffix the format: ``.png``, ``.svg``, ``.pdf``.
            start: First position to draw; negative from the end.
            stop: End of the positions, exclusive.
            ax: Axes of matplotlib to draw one prompt and one metric into.
            figsize: Width and height in inches; by default what the cells need.
            title: Above the figure, or above ``ax``.
            wrap: Most tokens side by side, 32 by default; longer prompts go on below.

        Returns:
            A ``matplotlib.figure.Figure`` that pyplot knows nothing of, which notebooks show; with
            ``ax`` the figure that it belongs to.

        Raises:
            ConfigError: The quantity was not read, there is no such line, the readout has no
                labels, there is too much for a figure, or matplotlib is not installed.
            StorageError: The file cannot be written.
        """
        from jaxlens.view.prompt import readouts

        look = {"ax": ax, "figsize": figsize, "title": title, "wrap": wrap}
        return readouts.plot(self, metric, line, path, start, stop, **look)

    def compare(
        self,
        other: types.Readout,
        line: int = 0,
        other_line: int | None = None,
        *,
        names: tuple[str, str] | None = None,
        relative_depth: bool = False,
    ) -> Any:
        """Compares one prompt with one of another readout: another prompt, model or decoder.

        Differences are this readout minus the other, where both have the same token: at the same
        position; in prompts of other lengths, counted from the beginning and from the end up to
        where they differ; with other tokenizers, where a token of each stands for the same part
        of the text. Layers are aligned by name.

        Args:
            other: The other readout; this one again to compare two of its own lines.
            line: Which prompt of this readout; negative from the end.
            other_line: Which prompt of the other; ``line`` by default.
            names: What to call the two, for titles; by default what differs between them.
            relative_depth: Align the layers of models of different depth by their relative depth.

        Returns:
            A `jaxlens.view.comparison.comparison.Comparison`: ``difference(metric)`` has the
            numbers, ``plot()`` a figure, ``html()`` a page; notebooks show it.

        Raises:
            ConfigError: Models of different depth without ``relative_depth``, no token in common,
                tokenizers that cannot be compared, no such line, or a readout without labels.
        """
        from jaxlens.view.prompt import readouts

        lines = (line, line if other_line is None else other_line)
        return readouts.compare((self, other), lines, names, relative_depth)

    def to_pandas(self) -> Any:
        r"""Everything as a ``pandas.DataFrame``, one record a layer and real position.

        Columns are ``layer`` (0 is the input), ``layer_name``, ``batch``, ``position``,
        ``token_id``, ``token`` and the quantities that were read, named and numbered as in exports:
        ``top_id``, or of several ``top_id.1``, ``top_id.2``, .... Beside ids stand texts:
        ``top_token``, ``follow_id`` and ``follow_token``. Ids, ranks and ties are ``Int32``, texts
        ``string``, both ``<NA>`` where there is none; the rest float32 in nats, NaN where there is
        none. Bytes that are no UTF-8 stand as ``\xe2``.

        Raises:
            ConfigError: The readout has no labels, or pandas is not installed.
        """
        from jaxlens.view.prompt import dataframe

        return dataframe.of(self)

    def __repr__(self) -> str:
        from jaxlens.view.prompt import readouts

        return f"<Readout: {readouts.described(self)}>"

    def _repr_html_(self) -> str | None:
        """What notebooks show: the first prompts in colour; None, for the text, without labels."""
        from jaxlens.view.prompt import notebook

        return notebook.fragment(self)
