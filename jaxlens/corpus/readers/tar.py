"""Archives of text: each ``.txt`` inside a ``.tar`` is a document."""

from __future__ import annotations

import collections
import contextlib
import logging
import os.path
import tarfile
from collections.abc import Iterator
from typing import BinaryIO, cast

from jaxlens import errors
from jaxlens.corpus.readers import items, plain_text
from jaxlens.files import compression

logger = logging.getLogger("jaxlens")

_SUFFIX = ".txt"
_BLOCK_BYTES = 2**20
# What describes a member is read at once, and can claim any size.
_HEADER_BYTES = 2**20
_HINT_CHARACTERS = 500
_ONE = {
    "folders": "folder",
    "links and special files": "link or special file",
    "hidden files": "hidden file",
    "files without a suffix": "file without a suffix",
}


def read(source: items.Source, request: items.Request) -> Iterator[items.Item]:
    """The ``.txt`` members of an archive, in its order.

    Hidden members, links and other files are passed over, and their number is logged.

    Raises:
        DataError: The archive is damaged, ends early, or holds no ``.txt``.
    """
    assert source.path is not None
    skipped: collections.Counter[str] = collections.Counter()
    n_texts = 0
    with compression.opened(source.path) as stream:
        forward = _Forward(stream)
        for number, (member, name) in enumerate(_members(forward, source.path), 1):
            if why := _why_not(member, name):
                skipped[why] += 1
                continue
            n_texts += 1
            with _damage(source.path):
                forward.seek(member.offset_data)
            inside = cast(BinaryIO, _Member(forward, member.size, source.path))
            location = source.location(number, name)
            yield from plain_text.read_stream(inside, f"{source.path}/{name}", location, request)
    shown = ", ".join(
        errors.count(count, _ONE[what], what) if what in _ONE else f"{count:,} {what}"
        for what, count in skipped.most_common()
    )
    if not n_texts:
        raise errors.DataError(
            f"{source.path} holds no {_SUFFIX}, but {shown[:_HINT_CHARACTERS] or 'nothing'}",
            "unpack it and name the files",
        )
    if shown:
        logger.info("%s: passed over %s", source.name, shown[:_HINT_CHARACTERS])


def _members(forward: _Forward, path: str) -> Iterator[tuple[tarfile.TarInfo, str]]:
    """What an archive holds, with the name as text that UTF-8 can hold."""
    with _damage(path):
        archive = tarfile.TarFile(fileobj=cast(BinaryIO, forward), mode="r")
    while True:
        with _damage(path):
            member = archive.next()
            if member is None:
                forward.finish()
                return
            name = member.name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        vars(archive)["members"].clear()  # it would keep all of them
        yield member, name
        del member


def _why_not(member: tarfile.TarInfo, name: str) -> str:
    """What a member is that is passed over; empty for a text."""
    if member.isdir():
        return "folders"
    if not member.isreg() or member.issparse():
        return "links and special files"
    if any(part.startswith(".") and part != "." for part in name.split("/")):
        return "hidden files"
    if name.lower().endswith(_SUFFIX):
        return ""
    return os.path.splitext(name)[1].lower() or "files without a suffix"


@contextlib.contextmanager
def _damage(path: str) -> Iterator[None]:
    """Makes what the library refuses damage of the archive."""
    try:
        yield
    except (tarfile.TarError, ValueError, RecursionError, ArithmeticError, LookupError) as error:
        raise compression.damaged(path, str(error) or type(error).__name__) from error


class _Forward:
    """A stream that is only read forwards, as much of a file as ``tarfile`` needs."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._at = 0
        self._last = b""

    def read(self, size: int) -> bytes:
        """Up to ``size`` bytes; refuses headers that are too large to be such."""
        if size > _HEADER_BYTES:
            raise tarfile.ReadError(f"a header claims {size} bytes")
        self._last = self.take(size)
        return self._last

    def take(self, size: int) -> bytes:
        """Up to ``size`` bytes."""
        data = self._stream.read(size)
        self._at += len(data)
        return data

    def tell(self) -> int:
        """Bytes read so far."""
        return self._at

    def seek(self, offset: int) -> int:
        """Skips to a place further on, or to the end."""
        if offset < self._at:
            raise tarfile.ReadError("its headers overlap")
        while self._at < offset and self.take(min(_BLOCK_BYTES, offset - self._at)):
            pass
        return self._at

    def finish(self) -> None:
        """Reads to the end, where nothing may be left.

        ``tarfile`` stops without a word at damage between members, and at the end of a file that
        was cut off there.
        """
        if len(self._last) != tarfile.BLOCKSIZE or self._last.strip(b"\0"):
            raise tarfile.ReadError("it ends without its end mark, or is damaged there")
        while block := self.take(_BLOCK_BYTES):
            if block.strip(b"\0"):
                raise tarfile.ReadError("data follows its end mark; unpack it")


class _Member:
    """The bytes of a member."""

    def __init__(self, forward: _Forward, size: int, path: str) -> None:
        self._forward = forward
        self._left = size
        self._path = path

    def read(self, size: int) -> bytes:
        """Up to ``size`` bytes; fewer only at its end."""
        wanted = min(size, self._left)
        data = self._forward.take(wanted)
        if len(data) < wanted:
            raise compression.damaged(self._path, "it ends in the middle of a member")
        self._left -= wanted
        return data
