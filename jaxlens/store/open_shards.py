"""Shards held open for reading, at most so many at once."""

from __future__ import annotations

import collections
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxlens.store import bounds, layout, records, shard_contents, shards
from jaxlens.store.hdf5 import reading

MAX_OPEN = 40
"""Shards held open at once."""


class OpenShards:
    """The shards of a run, each checked when it is first read; safe for several threads.

    Args:
        run_dir: Run.
        spec: Its spec.
        entries: Records of all shards, in order.
    """

    def __init__(
        self, run_dir: Path, spec: Mapping[str, Any], entries: Sequence[records.Record]
    ) -> None:
        self._run_dir = run_dir
        self._entries = entries
        self._sizes = bounds.sizes(spec, entries[-1].token_stop if entries else 0)
        self._open: collections.OrderedDict[int, reading.Contents] = collections.OrderedDict()
        self._checked: set[int] = set()
        self._form: shard_contents.Form | None = None
        self._lock = threading.RLock()

    def __len__(self) -> int:
        """How many are open now."""
        return len(self._open)

    def close(self) -> None:
        """Closes all shards; reading opens them again."""
        with self._lock:
            while self._open:
                self._open.popitem()[1].close()

    @property
    def form(self) -> shard_contents.Form:
        """What all shards have in common, by the first of them.

        Raises:
            DataError: It is damaged, or has another number of layers than the spec.
        """
        if self._form is None:
            self._form = self._read_form() if self._entries else shard_contents.Form((), {}, {})
        return self._form

    def read(
        self, names: Iterable[str], shard: int, start: int, stop: int
    ) -> dict[str, np.ndarray]:
        """Stored values of quantities in rows ``start:stop`` of a shard.

        Raises:
            DataError: The shard is damaged.
        """
        path = layout.shard_path(self._run_dir, shard)
        with self._lock, reading.reading(path):
            datasets = self._contents(shard).datasets
            blocks = {name: datasets[name][start:stop] for name in names}
            for name, block in blocks.items():
                bounds.check_rows(path, name, block, self._sizes)
            return blocks

    def read_one(self, name: str, shard: int, start: int, stop: int) -> np.ndarray:
        """Stored values of one quantity, see `read`."""
        return self.read((name,), shard, start, stop)[name]

    def _read_form(self) -> shard_contents.Form:
        with self._lock, reading.reading(layout.shard_path(self._run_dir, 0)):
            form = shard_contents.read_form(self._contents(0))
            if (stated := self._sizes.layers) not in (len(form.layer_names), bounds.UNSTATED + 1):
                raise ValueError(f"it has {len(form.layer_names)} layers, {layout.RUN} {stated}")
            return form

    def _contents(self, shard: int) -> reading.Contents:
        if shard in self._open:
            self._open.move_to_end(shard)
            return self._open[shard]
        while len(self._open) >= MAX_OPEN:
            self._open.popitem(last=False)[1].close()
        unchecked = shard not in self._checked
        contents = shards.open_shard(self._run_dir, self._entries[shard], hashed=unchecked)
        if unchecked and shard and shard_contents.read_form(contents) != self.form:
            contents.close()
            raise ValueError("its layers or quantities are not those of the first shard")
        self._checked.add(shard)
        self._open[shard] = contents
        return contents
