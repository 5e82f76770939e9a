"""Reading merged runs as one: totals from their own summary, rows from the runs themselves."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxlens import errors
from jaxlens.files import contained
from jaxlens.store import (
    corpus_index,
    layout,
    lazy_column,
    open_shards,
    reader,
    record_table,
    shard_contents,
)
from jaxlens.store.hdf5 import reading
from jaxlens.store.merged import fold, merged_corpus, sources

READ_ROWS = 65_536
"""Rows that are read at once of a shard of a run."""


class MergedRun(reader.Run):
    """Finished runs over parts of a corpus, read as one run; see ``reader.Run``.

    Totals are those of ``summary.h5``. Rows, documents and tokens are read from the runs, one after
    the other; each is opened, and found unchanged, when something of it is first read.

    Attributes:
        sources: The runs.
    """

    def __init__(self, path: str | Path, spec: layout.Spec) -> None:
        layout.format_version(spec)
        self.path = Path(path)
        self.spec = spec.document
        self.spec_hash = spec.hash
        self.sources = sources.read(path, spec)
        self.n_tokens = sum(source.n_tokens for source in self.sources)
        self.n_rows = sum(source.n_rows for source in self.sources)
        self._entries = record_table.RecordTable(self.spec_hash)
        self._starts = np.cumsum([0, *(source.n_rows for source in self.sources)])
        self._opened = OpenSources(self.path, self.spec, self.sources)
        self._shards: open_shards.OpenShards = self._opened

    @functools.cached_property
    def tally(self) -> dict[str, np.ndarray]:
        """Merged totals by name, int64; added up from the runs where the summary is missing."""
        path = contained.contained(self.path, layout.SUMMARY)
        try:
            with reading.open_sealed(path) as contents, reading.reading(path):
                wanted = self.spec_hash, fold.fingerprint(self.sources)
                if (contents.attribute("spec_hash"), contents.attribute(fold.OF)) != wanted:
                    raise errors.DataError(f"{path} is not of these runs", sources.HINT)
                return shard_contents.read_tallies(contents, self.spec, self.n_tokens)
        except errors.MissingError:
            runs = (self._opened.source(i) for i in range(len(self.sources)))
            return fold.fold(runs, self.spec).tallies

    @functools.cached_property
    def corpus(self) -> corpus_index.TokenIndex:
        """The corpora of all runs, one after the other; see ``reader.Run.corpus``.

        Raises:
            MissingError: A run is not there, or has no token file.
            DataError: One is damaged, or has changed.
        """
        parts = [self._opened.source(i).corpus for i in range(len(self.sources))]
        return merged_corpus.concatenate(self.path, self.spec["corpus"], parts)


class OpenSources(open_shards.OpenShards):
    """The runs of a merged run in the place of its shards: one of them is open at a time.

    Args:
        run_dir: Merged run.
        spec: Its spec.
        of: Its runs, in order.
    """

    def __init__(
        self, run_dir: Path, spec: Mapping[str, Any], of: Sequence[sources.Source]
    ) -> None:
        super().__init__(run_dir, spec, ())
        self._spec = spec
        self._of = of
        self._runs: dict[int, reader.Run] = {}
        self._latest: int | None = None
        self._documents = np.cumsum([0, *(source.n_documents for source in of)])
        self._sources_lock = threading.RLock()

    def close(self) -> None:
        """Closes all files; reading opens them again."""
        with self._sources_lock:
            for run in self._runs.values():
                run.close()

    @functools.cached_property
    def form(self) -> shard_contents.Form:
        """What all runs have in common: by the summary and, where there are rows, the first run."""
        path = contained.contained(self._run_dir, layout.SUMMARY)
        try:
            with reading.open_sealed(path) as contents, reading.reading(path):
                form = shard_contents.read_form(contents)
        except errors.MissingError:
            form = self.source(0)._shards.form
        if not any(source.n_rows for source in self._of):
            return form
        return shard_contents.Form(
            form.layer_names, self.source(0)._shards.form.columns, form.labels
        )

    def source(self, number: int) -> reader.Run:
        """A run, found to be the one that was merged.

        Raises:
            MissingError: It is not there.
            DataError: It is damaged, or has changed.
        """
        with self._sources_lock:
            if number not in self._runs:
                folder = sources.require_same(self._run_dir, self._of[number])
                self._runs[number] = run = reader.Run(folder)
                stated = self._of[number]
                if (run.n_tokens, run.n_rows) != (stated.n_tokens, stated.n_rows):
                    raise errors.DataError(
                        f"{folder} has other rows than {sources.SOURCES} says", sources.HINT
                    )
            if self._latest is not None and self._latest != number:
                self._runs[self._latest].close()
            self._latest = number
            return self._runs[number]

    def read(
        self, names: Iterable[str], shard: int, start: int, stop: int
    ) -> dict[str, np.ndarray]:
        """Stored values of quantities in rows ``start:stop`` of a run; documents number on.

        Raises:
            JaxlensError: See `source`.
        """
        names, parts = tuple(names), []
        with self._sources_lock:
            run = self.source(shard)
            for part, low, high in lazy_column.pieces(run._starts, start, stop, READ_ROWS):
                first = int(run._starts[part])
                parts.append(run._shards.read(names, part, low - first, high - first))
        blocks = {name: np.concatenate([part[name] for part in parts]) for name in names}
        if "document" in blocks:
            before = blocks["document"].dtype.type(self._documents[shard])
            blocks["document"] = blocks["document"] + before
        return blocks
