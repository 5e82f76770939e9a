"""One quantity over all rows of a run, indexed like an array without being one in RAM."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from jaxlens import schema

Read = Callable[[int, int, int], np.ndarray]
"""Reads rows ``start:stop`` of a shard."""

_BLOCK_BYTES = 4 << 20
"""Most bytes that are read at once, unless a row has more."""

_BLOCK_ROWS = 4096
"""Blocks of more rows hold a multiple of these, which are those of a chunk."""

_KINDS = {"rank": "u", "id": "u", "float": "f", "column": "u"}
"""NumPy's kind of what each kind of quantity is stored as."""


def is_stored_as(quantity: schema.Quantity, dtype: np.dtype, ndim: int) -> bool:
    """Whether a quantity can be stored in this type, with so many axes."""
    return dtype.kind == _KINDS[quantity.kind] and ndim == len(quantity.axes)


class Column:
    """Rows of one quantity, [row], [row, layer] or [row, layer, k].

    The first index chooses rows: an integer, a slice, or an array of integers or booleans. The
    others go to NumPy, so ``column[a:b, 3]`` is layer 3. Ids come as int32 with -1 where there is
    none; everything else has the stored type.

    Attributes:
        quantity: Its definition.
        shape: As of an array.
        dtype: Of what indexing returns.
    """

    def __init__(
        self,
        quantity: schema.Quantity,
        stored: np.dtype,
        tail: tuple[int, ...],
        starts: np.ndarray,
        read: Read,
    ) -> None:
        self.quantity = quantity
        self.shape = (int(starts[-1]), *tail)
        self.dtype = np.dtype(np.int32) if quantity.kind == "id" else stored
        self._stored = stored
        self._starts = starts
        self._read = read
        step = max(1, _BLOCK_BYTES // max(1, math.prod(tail) * stored.itemsize))
        self._step = step - step % _BLOCK_ROWS if step > _BLOCK_ROWS else step

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def attributes(self) -> dict[str, Any]:
        """Unit and meaning."""
        found: dict[str, Any] = {
            "units": self.quantity.unit,
            "long_name": self.quantity.meaning,
        }
        return found | ({"missing": -1} if self.quantity.kind == "id" else {})

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"<Column {self.quantity.name} {self.shape} {self.dtype}>"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("a column is on disk; reading it makes a copy")
        return self[:].astype(dtype or self.dtype, copy=False)

    def __getitem__(self, key: Any) -> np.ndarray:
        first, rest = _split(key, self.ndim)
        if isinstance(first, slice):
            return self._slice(first, rest)
        if np.ndim(first) == 0 and not isinstance(first, (bool, np.bool_)):
            row = operator.index(first)
            if not -len(self) <= row < len(self):
                raise IndexError(f"row {row} of {len(self)}")
            row %= len(self)
            return self._slice(slice(row, row + 1), ())[(0, *rest)]
        if any(isinstance(other, (list, np.ndarray)) for other in rest):
            raise IndexError("choose rows by a list first, then index the result by another")
        return self._take(np.asarray(first), rest)

    def _slice(self, wanted: slice, rest: tuple[Any, ...]) -> np.ndarray:
        indices = range(*wanted.indices(len(self)))
        out = self._empty(len(indices), rest)
        if not len(indices):
            return out
        forward = indices if indices.step > 0 else indices[::-1]
        at = 0
        for shard, low, high in self._pieces(forward[0], forward[-1] + 1):
            skip = -(low - forward[0]) % forward.step  # to the first wanted row at or after low
            if low + skip >= high:
                continue
            start = int(self._starts[shard])
            block = self._read(shard, low + skip - start, high - start)[:: forward.step]
            out[at : at + len(block)] = self._finish(block, rest)
            at += len(block)
        return out if indices.step > 0 else out[::-1]

    def _take(self, wanted: np.ndarray, rest: tuple[Any, ...]) -> np.ndarray:
        rows = _row_numbers(wanted, len(self))
        out = self._empty(len(rows), rest)
        owner = np.searchsorted(self._starts, rows, side="right") - 1
        local = rows - self._starts[owner]
        order = np.lexsort((local, owner))
        places = np.stack([owner, local // self._step])[:, order]
        edges = np.flatnonzero((places[:, 1:] != places[:, :-1]).any(axis=0)) + 1
        for mine in np.split(order, edges) if len(order) else ():
            low, high = int(local[mine[0]]), int(local[mine[-1]]) + 1
            block = self._read(int(owner[mine[0]]), low, high)[local[mine] - low]
            out[mine] = self._finish(block, rest)
        return out

    def _pieces(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Shards that hold rows ``start:stop``, each with a bounded part of that range."""
        first = int(np.searchsorted(self._starts, start, side="right")) - 1
        last = int(np.searchsorted(self._starts, stop, side="left"))
        for shard in range(first, last):
            begin, end = map(int, self._starts[shard : shard + 2])
            low, end = max(begin, start), min(end, stop)
            while low < end:
                high = min(end, low + self._step - (low - begin) % self._step)
                yield shard, low, high
                low = high

    def _empty(self, rows: int, rest: tuple[Any, ...]) -> np.ndarray:
        # NumPy itself says what the other indices do, and complains where they are wrong.
        none, one = (np.empty((n, *self.shape[1:]), np.bool_)[(slice(None), *rest)] for n in (0, 1))
        if none.shape[0] != 0 or one.shape != (1, *none.shape[1:]):
            raise IndexError("read the rows first, then index them in so many ways")
        return np.empty((rows, *none.shape[1:]), self.dtype)

    def _finish(self, block: np.ndarray, rest: tuple[Any, ...]) -> np.ndarray:
        block = block[(slice(None), *rest)]
        if self.quantity.kind != "id":
            return block
        found = block.astype(np.int32)
        found[block == np.iinfo(self._stored).max] = -1
        return found


def _split(key: Any, ndim: int) -> tuple[Any, tuple[Any, ...]]:
    if not isinstance(key, tuple):
        key = (key,)
    if key and key[0] is Ellipsis and sum(part is not None for part in key[1:]) == ndim:
        key = key[1:]
    if not key or key[0] is Ellipsis:
        return slice(None), key
    if key[0] is None:
        raise IndexError("the first index chooses rows and cannot be None")
    return key[0], key[1:]


def _row_numbers(wanted: np.ndarray, length: int) -> np.ndarray:
    if wanted.ndim == 1 and wanted.dtype == np.bool_:
        if len(wanted) != length:
            raise IndexError(f"{len(wanted)} booleans for {length} rows")
        return np.flatnonzero(wanted)
    if wanted.size == 0 and wanted.ndim == 1:
        return np.zeros(0, np.int64)
    if wanted.ndim != 1 or wanted.dtype.kind not in "iu":
        raise IndexError("rows are chosen by an integer, a slice or a list of integers")
    rows = wanted.astype(np.int64)
    if rows.min() < -length or rows.max() >= length:
        raise IndexError(f"rows {rows.min()} to {rows.max()} of {length}")
    return np.where(rows < 0, rows + length, rows)
