"""Reading a run: every shard is checked before a row of it is used."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jaxlens import arguments, errors, schema
from jaxlens.files import closing, contained, fetching
from jaxlens.store import (
    corpus_index,
    document_fields,
    earlier_layout,
    finalize,
    frames,
    layout,
    lazy_column,
    open_shards,
    shard_contents,
    shards,
    specs,
    storage,
    summary,
)
from jaxlens.store.hdf5 import reading

if TYPE_CHECKING:
    import pandas
    import xarray

BATCH_ROWS = 65_536
"""Most rows of a batch, unless the caller says."""


def open_run(path: str | Path) -> Run:
    """Opens a run that has all its shards.

    Compares the records and sizes of all shards now, the sha256 of each when it is first read.

    Args:
        path: Directory of a run, or of merged runs; or a URL, as in ``s3://BUCKET/FOLDER``.

    Raises:
        MissingError: The directory holds no run, or shards are missing.
        DataError: Something is damaged.
    """
    return storage.opened(arguments.path(path, "path", "the directory of a run"), _open)


def _open(run_dir: Path) -> Run:
    spec = layout.read_spec(run_dir)
    if specs.MERGED in spec.document:
        from jaxlens.store.merged import merged_run  # it needs `Run`

        return merged_run.MergedRun(run_dir, spec)
    return Run(run_dir)


class Run(closing.Closing):
    """A run, opened by `open_run`; also a context manager.

    ``run["rank_input"]`` is a `lazy_column.Column`: index it like an array.

    Attributes:
        path: Run directory.
        spec: What the run computes.
        spec_hash: The sha256 of ``RUN.json``.
        n_tokens: Tokens of the corpus.
        n_rows: Rows stored: ``n_tokens``, or 0 where only tallies were kept.
    """

    def __init__(self, path: str | Path) -> None:
        spec = layout.read_spec(path)
        self.path = Path(path)
        self.spec = spec.document
        self.spec_hash = spec.hash
        earlier_layout.require_moved(path, spec.n_shards)
        self._entries = shards.complete(path, spec)
        shards.check_manifest(path, spec, self._entries)
        self.n_tokens = self._entries[-1].token_stop if self._entries else 0
        self.n_rows = int(self._entries.rows.sum())
        self._starts = np.concatenate([[0], np.cumsum(self._entries.rows)])
        self._shards = open_shards.OpenShards(self.path, self.spec, self._entries)

    def __len__(self) -> int:
        return self.n_rows

    def __repr__(self) -> str:
        facts = ", ".join(f"{name} {value}" for name, value in frames.facts(self).items())
        return f"<Run {fetching.name_of(self.path)}: {facts}>"

    def _repr_html_(self) -> str:
        """What notebooks show: sizes, quantities, and medians and means by layer."""
        return frames.fragment(self)

    def close(self) -> None:
        """Closes all files; reading opens them again."""
        self._shards.close()

    @property
    def names(self) -> tuple[str, ...]:
        """Quantities that have rows."""
        return tuple(self._shards.form.columns)

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Labels of the layers: ``input``, ``h.0``, ..."""
        return self._shards.form.layer_names

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self._shards.form.columns

    def __getitem__(self, name: str) -> lazy_column.Column:
        """The rows of one quantity.

        Raises:
            ConfigError: The run does not record it.
        """
        if name not in self:
            raise lazy_column.unknown(name, self.names, self.path)
        dtype, tail = self._shards.form.columns[name]
        read = functools.partial(self._shards.read_one, name)
        names = self.layer_names
        return lazy_column.Column(schema.QUANTITIES[name], dtype, tail, self._starts, read, names)

    @functools.cached_property
    def tally(self) -> dict[str, np.ndarray]:
        """Merged totals by name, int64; folded from the shards where the summary is missing."""
        path = contained.contained(self.path, layout.SUMMARY)
        try:
            with reading.open_sealed(path) as contents:
                return self._read_summary(path, contents)
        except errors.MissingError:
            spec = layout.Spec(self.spec, self.spec_hash, len(self._entries))
            return finalize.fold_run(self.path, spec, self._entries)

    def summary(self) -> dict[str, dict[str, float]]:
        """Medians and means by layer: ``summary()["h.3"]["median_rank_input"]``.

        The keys are those of `summary.statistics`; what was never counted is absent.
        """
        merged, labels = self.tally, self._shards.form.labels
        with reading.reading(self.path):
            statistics = summary.statistics(merged, labels)
        return {
            layer: {name: float(statistic.values[i]) for name, statistic in statistics.items()}
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
        are ``Int32`` with ``<NA>`` where missing.

        Args:
            names: Quantities; all by default.
            start: First row, as of a slice.
            stop: End of the rows, exclusive.
            layers: Numbers, negative from the end, or names; all by default.
            limit: Most records. Further rows are cut, with a warning that says how to read on;
                ``frame.attrs["next_row"]`` is the first of them. None for all.

        Raises:
            ConfigError: The run has no such quantity or layer.
            MissingError: pandas is not installed.
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
        fields = {
            name: self._kept(name) for name in wanted if name.startswith(document_fields.PREFIX)
        }
        quantities = {name: self[name] for name in wanted if name not in fields}
        batches = self._batches(quantities, rows, first, last)
        return self._with_fields(batches, fields) if fields else batches

    @property
    def document_fields(self) -> tuple[str, ...]:
        """Fields of the documents that the run keeps, as `batches` and `documents` name them."""
        return tuple(document_fields.PREFIX + name for name in document_fields.names_in(self.spec))

    def documents(self) -> dict[str, np.ndarray]:
        """Columns of one value a document, as ``pandas.DataFrame`` takes them.

        Returns:
            ``document`` (its number), ``document_id``, ``first_row``, ``n_tokens``, and the fields
            that the run keeps, such as ``document.label``, None for null.

        Raises:
            MissingError: The run has no token file.
            DataError: It is damaged.
        """
        fields = {name: self._kept(name) for name in self.document_fields}
        return self.corpus.documents.to_columns() | fields

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
        return self._shards.form.labels

    def _kept(self, name: str) -> np.ndarray:
        """A kept field, a value a document."""
        field = name.removeprefix(document_fields.PREFIX)
        if field not in self.corpus.documents.kept.names:
            known = ", ".join(self.document_fields)
            raise errors.ConfigError(
                f"{self.path} does not keep the field {field!r} of its documents",
                f"it keeps {known}" if known else f"sweep with --set corpus.keep=[{field}]",
            )
        return self.corpus.documents.kept.column(field)

    def _with_fields(
        self, batches: Iterator[dict[str, np.ndarray]], fields: Mapping[str, np.ndarray]
    ) -> Iterator[dict[str, np.ndarray]]:
        for batch in batches:
            document = self.corpus.documents.of(batch["row"])
            yield batch | {name: values[document] for name, values in fields.items()}

    def _batches(
        self, quantities: Mapping[str, lazy_column.Column], max_rows: int, first: int, last: int
    ) -> Iterator[dict[str, np.ndarray]]:
        for shard, low, high in lazy_column.pieces(self._starts, first, last, max_rows):
            start = int(self._starts[shard])
            blocks = self._shards.read(quantities, shard, low - start, high - start)
            batch = {n: lazy_column.signed(c.quantity, blocks[n]) for n, c in quantities.items()}
            yield {"row": np.arange(low, high)} | batch

    def _read_summary(self, path: Path, contents: reading.Contents) -> dict[str, np.ndarray]:
        with reading.reading(path):
            if contents.attribute("spec_hash") != self.spec_hash:
                raise ValueError("it belongs to another run")
            return shard_contents.read_tallies(contents, self.spec, self.n_tokens)
