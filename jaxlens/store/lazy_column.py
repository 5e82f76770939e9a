"""One quantity over all rows of a run, indexed like an array without being one in RAM."""

from __future__ import annotations

import difflib
import math
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from jaxlens import arguments, errors, schema

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


def signed(quantity: schema.Quantity, block: np.ndarray) -> np.ndarray:
    """Rows as they are handed out: ids as int32, -1 where there is none; all others as stored."""
    if quantity.kind != "id":
        return block
    ids = block.astype(np.int32)
    ids[block == np.iinfo(block.dtype).max] = -1
    return ids


def unsigned(quantity: schema.Quantity, block: np.ndarray, stored: np.dtype) -> np.ndarray:
    """What `signed` was given."""
    if quantity.kind != "id":
        return block
    return np.where(block < 0, np.iinfo(stored).max, block).astype(stored)


def pieces(starts: np.ndarray, start: int, stop: int, step: int) -> Iterator[tuple[int, int, int]]:
    """Shards that hold rows ``start:stop``, each with a bounded part of that range.

    Args:
        starts: First row of each shard, and the number of rows.
        start: First row.
        stop: End of the rows, exclusive.
        step: Most rows of a piece; pieces begin at multiples of it, as chunks do.
    """
    first = int(np.searchsorted(starts, start, side="right")) - 1
    last = int(np.searchsorted(starts, stop, side="left"))
    for shard in range(first, last):
        begin, end = map(int, starts[shard : shard + 2])
        low, end = max(begin, start), min(end, stop)
        while low < end:
            high = min(end, low + step - (low - begin) % step)
            yield shard, low, high
            low = high


def unknown(name: str, names: Sequence[str], run_dir: object) -> errors.ConfigError:
    """Why a run has no rows of a quantity, and what has."""
    quantity = schema.QUANTITIES.get(name) if isinstance(name, str) else None
    if quantity is None:
        near = difflib.get_close_matches(name, names, n=1) if isinstance(name, str) else []
        known = ", ".join(names) or "none, only tallies"
        hint = f"did you mean {near[0]}?" if near else f"recorded are: {known}"
        return errors.ConfigError(f"there is no quantity {errors.show(name)}", hint)
    profiles = [p for p, kept in schema.PROFILES.items() if name in kept]
    which = " or ".join(f"--rows {p}" for p in profiles)
    hint = f"a run with {which} records it" if which else "no --rows profile records it"
    return errors.ConfigError(f"{run_dir} has no rows of {name!r}", hint)


class Column:
    """Rows of one quantity, [row], [row, layer] or [row, layer, k].

    The first index chooses rows: an integer, a slice, or an array of integers or booleans. The
    others go to NumPy, so ``column[a:b, 3]`` is layer 3; so is ``column[a:b, "h.2"]``, its name.
    Ids come as int32 with -1 where there is none; everything else has the stored type.

    Attributes:
        quantity: Its definition.
        shape: As of an array.
        dtype: Of what indexing returns.
        stored: Type in the file.
    """

    def __init__(
        self,
        quantity: schema.Quantity,
        stored: np.dtype,
        tail: tuple[int, ...],
        starts: np.ndarray,
        read: Read,
        layer_names: Sequence[str] = (),
    ) -> None:
        self.quantity = quantity
        self.shape = (int(starts[-1]), *tail)
        self.dtype = np.dtype(np.int32) if quantity.kind == "id" else stored
        self.stored = stored
        self._starts = starts
        self._read = read
        self._layer_names = tuple(layer_names) if "layer" in quantity.axes else ()
        step = max(1, _BLOCK_BYTES // max(1, math.prod(tail) * stored.itemsize))
        self._step = step - step % _BLOCK_ROWS if step > _BLOCK_ROWS else step

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def attributes(self) -> dict[str, Any]:
        """Unit, meaning and, unless it is NaN, as ``missing`` the value of rows that have none."""
        attributes: dict[str, Any] = {
            "units": self.quantity.unit,
            "long_name": self.quantity.meaning,
        }
        absent = self.quantity.absent
        return (
            attributes
            if absent is None or math.isnan(absent)
            else attributes | {"missing": int(absent)}
        )

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"<Column {self.quantity.name} {self.shape} {self.dtype}>"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("a column is on disk; reading it makes a copy")
        return self[:].astype(dtype or self.dtype, copy=False)

    def __getitem__(self, key: Any) -> np.ndarray:
        """Values, as of a NumPy array.

        Raises:
            ConfigError: There are no such rows or layers; it is an ``IndexError`` too.
            DataError: A shard is damaged.
        """
        return arguments.indexed(lambda: self._chosen(key), len(self), "rows")

    def _chosen(self, key: Any) -> np.ndarray:
        first, rest = _split(key, self.ndim)
        rest = tuple(self._number(part) for part in rest)
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

    def _number(self, part: Any) -> Any:
        """Names of layers as numbers; all else as it is."""
        if isinstance(part, str):
            if part not in self._layer_names:
                known = ", ".join(self._layer_names) or "none: it has no layers"
                raise errors.ConfigError(
                    f"{self.quantity.name} has no layer {part!r}", f"layers are {known}"
                )
            return self._layer_names.index(part)
        if isinstance(part, (list, tuple)) and any(isinstance(one, str) for one in part):
            return [self._number(one) for one in part]
        return part

    def _slice(self, wanted: slice, rest: tuple[Any, ...]) -> np.ndarray:
        indices = range(*wanted.indices(len(self)))
        out = self._empty(len(indices), rest)
        if not len(indices):
            return out
        forward = indices if indices.step > 0 else indices[::-1]
        at = 0
        for shard, low, high in pieces(self._starts, forward[0], forward[-1] + 1, self._step):
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
        blocks = np.stack([owner, local // self._step])[:, order]
        edges = np.flatnonzero((blocks[:, 1:] != blocks[:, :-1]).any(axis=0)) + 1
        for group in np.split(order, edges) if len(order) else ():
            low, high = int(local[group[0]]), int(local[group[-1]]) + 1
            block = self._read(int(owner[group[0]]), low, high)[local[group] - low]
            out[group] = self._finish(block, rest)
        return out

    def _empty(self, rows: int, rest: tuple[Any, ...]) -> np.ndarray:
        # NumPy itself says what the other indices do, and complains where they are wrong.
        none, one = (np.empty((n, *self.shape[1:]), np.bool_)[(slice(None), *rest)] for n in (0, 1))
        if none.shape[0] != 0 or one.shape != (1, *none.shape[1:]):
            raise IndexError("read the rows first, then index them in so many ways")
        return np.empty((rows, *none.shape[1:]), self.dtype)

    def _finish(self, block: np.ndarray, rest: tuple[Any, ...]) -> np.ndarray:
        return signed(self.quantity, block[(slice(None), *rest)])


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
