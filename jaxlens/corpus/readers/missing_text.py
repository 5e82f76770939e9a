"""What is wrong with files of which no record is usable, reported once for each file."""

from __future__ import annotations

import collections
import logging
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from jaxlens.corpus.readers import items, skip_log, suspects

logger = logging.getLogger("jaxlens")

_SHOWN = 10
_FEW = 500
_MAX_WARNED = 20
"""Files that are named in warnings."""

_TURNS = ("role", "content", "from", "value")
"""Fields of a message in a conversation, of which there are two conventions."""

_LIKELY = ("text", "content", "body", "document", "sentence", "article", "prompt")
"""Fields that often hold the text."""

_JOIN = "a conversation must be one string first"


class Account:
    """The records of a file of which none holds text.

    Args:
        source: The file.
        text_field: Where the text was looked for.
        log: Of the skips; takes what is wrong with a file of which nothing is usable.
    """

    def __init__(self, source: items.Source, text_field: str, log: skip_log.SkipLog) -> None:
        self._source = source
        self._field = text_field
        self._log = log
        self._before = log.documents
        self._reasons: collections.Counter[str] = collections.Counter()
        self._first: skip_log.Location | None = None
        self._odd = ""

    def skip(self, location: skip_log.Location, reason: str, values: items.Found) -> None:
        """Notes a skip, and the values that were read."""
        self._reasons[reason] += 1
        self._first = self._first or location
        if reason == skip_log.NOT_A_STRING and not self._odd:
            self._odd = describe(values[0])

    def finish(self, fields: items.Fields) -> None:
        """Says at the end of a file why none of it was usable."""
        if self._log.documents > self._before:
            return
        message, hint = self._why(fields)
        self._log.unusable += 1
        if self._log.why is None and not self._log.documents:
            self._log.why = (message, hint)
        # That a file is empty is counted as any other skip, and no cause for concern.
        if self._reasons.total() != self._reasons[skip_log.EMPTY]:
            self._log.held.append(f"{message}; {hint}")
        if self._log.documents:
            warn(self._log)

    def _why(self, fields: items.Fields) -> tuple[str, str]:
        name = self._source.name
        if fields.seen and self._reasons[skip_log.NO_TEXT]:
            shown = f"there are: {shortened(fields.seen)}"
            texts = [one for one, is_text in fields.seen.items() if is_text]
            remedy = f"name one: {option(texts)}" if texts else f"none of them is text; {_JOIN}"
            return f"{name}: no record has the field {self._field!r}", f"{shown}; {remedy}"
        if self._odd:
            message = f"{name}: the field {self._field!r} is {self._odd}, not text"
            return message, f"name a field that holds text; {_JOIN}"
        path = self._source.path
        suspect = None if path is None else suspects.of_file(path)
        if suspect is not None:
            return f"{name} {suspect.what}", suspect.remedy
        if not self._reasons:
            return f"{name} holds no records", "leave it out, or fetch it again"
        counted = ", ".join(f"{n:,} {why}" for why, n in self._reasons.most_common())
        return (
            f"{name}: none of its records is usable ({counted})",
            f"the first is {self._first}: correct the file, or leave it out",
        )


def warn(log: skip_log.SkipLog) -> None:
    """Warns of the files of which nothing was usable, once it is known that others are."""
    for text in log.held:
        if log.warned < _MAX_WARNED:
            logger.warning("%s", text)
        elif log.warned == _MAX_WARNED:
            logger.warning("more files hold nothing that is usable; only their skips are counted")
        log.warned += 1
    log.held.clear()


def shortened(names: Iterable[str]) -> str:
    """Some names of fields for a message."""
    known = list(names)
    shown = ", ".join(known[:_SHOWN]) + (", ..." if len(known) > _SHOWN else "")
    return shown[:_FEW]


def option(names: Iterable[str]) -> str:
    """The setting that takes the text from the likeliest of some fields."""
    known = list(names)
    ranks = {name: rank for rank, name in enumerate(_LIKELY)}
    best = min(
        known, key=lambda name: ranks.get(name.strip().lower().rpartition(".")[2], len(ranks))
    )
    return f"--set {shlex.quote(f'corpus.text_field={best}')}"


def describe(value: Any) -> str:
    """What a value is that is not text, in words."""
    if isinstance(value, list):
        first = value[0] if value else None
        if isinstance(first, Mapping):
            turns = [name for name in _TURNS if name in first]
            return f"a list of messages ({', '.join(turns)})" if turns else "a list of objects"
        return "a list"
    if isinstance(value, Mapping):
        return f"an object with the fields {', '.join(map(str, list(value)[:_SHOWN]))}"[:_FEW]
    return "true or false" if isinstance(value, bool) else f"a value of type {type(value).__name__}"
