"""A sweep made concrete: model, token file, plan and spec."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Int

from jaxlens import config as run_config
from jaxlens import schema, types
from jaxlens.config import RunConfig
from jaxlens.corpus import plan, step_inputs, token_file, token_folder
from jaxlens.lens import unembedding
from jaxlens.models import loading
from jaxlens.store import layout, token_counts_file, type_means_file
from jaxlens.store.storage import Directory, Storage
from jaxlens.sweep import resolve, step
from jaxlens.tally import bins, definitions, regressors, sampling, update


@dataclass(frozen=True, eq=False)
class Job:
    """Everything that a sweep needs.

    Attributes:
        resolved: The configuration.
        out: Run directory.
        model: On the default device.
        unembed: Decoder and head.
        tiles: The unembedding in tiles; None for the reference lens.
        ingested: Token file.
        plan: Windows, steps and shards.
        words: See ``tokenizer.word_tables``.
        step_config: What the step is compiled for.
        spec: What decides the result.
        spec_bytes: The same, canonical JSON.
        spec_hash: Its sha256.
        shared_counts: Counts by which rarity is defined, where they are not those of the corpus.
        type_means: Means of token types, where the tallies need them.
        programs: Folder of compiled programs, see ``compilation_cache.enable``.
        mirror: What ``out`` is, if the run is in an object store.
    """

    resolved: resolve.Resolved
    out: Path
    model: loading.Model
    unembed: types.Unembed
    tiles: unembedding.TiledUnembedding | None
    ingested: token_folder.Ingested
    plan: plan.Plan
    words: tuple[np.ndarray, np.ndarray]
    step_config: step.StepConfig
    spec: dict[str, Any]
    spec_bytes: bytes
    spec_hash: str
    shared_counts: token_counts_file.Table | None = None
    type_means: type_means_file.Table | None = None
    programs: Path | None = None
    mirror: Storage | None = None

    @property
    def storage(self) -> Storage:
        """Where the run is kept."""
        return self.mirror or Directory(self.out)

    @property
    def config(self) -> RunConfig:
        """The configuration with its defaults filled in."""
        return self.resolved.config

    @property
    def stored_spec(self) -> layout.Spec:
        """The spec as the store reads it."""
        return layout.Spec(self.spec, self.spec_hash, self.plan.n_shards)

    @property
    def token_counts(self) -> Int[np.ndarray, "fold=2 vocab"]:
        """The counts by which rarity is defined."""
        if self.shared_counts is not None:
            return self.shared_counts.counts
        return self.ingested.index.token_counts

    def with_section(self, name: str, section: dict[str, Any]) -> Job:
        """The job with one more section in its spec, by whose hash a run without name is called."""
        document = self.spec | {name: section}
        spec_bytes = run_config.canonical(document)
        spec_hash = run_config.spec_hash(spec_bytes)
        named = self.config.out is not None
        return dataclasses.replace(
            self,
            out=self.out if named else self.out.with_name(spec_hash[:8]),
            spec=document,
            spec_bytes=spec_bytes,
            spec_hash=spec_hash,
        )

    def batch(
        self, number: int, tokens: token_file.TokenFile
    ) -> tuple[types.Step, dict[str, np.ndarray]]:
        """A step's input, and the token columns of its rows."""
        return step_inputs.batch(self.plan, number, tokens, self.words, self.config.seed)

    def lookup(self) -> update.Tables:
        """Tables of the tallies."""
        index = self.ingested.index
        studied = self.config.store.tallies in definitions.STUDY_EDITIONS
        counts = self.token_counts if studied else None
        means = None if self.type_means is None else self.type_means.means
        return update.tables(index.vocab_size, counts, means)

    def tally_columns(self, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Token columns that the tallies need, padded to the capacity of a step."""
        if self.config.store.tallies not in definitions.STUDY_EDITIONS:
            return {}
        index, document = self.ingested.index, columns["document"]
        digest = index.document_hash[document]
        needed = {
            name: columns[name].astype(np.int32) for name in schema.COLUMNS if name != "token"
        }
        needed["group"] = bins.group_of(digest)
        needed["key"] = sampling.key_of(digest, columns["offset"])
        size = np.diff(index.document_start)[document]
        needed["room"] = regressors.room(
            size, columns["offset"], columns["position"], self.plan.length
        )
        padding = self.plan.capacity - len(digest)
        return {name: np.pad(column, (0, padding)) for name, column in needed.items()}

    def tally_shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes and types of `tally_columns`."""
        no_rows = {name: np.zeros(0, np.int64) for name in schema.COLUMNS}
        columns = self.tally_columns(no_rows | {"document": np.zeros(0, np.uint32)})
        return {
            name: jax.ShapeDtypeStruct(column.shape, column.dtype)
            for name, column in columns.items()
        }
