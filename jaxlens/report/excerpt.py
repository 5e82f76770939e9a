"""A few tokens of the text through the lens, from the rows of a run: the post's rasters."""

from __future__ import annotations

import numpy as np

from jaxlens.store import reader
from jaxlens.view import metrics, pictures, prompt, raster

TOKENS = 16
"""Tokens that are shown."""


def read(run: reader.Run) -> prompt.Prompt | None:
    """The beginning of the first document that is long enough; None without such rows.

    Args:
        run: With full rows.

    Raises:
        MissingError: The run has no token file.
        DataError: It is damaged.
    """
    if not run.n_rows or "top_id" not in run:
        return None
    start = run.corpus.documents.start
    long = np.flatnonzero(np.diff(start) >= TOKENS)
    if not len(long):
        return None
    first = int(start[long[0]])
    names = [name for name in prompt.QUANTITIES if name in run]
    reading = {name: np.moveaxis(run[name][first : first + TOKENS], 0, 1) for name in names}
    ids, following = _tokens(run, first, int(start[long[0] + 1]))
    strings = run.corpus.token_strings
    named = {*ids.tolist(), *following.tolist(), *np.unique(reading["top_id"]).tolist()} - {-1}
    return prompt.Prompt(
        model="",
        text="",
        ids=ids,
        following=following,
        layers=run.layer_names,
        vocab_size=len(strings),
        spelled={number: bytes(strings[number]) for number in named},
        readings={str(run.spec["lens"]["decoder"]): reading},
    )


def _tokens(run: reader.Run, first: int, end: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens from a place on, and the token after each; -1 where the document ends."""
    found = run.corpus.tokens(first, min(first + TOKENS + 1, end))
    after = np.append(found[1:], -1)
    return found[:TOKENS], after[:TOKENS]


def svg(shown: prompt.Prompt) -> str:
    """The views that the rows allow, one below the other."""
    (decoder,) = shown.decoders
    return pictures.svg(raster.figure(shown, decoder, caption=" "))


def tables(shown: prompt.Prompt) -> tuple[tuple[str, list[str], list[list[str]]], ...]:
    """The numbers of each view, the last layer on top."""
    (decoder,) = shown.decoders
    heading = ["layer", *(shown.name(number, 20) for number in shown.ids)]
    found = []
    for name in raster.VIEWS:
        if name in shown.views():
            metric = shown.view(name)
            values = metric.values(shown.readings[decoder])
            lines = [
                [shown.layers[i], *(metrics.spelled(float(v), metric.kind) for v in values[i])]
                for i in range(len(shown.layers) - 1, -1, -1)
            ]
            found.append((metric.title, heading, lines))
    return tuple(found)
