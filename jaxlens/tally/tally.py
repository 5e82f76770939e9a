"""What a tally is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tally:
    """An exact, mergeable total.

    Attributes:
        name: Dataset in ``/tally``.
        source: Quantities it is made from, in the order of its first axis.
        axes: Axis names.
        meaning: One sentence, stored as ``long_name``.
        unit: Unit of the stored integer.
        kind: Which update computes it, see ``jaxlens.tally``.
        merge: ``sum``, or ``bottom_k``: of all lines those with the lowest keys.
    """

    name: str
    source: tuple[str, ...]
    axes: tuple[str, ...]
    meaning: str
    unit: str
    kind: str
    merge: str = "sum"


def define(
    name: str,
    source: tuple[str, ...],
    axes: str,
    meaning: str,
    unit: str = "1",
    kind: str = "study",
    merge: str = "sum",
) -> Tally:
    """A tally; ``axes`` are names with spaces between, the rest as in `Tally`."""
    return Tally(name, source, tuple(axes.split()), meaning, unit, kind, merge)
