"""Which positions a probe learns from and is judged on, and the tokens that it reads there.

Documents are training or held out by a hash of the hash of their text, so that equal texts are on
one side. Steps of the run's plan come in an order drawn by hash, and everything else is drawn by
hash too: the data are the same on every host and in every process that resumes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Int32, Int64, Integer, UInt64

from jaxlens import types
from jaxlens.corpus import token_file
from jaxlens.store.probe_file import TARGETS
from jaxlens.sweep.job import Job
from jaxlens.tally import bins, facts, hashing

HELD_OUT = 4
"""One document of so many is held out."""

_SPLIT, _PERMUTED = np.uint64(0x68656C646F7574), np.uint64(0x7065726D757465)
"""Keep these draws apart from each other, and from folds, groups and sampled rows."""

OWN, PREVIOUS, TWO_BACK, PERMUTED = range(len(TARGETS))


def is_held_out(document_hash: UInt64[np.ndarray, " document"]) -> Bool[np.ndarray, " document"]:
    """Whether each document is held out; independent of its fold and of its group."""
    drawn = hashing.mix(document_hash.astype(np.uint64) ^ _SPLIT)
    return drawn % np.uint64(HELD_OUT) == 0


def step_order(n_steps: int, seed: int) -> Int[np.ndarray, " step"]:
    """Numbers of all steps, in the order in which they are taken."""
    return np.argsort(hashing.mix(_word(seed) + np.arange(n_steps, dtype=np.uint64)), kind="stable")


def _word(seed: int) -> UInt64[np.ndarray, " 1"]:
    """The mixed seed, its lowest 64 bits."""
    return hashing.mix(np.array([seed % 2**64], np.uint64))


class Rows(NamedTuple):
    """Positions of a step that count.

    Attributes:
        slot: Flat index ``batch * length + position`` of each.
        token: Id of each target, -1 where it does not exist.
        rarity: Bin of rarity of each target in documents of the other fold; 0 where it is absent.
        group: Group of the document.
        document: Number of the document.
    """

    slot: Int32[np.ndarray, " row"]
    token: Int32[np.ndarray, "target row"]
    rarity: Int32[np.ndarray, "target row"]
    group: Int32[np.ndarray, " row"]
    document: Int64[np.ndarray, " row"]


@dataclass(frozen=True, eq=False)
class Corpus:
    """A run's text as a probe sees it.

    Attributes:
        job: The run.
        tokens: Its open token file.
        seed: Of all draws.
        held_out: ``[document]``: whether it is.
        rarity: ``[fold, vocab]``: bin of rarity of each token, see ``bins.rarity``.
        pool_start: ``[training document]``: first token of each, in the token file.
        pool_end: ``[training document]``: number of training tokens up to the end of each.
    """

    job: Job
    tokens: token_file.TokenFile
    seed: int
    held_out: Bool[np.ndarray, " document"]
    rarity: Int32[np.ndarray, "fold vocab"]
    pool_start: Int64[np.ndarray, " training"]
    pool_end: Int64[np.ndarray, " training"]

    def rows(self, number: int, held_out: bool) -> tuple[types.Step, Rows]:
        """A step's input, and its positions of training or held-out documents.

        The first position of a context is left out. Held-out positions have their own token as the
        target of permuted labels; training positions another training position's.

        Args:
            number: Of the step.
            held_out: Which documents count.
        """
        batch, columns = self.job.batch(number, self.tokens)
        flat = np.asarray(batch.tokens).reshape(-1)
        position, document = columns["position"], columns["document"].astype(np.int64)
        used = (position >= 1) & (self.held_out[document] == held_out)
        slot = np.asarray(batch.order)[: len(position)][used].astype(np.int32)
        position, document = position[used], document[used]
        own, previous = flat[slot], flat[slot - 1]
        two_back = np.where(position >= 2, flat[slot - 2], np.int32(-1))
        permuted = own if held_out else self._permuted(document, columns["offset"][used])
        token = np.stack([own, previous, two_back, permuted]).astype(np.int32)
        rarity = self.rarity[columns["fold"][used], np.maximum(token, 0)]
        hashes = self.job.ingested.index.document_hash[document]
        rarity = np.where(token < 0, np.int32(0), rarity)
        return batch, Rows(slot, token, rarity, bins.group_of(hashes), document)

    def _permuted(
        self, document: Int64[np.ndarray, " row"], offset: Integer[np.ndarray, " row"]
    ) -> Int32[np.ndarray, " row"]:
        """The token of another training position, drawn by the position's document and place."""
        index = self.job.ingested.index
        mixed = hashing.mix(index.document_hash[document] ^ _PERMUTED) + offset.astype(np.uint64)
        total = np.uint64(self.pool_end[-1])
        drawn = (hashing.mix(mixed + _word(self.seed)) % total).astype(np.int64)
        where = self._place(drawn)
        itself = where == index.document_start[document] + offset
        where = np.where(itself, self._place((drawn + 1) % int(total)), where)
        return self.tokens.gather(where).astype(np.int32)

    def _place(self, number: Int64[np.ndarray, " row"]) -> Int64[np.ndarray, " row"]:
        """Index in the token file of each training token."""
        member = np.searchsorted(self.pool_end, number, side="right")
        size_before = np.concatenate([[0], self.pool_end])[member]
        return self.pool_start[member] + number - size_before


def corpus(job: Job, tokens: token_file.TokenFile, seed: int) -> Corpus:
    """The text of a run, its documents split."""
    index = job.ingested.index
    held_out = is_held_out(index.document_hash)
    size = np.diff(index.document_start)[~held_out]
    table = bins.rarity_table(index.token_counts) >> bins.FIXED_POINT_BITS
    return Corpus(
        job=job,
        tokens=tokens,
        seed=seed,
        held_out=held_out,
        rarity=facts.bin_of(table, bins.FREQUENCY_BINS, np),
        pool_start=index.document_start[:-1][~held_out],
        pool_end=np.cumsum(size, dtype=np.int64),
    )
