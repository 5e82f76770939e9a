"""What passes between the readers of files and the rest: sources, fields, places and values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxlens.corpus.readers import skip_log

MAX_NAMES = 40
"""Names of fields that are remembered for a message."""

_NAME_CHARACTERS = 60


@dataclass(frozen=True, slots=True)
class Source:
    """One file to read.

    Attributes:
        number: Among all that are read, from 0.
        name: What ids and messages call it: relative to the folder or pattern that was given,
            so that it stays when the folder moves.
        path: Where it lies; None for the packaged text.
    """

    number: int
    name: str
    path: str | None

    def location(self, line: int = 0, member: str = "") -> skip_log.Location:
        """A place in it; see ``skip_log.Location``."""
        return skip_log.Location(self.number, line, self.name, member)


class Ambiguous(dict[str, Any]):
    """A record in which a field that matters stands more than once."""


Found = tuple[Any, ...] | str
"""Values of the fields as they stand there, None where one is absent; or the reason of a skip."""


@dataclass
class Fields:
    """The fields of a record that are read.

    A name is that of a field; where there is no such field, dots in it lead into nested ones:
    ``doc.text`` is the field ``text`` of the field ``doc``.

    Attributes:
        names: The text first, the id second, then any others.
        seen: Names of the fields of records that have no text, up to ``MAX_NAMES``, and whether
            a value of theirs is text.
    """

    names: tuple[str, ...]
    seen: dict[str, bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._paths = [name.split(".") for name in self.names]
        self._nested = any("." in name for name in self.names)

    @property
    def parts(self) -> set[str]:
        """All names, and the steps of those that lead into nested fields."""
        return {*self.names, *(step for path in self._paths for step in path)}

    def pick(self, record: Mapping[str, Any]) -> Found:
        """The values of a record; its field names are noted where it has no text."""
        if not self._nested:
            values = tuple(map(record.get, self.names))
        elif isinstance(values := self._follow(record), str):
            return values
        if values[0] is None and len(self.seen) < MAX_NAMES:
            self.note(record)
        return values

    def note(self, record: Mapping[str, Any]) -> None:
        """Remembers the names of a record's fields."""
        for name, value in record.items():
            inner = {name: value}
            if isinstance(value, Mapping):
                inner = {f"{name}.{key}": one for key, one in value.items()}
            for key in list(inner)[: MAX_NAMES - len(self.seen)]:
                short = key[:_NAME_CHARACTERS]
                self.seen[short] = self.seen.get(short, False) or isinstance(inner[key], str)

    def _follow(self, record: Mapping[str, Any]) -> Found:
        values = []
        for name, path in zip(self.names, self._paths, strict=True):
            value: Any = record
            for step in [name] if name in record else path:
                if isinstance(value, Ambiguous):
                    return skip_log.DUPLICATE_KEY
                value = value.get(step) if isinstance(value, Mapping) else None
            values.append(value)
        return tuple(values)


@dataclass(frozen=True)
class Request:
    """What is asked of a reader.

    Attributes:
        fields: To read of each record.
        separator: What stands between two documents of a ``.txt``; None where it is one.
    """

    fields: Fields
    separator: str | None = None


Item = tuple[skip_log.Location, Found]
Reader = Callable[[Source, Request], Iterator[Item]]
"""Reads a file: the place of each record, and the values of ``Request.fields`` or a reason."""


def numbered(source: Source, records: Iterator[Found]) -> Iterator[Item]:
    """Records of a file that holds many, counted from 1."""
    for line, values in enumerate(records, 1):
        yield source.location(line), values
