"""Opening plain and compressed files, so that damage is never silent.

The standard readers stop silently at damage between the parts of a bzip2 file, and the Zstandard
reader at a truncated end; here every byte of the file must belong to a complete stream.
"""

from __future__ import annotations

import bz2
import contextlib
import io
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from jaxlens import errors
from jaxlens.files import commands, memory, refusals

SUFFIXES = ("", *commands.UNPACK)
"""What may follow the suffix of a format; plain files have none."""

# A kilobyte of Zstandard can expand to 32 MiB, so small pieces bound the memory that a bomb takes;
# one of bzip2 can expand to any size, but its decompressor can be told when to pause.
_PIECE_BYTES = 1024
_PAUSE_BYTES = 2**20
_BUFFER_BYTES = 2**20
# Libraries may quote the data in their messages.
_SHOWN_CHARACTERS = 200


@contextlib.contextmanager
def opened(path: str) -> Iterator[BinaryIO]:
    """Opens a file for reading, decompressed by its suffix.

    Raises:
        MissingError: It does not exist, or the package that its format needs is not installed.
        DataError: It is damaged or ends early (while reading).
        StorageError: The system refuses (also while reading).
    """
    start = _starter(path)
    with refusals.reading(path), open(path, "rb", buffering=_BUFFER_BYTES) as raw:
        if start is None:
            yield raw
        else:
            yield io.BufferedReader(_Inflated(raw, path, start), _BUFFER_BYTES)


def damaged(path: str, what: str) -> errors.DataError:
    """The error for a file that cannot be read to its end."""
    short = " ".join(what.split())[:_SHOWN_CHARACTERS]
    return errors.DataError(f"{path} is damaged: {short}", "fetch or compress it again")


def _starter(path: str) -> Callable[[], Any] | None:
    """A function that makes a decompressor for one stream of the file; None where it is plain."""
    name = path.lower()
    if name.endswith((".gz", ".tgz")):
        return lambda: zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    if name.endswith(".bz2"):
        return bz2.BZ2Decompressor
    if name.endswith(".zst"):
        zstandard = errors.require_package("zstandard", "data", "files that end in .zst")
        return lambda: zstandard.ZstdDecompressor().decompressobj()
    return None


class _Inflated(io.RawIOBase):
    """The bytes of one or more compressed streams that follow each other."""

    def __init__(self, raw: BinaryIO, path: str, start: Callable[[], Any]) -> None:
        super().__init__()
        self._raw = raw
        self._path = path
        self._start = start
        # An archive holds at least one stream, so an empty file is a truncated one.
        self._stream: Any = start()
        self._input = b""
        self._output = memoryview(b"")

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Fills the buffer; 0 at the end of the last complete stream."""
        while not self._output:
            paused = not getattr(self._stream, "needs_input", True)
            piece = b"" if paused else self._input or self._raw.read(_PIECE_BYTES)
            if not piece and not paused:
                if self._stream is not None:
                    raise damaged(self._path, "it ends in the middle of a stream")
                return 0
            self._output = memoryview(self._inflate(piece))
        taken = self._output[: len(buffer)]
        buffer[: len(taken)] = taken
        self._output = self._output[len(taken) :]
        return len(taken)

    def _inflate(self, piece: bytes) -> bytes:
        self._input = b""
        if self._stream is None:
            piece = piece.lstrip(b"\0")  # tapes and block devices pad archives with zeros
            if not piece:
                return b""
            self._stream = self._start()
        try:
            if isinstance(self._stream, bz2.BZ2Decompressor):
                output = self._stream.decompress(piece, _PAUSE_BYTES)
            else:
                output = self._stream.decompress(piece)
        except Exception as error:  # zlib.error, OSError or ZstdError, by format
            memory.reraise(error)
            raise damaged(self._path, str(error) or "not a stream of its format") from error
        if self._stream.eof:
            self._input = self._stream.unused_data
            self._stream = None
        return output
