"""Reading a run: every shard is checked before a row of it is believed."""

from __future__ import annotations

import collections
import functools
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np

from jaxlens import errors, schema, wording
from jaxlens.store import access, derive, frames, hdf, layout, rows, shards, tokenindex, totals

if TYPE_CHECKING:
    import xarray

MOST_OPEN = 40
"""Shards held open at once."""

BATCH_ROWS = 65_536
"""Most rows of a batch, unless the caller says."""


def open_run(path: str | Path) -> Run:
    """Opens a run whose shards are all there.

    Reads the spec and the records and compares the size of every shard; a shard's sha256 is
    compared when it is first read.

    Args:
        path: Run directory.

    Raises:
        MissingError: There is no run, or shards are missing.
        DataError: Something is damaged.
    """
    return Run(path)


class Run:
    """A run, opened by `open_run`; also a context manager.

    ``run["rank_input"]`` is a `rows.Column`: index it like an array.

    Attributes:
        path: Run directory.
        spec: What the run computes.
        spec_hash: The sha256 of ``RUN.json``.
        n_tokens: Tokens of the corpus.
        n_rows: Rows stored: as many, or 0 where only tallies were kept.
    """

    def __init__(self, path: str | Path) -> None:
        spec = layout.read_spec(path)
        self.path = Path(path)
        self.spec = spec.document
        self.spec_hash = spec.hash
        self._entries = shards.complete(path, spec)
        self._check_manifest()
        self.n_tokens = self._entries[-1].token_stop if self._entries else 0
        self.n_rows = sum(entry.rows for entry in self._entries)
        self._starts = np.cumsum([0, *(entry.rows for entry in self._entries)])
        self._open: collections.OrderedDict[int, hdf.Contents] = collections.OrderedDict()
        self._checked: set[int] = set()
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return self.n_rows

    def __repr__(self) -> str:
        kept = ", ".join(self.names)
        rows, tokens = wording.count(self.n_rows, "row"), wording.count(self.n_tokens, "token")
        return f"<Run {self.path}: {rows} of {tokens}; {kept}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes all files; reading opens them again."""
        with self._lock:
            while self._open:
                self._open.popitem()[1].close()

    @property
    def names(self) -> tuple[str, ...]:
        """Quantities that rows are stored of."""
        return tuple(self._form.columns)

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Labels of the layers: ``input``, ``h.0``, ..."""
        return self._form.layer_names

    def __contains__(self, name: object) -> bool:
        return name in self._form.columns

    def __getitem__(self, name: str) -> rows.Column:
        """The rows of one quantity.

        Raises:
            ConfigError: The run does not record it.
        """
        if name not in self:
            raise rows.unknown(name, self.names, self.path)
        dtype, tail = self._form.columns[name]
        read = functools.partial(self._read_column, name)
        return rows.Column(schema.QUANTITIES[name], dtype, tail, self._starts, read)

    @functools.cached_property
    def tally(self) -> totals.Tallies:
        """Merged totals by name, int64; folded from the shards where no summary is."""
        path = access.contained(self.path, layout.SUMMARY)
        try:
            with hdf.open_sealed(path) as found:
                return self._read_summary(path, found)
        except errors.MissingError:
            spec = layout.Spec(self.spec, self.spec_hash, len(self._entries))
            return derive.fold_shards(self.path, spec, self._entries)

    def summary(self) -> dict[str, dict[str, float]]:
        """Medians and means by layer: ``summary()["h.3"]["median_rank_input"]``.

        The keys are those of `totals.statistics`; a quantity that was never counted is absent.
        """
        merged, labels = self.tally, self._form.labels
        with hdf.reading(self.path):
            found = totals.statistics(merged, labels)
        return {
            layer: {name: float(statistic.values[i]) for name, statistic in found.items()}
            for i, layer in enumerate(self.layer_names)
        }

    def to_xarray(self, names: Iterable[str] | None = None) -> xarray.Dataset:
        """Rows as an ``xarray.Dataset``, loaded into RAM whole; all quantities by default.

        Ids are signed, -1 where missing.

        Raises:
            MissingError: xarray is not installed.
            ConfigError: The run does not record a quantity.
        """
        return frames.dataset(self, names)

    def batches(
        self,
        names: Iterable[str] | None = None,
        rows: int = BATCH_ROWS,
        start: int = 0,
        stop: int | None = None,
    ) -> Iterator[dict[str, np.ndarray]]:
        """Rows in their order, all quantities at once; each shard is checked and opened once.

        A batch is a dict of arrays [row], [row, layer] or [row, layer, k], exactly those of
        ``run[name][a:b]``, with the numbers of its rows as ``"row"``, int64. It lies in one shard
        and holds nothing of the batches before, so that memory is bounded by ``rows``.

        Args:
            names: Quantities; all by default.
            rows: Most rows of a batch. Multiples of 4,096, which are those of a chunk, are fastest.
            start: First row, as of a slice.
            stop: End of the rows, exclusive.

        Raises:
            ConfigError: The run does not record a quantity, or a batch would be empty.
            DataError: A shard is damaged.
        """
        columns = {name: self[name] for name in (self.names if names is None else names)}
        if rows < 1:
            raise errors.ConfigError(f"batches of {rows} rows", "give at least 1")
        first, last, _ = slice(start, stop).indices(self.n_rows)
        return self._batches(columns, rows, first, last)

    @functools.cached_property
    def corpus(self) -> tokenindex.TokenIndex:
        """What the run knows of its corpus: documents, counts and strings of tokens, the tokens.

        Raises:
            MissingError: The run has no token file.
            DataError: It is damaged, or of another run.
        """
        return tokenindex.read(self.path, self.spec, self._entries)

    @property
    def tally_labels(self) -> Mapping[str, tuple[str, ...]]:
        """Labels of the axes of `tally` that have any, such as ``quantity``."""
        return self._form.labels

    @functools.cached_property
    def _form(self) -> shards.Form:
        if not self._entries:
            return shards.Form((), {}, {})
        with self._lock, hdf.reading(layout.shard_path(self.path, 0)):
            return shards.read_form(self._shard(0))

    def _batches(
        self, columns: Mapping[str, rows.Column], most: int, first: int, last: int
    ) -> Iterator[dict[str, np.ndarray]]:
        for shard, low, high in rows.pieces(self._starts, first, last, most):
            start = int(self._starts[shard])
            found = self._read(columns, shard, low - start, high - start)
            batch = {n: rows.signed(c.quantity, found[n]) for n, c in columns.items()}
            yield {"row": np.arange(low, high)} | batch

    def _read(
        self, names: Iterable[str], shard: int, start: int, stop: int
    ) -> dict[str, np.ndarray]:
        with self._lock, hdf.reading(layout.shard_path(self.path, shard)):
            found = self._shard(shard).datasets
            return {name: found[name][start:stop] for name in names}

    def _read_column(self, name: str, shard: int, start: int, stop: int) -> np.ndarray:
        return self._read((name,), shard, start, stop)[name]

    def _shard(self, shard: int) -> hdf.Contents:
        if shard in self._open:
            self._open.move_to_end(shard)
            return self._open[shard]
        while len(self._open) >= MOST_OPEN:
            self._open.popitem(last=False)[1].close()
        hashed = shard not in self._checked
        contents = shards.open_shard(self.path, self._entries[shard], hashed)
        if hashed and shard and shards.read_form(contents) != self._form:
            contents.close()
            raise ValueError("its layers or quantities are not those of the first shard")
        self._checked.add(shard)
        self._open[shard] = contents
        return contents

    def _read_summary(self, path: Path, found: hdf.Contents) -> totals.Tallies:
        with hdf.reading(path):
            if found.attribute("spec_hash") != self.spec_hash:
                raise ValueError("it belongs to another run")
            return shards.read_tallies(found, self.spec)

    def _check_manifest(self) -> None:
        try:
            found = layout.read_manifest(self.path, len(self._entries))
        except errors.MissingError:
            return
        if found != (self.spec_hash, self._entries):
            raise errors.DataError(
                f"{self.path / layout.MANIFEST} does not fit the shards",
                "jaxlens verify names what is damaged",
            )
