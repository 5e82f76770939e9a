"""A few tokens of the text through the lens, from the rows of a run: the post's rasters."""

from __future__ import annotations

import numpy as np

from jaxlens.store import reader
from jaxlens.study.report import prose
from jaxlens.view import printable
from jaxlens.view.figures import palette
from jaxlens.view.prompt import metrics, prompt, raster

TOKENS = 16
"""Tokens that are shown."""


def lacking(run: reader.Run) -> str:
    """Why a run has no excerpt; empty where it may have one."""
    if not run.n_rows:
        return "the run stores no rows: --rows core or full"
    return "" if "top_id" in run else "the run stores no best tokens: --rows core or full"


def read(run: reader.Run, first: int | None = None) -> prompt.Prompt | None:
    """Some tokens of one document; None without rows, or where no document is long enough.

    Args:
        run: With rows of best tokens.
        first: First token; see `place` where it is None.

    Raises:
        MissingError: The run has no token file.
        DataError: It is damaged.
    """
    first = place(run) if first is None and not lacking(run) else first
    if first is None or lacking(run):
        return None
    start = run.corpus.documents.start
    names = [name for name in prompt.QUANTITIES if name in run]
    reading = {name: np.moveaxis(run[name][first : first + TOKENS], 0, 1) for name in names}
    document = int(np.searchsorted(start, first, side="right"))
    ids, following = _tokens(run, first, int(start[document]))
    strings = run.corpus.token_strings
    named = {*ids.tolist(), *following.tolist(), *np.unique(reading["top_id"]).tolist()} - {-1}
    return prompt.Prompt(
        model="",
        text="",
        ids=ids,
        following=following,
        layers=run.layer_names,
        vocab_size=len(strings),
        token_bytes={number: bytes(strings[number]) for number in named},
        readings={str(run.spec["lens"]["decoder"]): reading},
    )


def place(run: reader.Run) -> int | None:
    """First token of the excerpt: a passage of prose near the beginning of the corpus.

    Raises:
        MissingError: The run has no token file.
        DataError: It is damaged.
    """
    corpus = run.corpus
    ids = corpus.tokens(0, prose.MAX_TOKENS)
    return prose.place(ids, corpus.documents.start, corpus.token_strings, TOKENS)


def text(shown: prompt.Prompt) -> str:
    """What the tokens say, on one line that shows nothing invisible."""
    raw = b"".join(shown.token_bytes[int(i)] for i in shown.ids)
    return printable.line(raw.decode("utf-8", "replace").strip())


def _tokens(run: reader.Run, first: int, end: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens from a place on, and the token after each; -1 where the document ends."""
    ids = run.corpus.tokens(first, min(first + TOKENS + 1, end))
    after = np.append(ids[1:], -1)
    return ids[:TOKENS], after[:TOKENS]


def svg(shown: prompt.Prompt, ends: tuple[float, float] = palette.LIGHT) -> str:
    """The views that the rows allow, one below the other; ``ends`` as for `raster.svg`."""
    (decoder,) = shown.decoders
    return raster.svg(shown, decoder, ends)


def tables(shown: prompt.Prompt) -> tuple[tuple[str, list[str], list[list[str]]], ...]:
    """The numbers of each view, the last layer on top."""
    (decoder,) = shown.decoders
    heading = ["layer", *(shown.name(number, 20) for number in shown.ids)]
    excerpts = []
    for name in raster.VIEWS:
        if name in shown.views():
            metric = shown.view(name)
            values = metric.values(shown.readings[decoder])
            lines = [
                [
                    shown.layers[i],
                    *(metrics.format_number(float(v), metric.kind) for v in values[i]),
                ]
                for i in range(len(shown.layers) - 1, -1, -1)
            ]
            excerpts.append((metric.title, heading, lines))
    return tuple(excerpts)
