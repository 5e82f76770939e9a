"""What the rules of tallies have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxlens.tally import facts

Addition = tuple[tuple[Any, ...], Any, Any]
"""Index of each axis, broadcast against the others; amounts, None for 1; and where they count.

The last axes may be `ALL` instead: then there is one index a row for the axes before them, amounts
are ``[row, *those axes]`` or `Products`, and it is one mask a row that says where they count."""

ALL = slice(None)
"""Every place of an axis."""


@dataclass(frozen=True)
class Products:
    """Amounts ``[row, a, b]``: products of the fixed-point numbers ``[row, a]`` and ``[row, b]``.

    They are computed when they are asked for: those of all rows at once would take more memory than
    all other amounts together.

    Attributes:
        left: ``[row, a]``.
        right: ``[row, b]``.
        xp: ``numpy`` or ``jax.numpy``.
    """

    left: Any
    right: Any
    xp: Any

    def __getitem__(self, rows: Any) -> Any:
        """Those of some rows, int64 ``[row, a, b]``."""
        return facts.product(self.left[rows, :, None], self.right[rows, None, :], self.xp)

    def of_column(self, column: Any) -> Any:
        """Those of one column of the left numbers, int64 ``[row, b]``."""
        return facts.product(self.left[:, column, None], self.right, self.xp)


def lines(places: tuple[Any, ...]) -> int | None:
    """Number of axes before those of which every place is added to; None where there are none."""
    n_all = sum(isinstance(place, slice) for place in places)
    return len(places) - n_all if n_all else None


def first_place(condition: Any, xp: Any) -> Any:
    """First place along the layers where a condition holds; the number of layers where nowhere."""
    first = condition.argmax(1).astype(xp.int32)
    return xp.where(condition.any(1), first, np.int32(condition.shape[1]))
