"""The stored rows of a run as plain arrays, and what the study's definitions say of each row.

Nothing here or in the modules beside it comes from ``jaxlens.tally`` or ``jaxlens.study``: a run is
read by `jaxlens.open_run`, and every number follows from the text of the documentation.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import h5py
import numpy as np

import jaxlens

PIECES = ("whole word", "first piece", "middle piece", "last piece")
RARITIES = 16
"""Bins of rarity, 1 nat wide; the last holds what is rarer."""

FIELDS = ("key", "document", "offset")
"""Fields with which each line of a stored sample of rows begins."""

REFERENCES = ("input", "next", "final", "foreign", "copy")


def fixed(x):
    """Rounded to a multiple of 2**-16, as a value is before it is counted in a bin."""
    return np.rint(np.asarray(x, np.float64) * 65536) / 65536


def rarity_of(counts):
    """``-ln((c + 1/2) / (N + V/2))`` of counts ``[..., vocab]``."""
    counts = np.asarray(counts, np.float64)
    return -np.log((counts + 0.5) / (counts.sum(-1, keepdims=True) + counts.shape[-1] / 2))


def bin_of(rarity):
    return np.clip(np.floor(fixed(rarity)), 0, RARITIES - 1).astype(int)


def rarity_label(i):
    last = i == RARITIES - 1
    return f"rarity {i} nat or more" if last else f"rarity {i} to {i + 1} nat"


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows that count: all but the first position of each context.

    Attributes:
        values: Columns, ``[row]`` or ``[row, layer]``; ids are -1 and ranks 0 where there is none.
        counts: Occurrences of each token in the documents of each fold.
        document_size: Tokens of each document.
        length: Longest context.
        width: Of the residual stream.
        kind: ``none``, or of which null the run is.
        samples: The stored samples of copies and of controls, `FIELDS` by name.
        document_hashes: Of the text of each document.
        mean_stream: Log-probabilities that the lens makes of the mean stream, ``[layer, vocab]``.
    """

    values: dict
    counts: np.ndarray
    document_size: np.ndarray
    length: int
    width: int
    kind: str
    samples: dict
    document_hashes: np.ndarray
    mean_stream: np.ndarray

    def __getitem__(self, name):
        return self.values[name]

    @property
    def n_layers(self):
        return self["rank_input"].shape[1]

    @property
    def middle(self):
        return self.n_layers // 2

    @property
    def depths(self):
        return np.arange(self.n_layers) / (self.n_layers - 1)

    @property
    def vocab(self):
        return self.counts.shape[1]

    @property
    def ln_vocab(self):
        return math.log(self.vocab)

    @property
    def document(self):
        return self["document"]

    @property
    def n_documents(self):
        return len(self.document_size)

    def ln(self, reference):
        """Ln of the rank of a reference; NaN where there is none."""
        return self._ln[reference]

    @functools.cached_property
    def _ln(self):
        ranks = {name: self[f"rank_{name}"].astype(np.float64) for name in REFERENCES}
        return {n: np.log(np.where(r > 0, r, np.nan)) for n, r in ranks.items()}

    def measure(self, name):
        """A measure at each layer: of a rank its logarithm."""
        return self.ln(name[5:]) if name.startswith("rank_") else self[name].astype(np.float64)

    @functools.cached_property
    def rarity(self):
        """Rarity of each reference by the counts of the other fold than that of its document."""
        by_fold = rarity_of(self.counts[::-1])
        foreign = np.minimum(self["foreign_fold"], 1)
        return {
            "input": by_fold[self["fold"], self["token"]],
            "next": by_fold[self["fold"], self["next_token"]],
            "foreign": by_fold[foreign, self["foreign_token"]],
        }

    @functools.cached_property
    def rarity_bin(self):
        return {name: bin_of(rarity) for name, rarity in self.rarity.items()}

    @functools.cached_property
    def types_by_bin(self):
        """Token types that occur, by bin of rarity; in both bins where the folds disagree."""
        used = np.unique(self["token"])
        bins = bin_of(rarity_of(self.counts[::-1]))[:, used]
        return np.array([(bins == i).any(0).sum() for i in range(RARITIES)])


def read(folder):
    """The rows of a run that count."""
    with jaxlens.open_run(folder) as run:
        counted = np.asarray(run["position"][:]) > 0
        counted &= np.isfinite(run["surprisal"][:])
        values = {name: np.asarray(run[name][:])[counted] for name in run.names}
        for name, column in values.items():
            if np.issubdtype(column.dtype, np.integer):
                values[name] = column.astype(np.int64)
        samples = {name: _sample(run.tally[name]) for name in ("copies", "controls")}
        spec = run.spec
        return Rows(
            values,
            np.asarray(run.corpus.token_counts),
            np.diff(run.corpus.documents.start),
            int(spec["plan"]["length"]),
            int(spec["model"]["architecture"]["n_embd"]),
            (spec["null"] or {}).get("kind", "none"),
            samples,
            np.asarray(run.corpus.documents.hash),
            _mean_stream(folder),
        )


def _mean_stream(folder):
    with h5py.File(folder / "probe" / "mean_stream.h5") as file:
        return np.asarray(file["log_p"][...], np.float64)


def _sample(lines):
    """A sample of rows by its first fields; lines with the greatest key hold none."""
    held = lines[lines[:, 0] != np.iinfo(np.int64).max]
    return {field: held[:, i] for i, field in enumerate(FIELDS)}
