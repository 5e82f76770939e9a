"""Memory that HDF5 takes for a file."""

from __future__ import annotations

import io
import os
from typing import Any

FIRST_BYTES = 1 << 16
"""Size of a buffer that was never used."""


class Buffer(io.RawIOBase):
    """A file in RAM for one image after the other.

    Fresh memory is slow: the system has to find and clear each page when it is first touched. A
    buffer that is used again makes images 2.5 times as fast.
    """

    def __init__(self) -> None:
        self._bytes = bytearray(FIRST_BYTES)
        self._at = self._end = 0

    def image(self) -> memoryview:
        """What was written last; it holds until the buffer is used again."""
        return memoryview(self._bytes)[: self._end].toreadonly()

    def clear(self) -> None:
        """Makes the file empty, and keeps its memory."""
        self._at = self._end = 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Sets the position, like ``io.seek``."""
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._end}[whence]
        self._at = origin + offset
        return self._at

    def tell(self) -> int:
        """The current position."""
        return self._at

    def write(self, data: Any) -> int:
        """Writes at the position, and moves it on."""
        size = len(data)
        if size == 0:  # nothing, written beyond the end, does not move the end
            return 0
        self._reach(self._at)
        self._grow(self._at + size)
        memoryview(self._bytes)[self._at : self._at + size] = data
        self._at += size
        self._end = max(self._end, self._at)
        return size

    def readinto(self, target: Any) -> int:
        """Reads at the position, and moves it on."""
        size = max(0, min(len(target), self._end - self._at))
        target[:size] = memoryview(self._bytes)[self._at : self._at + size]
        self._at += size
        return size

    def truncate(self, size: int | None = None) -> int:
        """Sets the length."""
        wanted = self._at if size is None else size
        self._reach(wanted)
        self._end = wanted
        return wanted

    def readable(self) -> bool:
        """Yes."""
        return True

    def writable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def _reach(self, size: int) -> None:
        """Extends the file to a size; unwritten bytes are zero, never those of an earlier image."""
        if size > self._end:
            self._grow(size)
            memoryview(self._bytes)[self._end : size] = bytes(size - self._end)
            self._end = size

    def _grow(self, size: int) -> None:
        if size > len(self._bytes):
            # Into new memory: somebody may still hold a view of this one.
            larger = bytearray(max(size, 2 * len(self._bytes)))
            larger[: self._end] = memoryview(self._bytes)[: self._end]
            self._bytes = larger
