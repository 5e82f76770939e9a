"""A figure that notebooks show by itself.

Of a plain figure they show the picture only once pyplot has been imported, which keeps every figure
of the process.
"""

from __future__ import annotations

import io

from matplotlib import figure

DPI = 120
"""Pixels an inch in a notebook."""


class Figure(figure.Figure):
    """A matplotlib figure that is its own picture."""

    def _repr_png_(self) -> bytes:
        picture = io.BytesIO()
        self.savefig(picture, format="png", dpi=DPI)
        return picture.getvalue()
