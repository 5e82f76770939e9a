"""Reading a run: every shard is checked before a row of it is believed."""

from __future__ import annotations

import collections
import difflib
import functools
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from jaxlens import errors, schema
from jaxlens.store import access, derive, hdf, layout, rows, shards, totals

if TYPE_CHECKING:
    import xarray

MOST_OPEN = 16
"""Shards held open at once."""


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
        return f"<Run {self.path}: {self.n_rows} rows of {self.n_tokens} tokens; {kept}>"

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
            raise self._unknown(name)
        dtype, tail = self._form.columns[name]
        read = functools.partial(self._read, name)
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
        try:
            import xarray
        except ImportError as error:
            raise errors.MissingError(
                "to_xarray needs xarray", "pip install 'jaxlens-logitlens[study]'"
            ) from error
        columns = {name: self[name] for name in (self.names if names is None else names)}
        coordinates: dict[str, Any] = {
            "layer": np.arange(len(self.layer_names)),
            "layer_name": ("layer", np.array(self.layer_names, dtype=object)),
        }
        if self.n_rows:
            coordinates["row"] = np.arange(self.n_rows)
        variables = {
            name: (column.quantity.axes, column[:], column.attributes)
            for name, column in columns.items()
        }
        about = {"Conventions": "CF-1.10", "spec_hash": self.spec_hash}
        return xarray.Dataset(variables, coordinates, about)

    @functools.cached_property
    def _form(self) -> shards.Form:
        if not self._entries:
            return shards.Form((), {}, {})
        with self._lock, hdf.reading(layout.shard_path(self.path, 0)):
            return shards.read_form(self._shard(0))

    def _read(self, name: str, shard: int, start: int, stop: int) -> np.ndarray:
        with self._lock, hdf.reading(layout.shard_path(self.path, shard)):
            found = self._shard(shard).datasets[name]
            return found[start:stop]

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

    def _unknown(self, name: str) -> errors.ConfigError:
        quantity = schema.QUANTITIES.get(name)
        if quantity is None:
            near = difflib.get_close_matches(name, self.names, n=1)
            known = ", ".join(self.names) or "none, only tallies"
            hint = f"did you mean {near[0]}?" if near else f"recorded are: {known}"
            return errors.ConfigError(f"there is no quantity {name!r}", hint)
        profiles: Sequence[str] = [p for p, kept in schema.PROFILES.items() if name in kept]
        which = " or ".join(f"--rows {p}" for p in profiles)
        hint = f"a run with {which} records it" if which else "no --rows profile records it"
        return errors.ConfigError(f"{self.path} has no rows of {name!r}", hint)
