"""Records of many shards, in columns: a tenth of the memory of as many objects."""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import numpy as np
from jaxtyping import Int, Shaped

from jaxlens import errors
from jaxlens.store import records

_NUMBERS = ("shard", "token_start", "token_stop", "rows", "size")

# Exactly what `records.encode` writes, keys in their order.
_LINE = re.compile(
    rb'\{"rows":(0|[1-9]\d{0,18}),"sha256":"([0-9a-f]{64})","shard":(0|[1-9]\d{0,18}),'
    rb'"size":(0|[1-9]\d{0,18}),"spec_hash":"([0-9a-f]{64})","token_start":(0|[1-9]\d{0,18}),'
    rb'"token_stop":(0|[1-9]\d{0,18}),"tokens_sha256":"([0-9a-f]{64})"\}'
)
_TEMPLATE = (
    b'{"rows":%d,"sha256":"%b","shard":%d,"size":%d,"spec_hash":"%b","token_start":%d,'
    b'"token_stop":%d,"tokens_sha256":"%b"}'
)
_REBUILD = "rebuild it with jaxlens finalize"

Row = tuple[int, int, int, int, int, bytes, bytes, bytes]
"""The numbers of a record in the order of the columns, sha256, sha256 of the tokens, spec hash."""


class RecordTable(Sequence[records.Record]):
    """Records of shards of one run, in the order of their numbers; a sequence of ``Record``.

    Attributes:
        spec_hash: Run.
        shard: Numbers.
        token_start: First token of each.
        token_stop: End of the tokens of each, exclusive.
        rows: Rows of each.
        size: Bytes of each.
        sha256: Hash of each file, 64 hexadecimal digits.
        tokens_sha256: Hash of the token file that each was made from.
    """

    def __init__(self, spec_hash: str, rows: Sequence[Row] = ()) -> None:
        numbers = np.array([row[:5] for row in rows], np.int64).reshape(len(rows), 5)
        self.spec_hash = spec_hash
        self.shard: Int[np.ndarray, " n"] = numbers[:, 0].copy()
        self.token_start: Int[np.ndarray, " n"] = numbers[:, 1].copy()
        self.token_stop: Int[np.ndarray, " n"] = numbers[:, 2].copy()
        self.rows: Int[np.ndarray, " n"] = numbers[:, 3].copy()
        self.size: Int[np.ndarray, " n"] = numbers[:, 4].copy()
        self.sha256: Shaped[np.ndarray, " n"] = np.array([row[5] for row in rows], "S64")
        self.tokens_sha256: Shaped[np.ndarray, " n"] = np.array([row[6] for row in rows], "S64")

    @classmethod
    def of(cls, spec_hash: str, entries: Iterable[records.Record]) -> RecordTable:
        """A table of records of one run."""
        return cls(spec_hash, [to_row(entry) for entry in entries])

    @classmethod
    def concatenate(cls, spec_hash: str, tables: Sequence[RecordTable]) -> RecordTable:
        """Tables one after the other."""
        table = cls(spec_hash)
        for name in (*_NUMBERS, "sha256", "tokens_sha256") if tables else ():
            setattr(table, name, np.concatenate([getattr(part, name) for part in tables]))
        return table

    def __len__(self) -> int:
        return len(self.shard)

    @overload
    def __getitem__(self, index: int) -> records.Record: ...
    @overload
    def __getitem__(self, index: slice) -> RecordTable: ...
    def __getitem__(self, index: int | slice) -> records.Record | RecordTable:
        if isinstance(index, slice):
            return self._chosen(index)
        return records.Record(
            spec_hash=self.spec_hash,
            **{name: int(getattr(self, name)[index]) for name in _NUMBERS},
            sha256=self.sha256[index].decode(),
            tokens_sha256=self.tokens_sha256[index].decode(),
        )

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, RecordTable)
            and self.spec_hash == other.spec_hash
            and all(
                np.array_equal(getattr(self, name), getattr(other, name))
                for name in (*_NUMBERS, "sha256", "tokens_sha256")
            )
        )

    __hash__ = None  # type: ignore[assignment]

    def to_rows(self) -> list[Row]:
        """The rows that the table was made of."""
        columns = (*(getattr(self, name) for name in _NUMBERS), self.sha256, self.tokens_sha256)
        spec_hash = self.spec_hash.encode("ascii")
        stored = zip(*(column.tolist() for column in columns), strict=True)
        return [(*values, spec_hash) for values in stored]

    def misplaced(self) -> list[tuple[int, str]]:
        """Shards, in order, that do not continue the one before, with what is wrong."""
        n, starts, stops = len(self), self.token_start, self.token_stop
        if n == 0 or (
            np.array_equal(self.shard, np.arange(self.shard[0], self.shard[0] + n))
            and (self.shard[0] > 0 or starts[0] == 0)
            and np.array_equal(starts[1:], stops[:-1])
            and (self.tokens_sha256 == self.tokens_sha256[0]).all()
            and ((self.rows == 0) | (self.rows == stops - starts)).all()
        ):
            return []
        return _misplaced(self)

    def manifest(self) -> bytes:
        """The bytes of a ``MANIFEST``: the spec hash, then a record a line, after its checksum."""
        return b"".join(self.manifest_pieces())

    def manifest_pieces(self, records: int = 1024) -> Iterator[bytes]:
        """The same in pieces of so many records."""
        spec_hash = self.spec_hash.encode("ascii")
        yield spec_hash + b"\n"
        for start in range(0, len(self), records):
            lines = []
            for row in self[start : start + records].to_rows():
                shard, first, last, rows, size, sha256, tokens, _ = row
                text = _TEMPLATE % (rows, sha256, shard, size, spec_hash, first, last, tokens)
                lines.append(b"%08x %b\n" % (zlib.crc32(text), text))
            yield b"".join(lines)

    def _chosen(self, index: slice | np.ndarray) -> RecordTable:
        table = RecordTable(self.spec_hash)
        for name in (*_NUMBERS, "sha256", "tokens_sha256"):
            setattr(table, name, getattr(self, name)[index])
        return table


def parse_row(raw: bytes, name: str) -> Row:
    """Reads a record, as `records.parse_record` does.

    Raises:
        DataError: Not exactly what `records.encode` writes.
    """
    match = _LINE.fullmatch(raw, 0, len(raw) - raw.endswith(b"\n"))
    if match is None or not raw.endswith(b"\n") or max(map(len, match.group(1, 3, 4, 6, 7))) > 18:
        return to_row(records.parse_record(raw, name))  # which says what is wrong
    rows, sha256, shard, size, spec_hash, start, stop, tokens = match.groups()
    if (first := int(start)) > (last := int(stop)):
        return to_row(records.parse_record(raw, name))
    return int(shard), first, last, int(rows), int(size), sha256, tokens, spec_hash


def parse_manifest(raw: bytes, name: str) -> RecordTable:
    """Reads what `RecordTable.manifest` writes.

    Raises:
        DataError: Naming the line; a line of another run is damage too.
    """
    lines = io.BytesIO(raw)  # one line at a time: a split of many empty ones is large
    spec_hash = lines.readline()[:-1].decode("latin-1")
    if not raw.endswith(b"\n") or not records.is_hash(spec_hash):
        raise errors.DataError(f"{name} is damaged in its first or last line", _REBUILD)
    rows, of_run = [], spec_hash.encode("ascii")
    for number, line in enumerate(lines, start=2):
        text = line[9:-1]
        if line[:9] != b"%08x " % zlib.crc32(text):
            raise errors.DataError(f"{name} is damaged in line {number}", _REBUILD)
        rows.append(parse_row(text + b"\n", f"{name}, line {number},"))
        if rows[-1][7] != of_run:
            raise errors.DataError(f"{name}, line {number}, belongs to another run", _REBUILD)
    return RecordTable(spec_hash, rows)


def _misplaced(entries: Iterable[records.Record]) -> list[tuple[int, str]]:
    problems = []
    before: records.Record | None = None
    for entry in entries:
        length = entry.token_stop - entry.token_start
        start = before.token_stop if before and before.shard == entry.shard - 1 else None
        if entry.shard == 0:
            start = 0
        if start is not None and entry.token_start != start:
            problems.append((entry.shard, f"starts at token {entry.token_start}, not at {start}"))
        if before and entry.tokens_sha256 != before.tokens_sha256:
            problems.append((entry.shard, "comes from another token file"))
        if entry.rows not in (0, length):
            problems.append((entry.shard, f"has {entry.rows} rows for {length} tokens"))
        before = entry
    return problems


def to_row(entry: records.Record) -> Row:
    """A record as a row."""
    return (
        *(entry.shard, entry.token_start, entry.token_stop, entry.rows, entry.size),
        entry.sha256.encode("ascii"),
        entry.tokens_sha256.encode("ascii"),
        entry.spec_hash.encode("ascii"),
    )
