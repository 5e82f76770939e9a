"""What the rules of tallies have in common."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from jaxlens.tally import facts

Addition = tuple[tuple[Any, ...], Any, Any]
"""Index of each axis, broadcast against the others; amounts, None for 1; and where they count.

The last axes may be `ALL` instead: then there is one index a row for the axes before them, amounts
are ``[row, *those axes]`` or `Products`, and it is one mask a row that says where they count."""

ALL = slice(None)
"""Every place of an axis."""


class Products(NamedTuple):
    """Amounts ``[row, a, b]``: products of the fixed-point numbers ``[row, a]`` and ``[row, b]``.

    Those of all rows at once would take more memory than all other amounts together.
    """

    left: Any
    right: Any

    def of(self, column: Any, xp: Any) -> Any:
        """Those of one column of the left numbers, int64 ``[row, b]``."""
        return facts.product(self.left[:, column, None], self.right, xp)

    def of_rows(self, where: Any, xp: Any) -> Any:
        """All products of some rows, int64 ``[row, a, b]``."""
        return facts.product(self.left[where, :, None], self.right[where, None, :], xp)


def lines(places: tuple[Any, ...]) -> int | None:
    """Number of axes before those of which every place is added to; None where there are none."""
    n_all = sum(isinstance(place, slice) for place in places)
    return len(places) - n_all if n_all else None


def first_place(condition: Any, xp: Any) -> Any:
    """First place along the layers where a condition holds; the number of layers where nowhere."""
    first = condition.argmax(1).astype(xp.int32)
    return xp.where(condition.any(1), first, np.int32(condition.shape[1]))
