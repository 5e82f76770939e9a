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

from jaxlens import arguments, errors, schema
from jaxlens.files import contained
from jaxlens.store import bounds, corpus_index, finalize, frames, layout, shards
from jaxlens.store import columns as rows
from jaxlens.store import document_fields as metadata
from jaxlens.store import summary as totals
from jaxlens.store.hdf5 import reading

if TYPE_CHECKING:
    import pandas
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
    return Run(arguments.path(path, "path", "the directory of a run"))


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
        self._open: collections.OrderedDict[int, reading.Contents] = collections.OrderedDict()
        self._checked: set[int] = set()
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return self.n_rows

    def __repr__(self) -> str:
        facts = frames.facts(self)
        return f"<Run {self.path}: {', '.join(f'{name} {what}' for name, what in facts.items())}>"

    def _repr_html_(self) -> str:
        """What notebooks show: sizes, quantities, and medians and means by layer."""
        return frames.fragment(self)

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
        return isinstance(name, str) and name in self._form.columns

    def __getitem__(self, name: str) -> rows.Column:
        """The rows of one quantity.

        Raises:
            ConfigError: The run does not record it.
        """
        if name not in self:
            raise rows.unknown(name, self.names, self.path)
        dtype, tail = self._form.columns[name]
        read = functools.partial(self._read_column, name)
        names = self.layer_names
        return rows.Column(schema.QUANTITIES[name], dtype, tail, self._starts, read, names)

    @functools.cached_property
    def tally(self) -> totals.Tallies:
        """Merged totals by name, int64; folded from the shards where no summary is."""
        path = contained.contained(self.path, layout.SUMMARY)
        try:
            with reading.open_sealed(path) as found:
                return self._read_summary(path, found)
        except errors.MissingError:
            spec = layout.Spec(self.spec, self.spec_hash, len(self._entries))
            return finalize.fold_shards(self.path, spec, self._entries)

    def summary(self) -> dict[str, dict[str, float]]:
        """Medians and means by layer: ``summary()["h.3"]["median_rank_input"]``.

        The keys are those of `totals.statistics`; a quantity that was never counted is absent.
        """
        merged, labels = self.tally, self._form.labels
        with reading.reading(self.path):
            found = totals.statistics(merged, labels)
        return {
            layer: {name: float(statistic.values[i]) for name, statistic in found.items()}
            for i, layer in enumerate(self.layer_names)
        }

    def to_xarray(self, names: Iterable[str] | None = None, masked: bool = True) -> xarray.Dataset:
        """Rows as an ``xarray.Dataset``, loaded into RAM whole.

        Args:
            names: Quantities; all by default.
            masked: Whether missing values are NaN, as xarray reads them from a file. Integers that
                can be missing are floats then, the others stay integers. Without it, all values are
                those of ``run[name]``: ranks 0 and ids -1 where missing; the attribute ``missing``
                says which value that is.

        Raises:
            MissingError: xarray is not installed.
            ConfigError: The run does not record a quantity.
        """
        return frames.dataset(self, names, masked)

    def to_pandas(
        self,
        names: Iterable[str] | None = None,
        start: int = 0,
        stop: int | None = None,
        *,
        layers: Iterable[int | str] | None = None,
        limit: int | None = frames.LIMIT,
    ) -> pandas.DataFrame:
        """Rows as a ``pandas.DataFrame``: one record for each row and layer.

        Only the shards that hold the rows are read. Columns are ``row``, the quantities of a row,
        ``layer``, ``layer_name`` and the quantities of a layer (best tokens ``top_id.1``, ... where
        a run has several); without quantities of a layer there is one record a row. Ids and ranks
        are ``Int32`` with ``<NA>`` where there is none.

        Args:
            names: Quantities; all by default.
            start: First row, as of a slice.
            stop: End of the rows, exclusive.
            layers: Numbers, negative from the end, or names; all by default.
            limit: Most records. What lies beyond is cut, between rows, with a warning that says
                how to read on; ``frame.attrs["next_row"]`` is the first row that is missing. None
                for all.

        Raises:
            ConfigError: The run has no such quantity or layer, or pandas is not installed.
        """
        return frames.records(self, names, start, stop, layers, limit)

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
        and holds nothing of the batches before, so that memory is bounded by ``rows``. Fields of
        documents come as arrays of Python objects, None for null.

        Args:
            names: Quantities, and kept fields of the documents, such as ``document.label``; all
                quantities by default.
            rows: Most rows of a batch. Multiples of 4,096, which are those of a chunk, are fastest.
            start: First row, as of a slice.
            stop: End of the rows, exclusive.

        Raises:
            ConfigError: The run does not record a quantity, or a batch would be empty.
            DataError: A shard is damaged.
        """
        wanted = frames.wanted(names, self.names)
        rows = arguments.whole(rows, "rows", 1)
        first, last = frames.extent(start, stop, self.n_rows)
        kept = {name: self._kept(name) for name in wanted if name.startswith(metadata.PREFIX)}
        columns = {name: self[name] for name in wanted if name not in kept}
        found = self._batches(columns, rows, first, last)
        return self._with_fields(found, kept) if kept else found

    @property
    def document_fields(self) -> tuple[str, ...]:
        """Fields of the documents that the run keeps, as `batches` and `documents` name them."""
        return tuple(metadata.PREFIX + name for name in metadata.names_in(self.spec))

    def documents(self) -> dict[str, np.ndarray]:
        """What is known of each document, a value each, such as for ``pandas.DataFrame``.

        Returns:
            ``document`` (its number), ``document_id``, ``first_row``, ``n_tokens``, and the fields
            that the run keeps, such as ``document.label``, None for null.

        Raises:
            MissingError: The run has no token file.
            DataError: It is damaged.
        """
        known = self.corpus.documents
        texts = np.array([raw.decode("utf-8", "replace") for raw in known.id.tolist()], object)
        found = {
            "document": np.arange(len(known)),
            "document_id": texts,
            "first_row": known.start[:-1],
            "n_tokens": np.diff(known.start),
        }
        return found | {name: self._kept(name) for name in self.document_fields}

    @functools.cached_property
    def corpus(self) -> corpus_index.TokenIndex:
        """What the run knows of its corpus: documents, counts and strings of tokens, the tokens.

        Raises:
            MissingError: The run has no token file.
            DataError: It is damaged, or of another run.
        """
        return corpus_index.read(self.path, self.spec, self._entries)

    @property
    def tally_labels(self) -> Mapping[str, tuple[str, ...]]:
        """Labels of the axes of `tally` that have any, such as ``quantity``."""
        return self._form.labels

    @functools.cached_property
    def _sizes(self) -> bounds.Sizes:
        return bounds.sizes(self.spec, self.n_tokens)

    @functools.cached_property
    def _form(self) -> shards.Form:
        if not self._entries:
            return shards.Form((), {}, {})
        with self._lock, reading.reading(layout.shard_path(self.path, 0)):
            form = shards.read_form(self._shard(0))
            if (stated := self._sizes.layers) not in (len(form.layer_names), bounds.UNSTATED + 1):
                raise ValueError(f"it has {len(form.layer_names)} layers, {layout.RUN} {stated}")
            return form

    def _kept(self, name: str) -> np.ndarray:
        """A kept field, a value a document."""
        field = name.removeprefix(metadata.PREFIX)
        if field not in self.corpus.documents.kept.names:
            known = ", ".join(self.document_fields)
            raise errors.ConfigError(
                f"{self.path} does not keep the field {field!r} of its documents",
                f"it keeps {known}" if known else f"sweep with --set corpus.keep=[{field}]",
            )
        return self.corpus.documents.kept.column(field)

    def _with_fields(
        self, batches: Iterator[dict[str, np.ndarray]], kept: Mapping[str, np.ndarray]
    ) -> Iterator[dict[str, np.ndarray]]:
        for batch in batches:
            document = self.corpus.documents.of(batch["row"])
            yield batch | {name: values[document] for name, values in kept.items()}

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
        path = layout.shard_path(self.path, shard)
        with self._lock, reading.reading(path):
            stored = self._shard(shard).datasets
            found = {name: stored[name][start:stop] for name in names}
            for name, block in found.items():
                bounds.check_rows(path, name, block, self._sizes)
            return found

    def _read_column(self, name: str, shard: int, start: int, stop: int) -> np.ndarray:
        return self._read((name,), shard, start, stop)[name]

    def _shard(self, shard: int) -> reading.Contents:
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

    def _read_summary(self, path: Path, found: reading.Contents) -> totals.Tallies:
        with reading.reading(path):
            if found.attribute("spec_hash") != self.spec_hash:
                raise ValueError("it belongs to another run")
            return shards.read_tallies(found, self.spec, self.n_tokens)

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
