"""A file that HDF5 writes in any order, and that hides write errors from it until `check`."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path
from typing import Any

from jaxlens.files import refusals, system


class Draft(io.RawIOBase):
    """A file under way, open for reading and writing anywhere.

    HDF5 dies where a write fails: its caches cannot be emptied any more, and the interpreter ends
    with a signal. So it is told that every write succeeded. What the disk refused is kept in RAM,
    where HDF5 finds it again; `check` raises, and the file never gets its name. As long as `check`
    is called after each block, no more than one block is kept so.
    """

    def __init__(self, path: str | Path, descriptor: int, disk: system.Disk = system.DISK) -> None:
        self._path = path
        self._descriptor = descriptor
        self._disk = disk
        self._at = self._end = 0
        self._error: OSError | None = None
        self._refused: list[tuple[int, bytes]] = []

    def check(self) -> None:
        """Raises what the disk said when it first refused.

        Raises:
            StorageError: It refused.
        """
        if self._error is not None:
            with refusals.writing(self._path):
                raise self._error

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Sets the position, like ``io.seek``."""
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._end}[whence]
        self._at = origin + offset
        return self._at

    def tell(self) -> int:
        """The current position."""
        return self._at

    def write(self, data: Any) -> int:
        """Writes at the position, and moves it on; never fails."""
        view = memoryview(data).cast("B")
        rest, at = view, self._at
        while rest.nbytes and self._error is None:
            try:
                count = self._disk.write_at(self._descriptor, rest, at)
                if count <= 0:
                    raise OSError(errno.EIO, "nothing was written")
            except OSError as error:
                self._error = error
            else:
                rest, at = rest[count:], at + count
        if rest.nbytes:
            self._refused.append((at, bytes(rest)))
        self._at += view.nbytes
        self._end = max(self._end, self._at)
        return view.nbytes

    def readinto(self, target: Any) -> int:
        """Reads at the position, and moves it on; what was never written is zero."""
        view = memoryview(target).cast("B")
        size = max(0, min(view.nbytes, self._end - self._at))
        try:
            data = os.pread(self._descriptor, size, self._at)
        except OSError as error:
            self._error, data = self._error or error, b""
        view[:size] = data + bytes(size - len(data))
        for at, data in self._refused:
            low, high = max(at, self._at), min(at + len(data), self._at + size)
            if low < high:
                view[low - self._at : high - self._at] = data[low - at : high - at]
        self._at += size
        return size

    def truncate(self, size: int | None = None) -> int:
        """Sets the length; never fails."""
        self._end = self._at if size is None else size
        try:
            os.truncate(self._descriptor, self._end)
        except OSError as error:
            self._error = self._error or error
        return self._end

    def readable(self) -> bool:
        """Yes."""
        return True

    def writable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True
