"""What was skipped, where and why: every skip is counted, and the log is small for any corpus."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import NamedTuple

LOGGED = 1_000
"""Runs of skips that are kept one by one, and pairs of file and reason that are kept beyond."""

NAME_BYTES = 1_000
"""Longest file name, written as JSON, that is kept whole."""

EMPTY = "empty"
TOO_LONG = "too long"
TOO_MANY_VALUES = "too many values"
INVALID_UTF8 = "invalid UTF-8"
LONE_SURROGATE = "lone surrogate"
BAD_JSON = "bad JSON"
TOO_DEEP = "nested too deeply"
NOT_AN_OBJECT = "not an object"
DUPLICATE_KEY = "duplicate key"
NO_TEXT = "no text field"
NOT_A_STRING = "text is not a string"
UNEVEN = "not as many fields as the header"
NO_TOKENS = "no tokens"
LONGER_THAN_SEQUENCE = "longer than a sequence"
NOT_ONE_TOKEN = "not one token"
NO_FREQUENCY = "in no frequency bin"
EMPTY_BIN = "frequency bin is empty"

REASONS = frozenset(
    {
        *(EMPTY, TOO_LONG, TOO_MANY_VALUES, INVALID_UTF8, LONE_SURROGATE, BAD_JSON, TOO_DEEP),
        *(NOT_AN_OBJECT, DUPLICATE_KEY, NO_TEXT, NOT_A_STRING, UNEVEN, NO_TOKENS),
        *(LONGER_THAN_SEQUENCE, NOT_ONE_TOKEN, NO_FREQUENCY, EMPTY_BIN),
    }
)

# What is left at either end of a longer name; no character takes more than 12 bytes as JSON.
_NAME_END = NAME_BYTES // 25


class Location(NamedTuple):
    """Where a text stands; places sort in reading order.

    Attributes:
        number: Of its file, in reading order.
        line: Line or row, from 1; 0 stands for the whole file.
        file: What the file is called.
        member: Name inside an archive, where ``line`` counts the members.
    """

    number: int
    line: int
    file: str
    member: str = ""

    def __str__(self) -> str:
        """``file:line``, ``file``, or ``archive/member``."""
        if self.member:
            return f"{self.file}/{self.member}"
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(slots=True)
class _Span:
    """Skips for one reason: how many, from where to where."""

    reason: str
    first: Location
    last: Location
    count: int = 0

    def add(self, location: Location) -> None:
        self.last = location
        self.count += 1

    def entry(self) -> tuple[str, str]:
        first, last = (
            location._replace(file=_short(location.file), member=_short(location.member))
            for location in (self.first, self.last)
        )
        if self.count == 1:
            return str(first), self.reason
        if first.number != last.number:
            return f"{first} to {last}", f"{self.reason} ({self.count} documents or lines)"
        where = f"{first.file}:{first.line}-{last.line}"
        if self.count == last.line - first.line + 1:
            return where, self.reason
        return where, f"{self.reason} ({self.count} of these lines)"


@dataclass
class SkipLog:
    """What was read and what was skipped.

    Lines that follow each other and were skipped for one reason are one entry. Of such runs the
    first ``LOGGED`` are kept; of what follows, the number, the first and the last line for each
    file and reason; of what follows the first ``LOGGED`` of these, the same for each reason. So
    no skip is without an entry, and there are little more than ``2 * LOGGED`` of them.

    Attributes:
        documents: Documents that were usable.
        counts: Skips by reason.
        why: Message and hint that say why nothing was usable, where a reader knows it.
        unusable: Files of which nothing was usable.
        held: Warnings about them, deferred until another file proves usable.
        warned: How many of them were named.
    """

    documents: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    why: tuple[str, str] | None = field(default=None, compare=False)
    unusable: int = field(default=0, compare=False)
    held: list[str] = field(default_factory=list, compare=False)
    warned: int = field(default=0, compare=False)
    _runs: list[_Span] = field(default_factory=list)
    # Of each reason, since documents without tokens are only found out later than bad lines.
    _latest: dict[str, _Span] = field(default_factory=dict)
    _by_file: dict[tuple[int, str], _Span] = field(default_factory=dict)
    _rest: dict[str, _Span] = field(default_factory=dict)

    def add(self, location: Location, reason: str) -> None:
        """Counts one skip; those for one reason come in reading order."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        self._span(location, reason).add(location)

    def _span(self, location: Location, reason: str) -> _Span:
        """What the skip is to be counted in."""
        run = self._latest.get(reason)
        if run and (run.last.number, run.last.line + 1) == location[:2]:
            return run
        fresh = _Span(reason, location, location)
        if len(self._runs) < LOGGED:
            self._runs.append(fresh)
            self._latest[reason] = fresh
            return fresh
        key = (location.number, reason)
        if key in self._by_file or len(self._by_file) < LOGGED:
            return self._by_file.setdefault(key, fresh)
        return self._rest.setdefault(reason, fresh)

    @property
    def skipped(self) -> int:
        """Number of skips."""
        return sum(self.counts.values())

    @property
    def entries(self) -> list[tuple[str, str]]:
        """Pairs of place and reason, in reading order, each one or many skips."""
        spans = [*self._runs, *self._by_file.values(), *self._rest.values()]
        return [span.entry() for span in sorted(spans, key=lambda span: span.first)]


def _short(name: str) -> str:
    """A file name that fits the log; both ends of it are kept."""
    if len(json.dumps(name)) <= NAME_BYTES:
        return name
    return f"{name[:_NAME_END]}...{name[-_NAME_END:]}"
