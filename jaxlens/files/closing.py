"""What closes itself at the end of a ``with`` block."""

from __future__ import annotations

import abc
from typing import Self


class Closing(abc.ABC):
    """A context manager whose block ends with `close`."""

    @abc.abstractmethod
    def close(self) -> None:
        """Releases what it holds; safe to repeat."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
