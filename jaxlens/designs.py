"""Corpora that are made instead of read: their names, and the ids that carry their design.

An id is fields joined by ``/``, the first of which names the design, and no field holds a ``/``:

=============================  ==========================================================
``repeats/bin-B/lag-L/NNN``    block of L tokens of frequency bin B, twice; sequence NNN
``plasma/bin-B/NOUN``          the sentence about a noun whose token is of frequency bin B
``plasma/post/plasma``         the sentence of the 2020 post, word by word
``curated/NAME``               a prompt of a fixed list
=============================  ==========================================================

Bins count from 0, the rarest tokens, to ``N_BINS - 1``, the most frequent ones. This module
imports nothing, so that generators and offline analyses read one grammar.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

REPEATS = "twins:repeats"
PLASMA = "twins:plasma"
CURATED = "prompts:curated"

CORPORA = (REPEATS, PLASMA, CURATED)
"""What ``corpus.paths`` may name instead of files, each alone."""

BINNED = (REPEATS, PLASMA)
"""Those of them that have frequency bins."""

PREFIXES = ("twins:", "prompts:")
"""How these names begin; a file that is called so is ``./twins:...``."""

TEXT = "text"
"""Kind of a corpus that is read from files."""

N_BINS = 8
"""Frequency bins, from rare to frequent."""

LAGS = (16, 64, 256)
"""Tokens a block, which are also the tokens from an occurrence to its repetition."""

SEQUENCES = 200
"""Sequences of each bin and lag."""

POST = "plasma/post/plasma"
"""Id of the post's own sentence."""

_GRAMMAR = (
    re.compile(r"(?P<design>repeats)/bin-(?P<bin>[0-7])/lag-(?P<lag>[0-9]{1,6})/(?P<name>[0-9]+)"),
    re.compile(r"(?P<design>plasma)/(?:bin-(?P<bin>[0-7])|post)/(?P<name>[^/]+)"),
    re.compile(r"(?P<design>curated)/(?P<name>[^/]+)"),
)


@dataclass(frozen=True)
class Design:
    """What an id says.

    Attributes:
        design: ``repeats``, ``plasma`` or ``curated``.
        name: Number of the sequence, noun without its space, or name of the prompt.
        bin: Frequency bin; None where there is none.
        lag: Tokens from an occurrence to its repetition; None where the design has none.
    """

    design: str
    name: str
    bin: int | None = None
    lag: int | None = None


def parse(identifier: str) -> Design | None:
    """Reads an id; None where it is not of this grammar.

    Files may be called anything: ask the run's ``spec["corpus"]["kind"]`` first.
    """
    for pattern in _GRAMMAR:
        if match := pattern.fullmatch(identifier):
            fields = match.groupdict()
            numbers = {k: int(fields[k]) for k in ("bin", "lag") if fields.get(k) is not None}
            return Design(fields["design"], fields["name"], **numbers)
    return None


def repeats_id(frequency_bin: int, lag: int, number: int) -> str:
    """Id of a repeated block."""
    return f"repeats/bin-{frequency_bin}/lag-{lag}/{number:03d}"


def plasma_id(frequency_bin: int, noun: str) -> str:
    """Id of a sentence about a noun."""
    return f"plasma/bin-{frequency_bin}/{noun}"


def curated_id(name: str) -> str:
    """Id of a prompt of the list."""
    return f"curated/{name}"


def kind(paths: Sequence[str]) -> str:
    """What ``spec["corpus"]["kind"]`` says: the name of a made corpus, else ``text``."""
    return paths[0] if len(paths) == 1 and paths[0] in CORPORA else TEXT
