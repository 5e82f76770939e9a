"""What is wrong with records that hold no text, said once for a file: which fields are there."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from jaxlens.corpus import items, skiplog

logger = logging.getLogger("jaxlens")

_SHOWN = 10
_FEW = 500
_TURNS = ("role", "content", "from", "value")
"""Fields of a message in a conversation, of which there are two conventions."""


class Account:
    """The records of a file of which none holds text.

    Args:
        name: Of the file.
        text_field: Where the text was looked for.
        log: Of the skips; its ``why`` is set while nothing was usable.
    """

    def __init__(self, name: str, text_field: str, log: skiplog.SkipLog) -> None:
        self._name = name
        self._field = text_field
        self._log = log
        self._before = log.documents
        self._lacking = 0
        self._odd = ""

    def skip(self, reason: str, found: items.Found) -> None:
        """Is told of a skip, and of the values that were read."""
        self._lacking += reason == skiplog.NO_TEXT
        if reason == skiplog.NOT_A_STRING and not self._odd:
            self._odd = describe(found[0])

    def finish(self, fields: items.Fields) -> None:
        """Says at the end of a file why none of it was usable, where the fields are the reason."""
        if self._log.documents > self._before or not (self._odd or fields.there):
            return
        if fields.there and self._lacking:
            names = list(fields.there)
            shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
            message = f"no record has the field {self._field!r}"
            hint = f"there are: {shown[:_FEW]}; name one with --set corpus.text_field=..."
        else:
            message = f"the field {self._field!r} is {self._odd}, not text"
            hint = "name a field that holds text; a conversation must be one string first"
        logger.warning("%s: %s; %s", self._name, message, hint)
        if not self._log.documents:
            self._log.why = (f"{self._name}: {message}", hint)


def describe(value: Any) -> str:
    """What a value is that is no text, in words."""
    if isinstance(value, list):
        first = value[0] if value else None
        if isinstance(first, Mapping):
            turns = [name for name in _TURNS if name in first]
            return f"a list of messages ({', '.join(turns)})" if turns else "a list of objects"
        return "a list"
    if isinstance(value, Mapping):
        return f"an object with the fields {', '.join(map(str, list(value)[:_SHOWN]))}"[:_FEW]
    return "true or false" if isinstance(value, bool) else f"a value of type {type(value).__name__}"
