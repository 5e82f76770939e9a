"""The third edition of the study's tallies: the second, and products within token types.

Of columns from which a mean of their token type was subtracted, row by row, by group of documents:
what an interval of a slope within types needs. The means are fixed before the sweep, see
``type_means``.
"""

from __future__ import annotations

from jaxlens.tally import tally
from jaxlens.tally.tally import Tally

_FIXED = "2**-16"

ADDED: tuple[Tally, ...] = (
    tally.define(
        "within_product",
        (),
        "group within within_too",
        "sum of products of columns less the table's means of their token type, by group",
        _FIXED,
    ),
    tally.define(
        "within_outcome",
        ("rank_input",),
        "group within layer",
        "sum of products of these columns and ln rank_input less the table's mean, by group",
        _FIXED,
    ),
    tally.define(
        "within_square",
        ("rank_input",),
        "group layer",
        "sum of squares of ln rank_input less the table's mean of the token type, by group",
        _FIXED,
    ),
)
"""What it adds to the second edition."""
