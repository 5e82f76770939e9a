"""The survey before a probe: which steps it takes, and which token types are its classes.

It reads tokens alone, so that the classes are fixed before the model is run once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int32, Int64

from jaxlens import errors
from jaxlens.store.probe_file import MIN_COUNT, TARGETS
from jaxlens.sweep.probe import data
from jaxlens.tally import bins, hashing

_MORE_TEXT = "give more documents: a larger --corpus, or a larger --limit"


@dataclass(frozen=True, eq=False)
class Survey:
    """What a probe learns from and is judged on.

    Attributes:
        training: Numbers of the steps with training positions, in their order.
        held_out: Numbers of the steps with held-out positions, in their order.
        class_token: ``[class]``: token ids, ascending.
        class_count: ``[target, class]``: training occurrences.
        outside: ``[target, rarity, group]``: held-out positions whose target is no candidate.
        counts: Positions and documents, training and held-out.
        class_of: ``[target, vocab]``: class of each token, -1 where it is no candidate.
    """

    training: tuple[int, ...]
    held_out: tuple[int, ...]
    class_token: Int64[np.ndarray, " class"]
    class_count: Int64[np.ndarray, "target class"]
    outside: Int64[np.ndarray, "target rarity group"]
    counts: dict[str, int]
    class_of: Int32[np.ndarray, "target vocab"]

    @property
    def is_candidate(self) -> Bool[np.ndarray, "target class"]:
        """Classes that the probe and the lens choose from, by target."""
        return self.class_count >= MIN_COUNT

    def labels(self, token: Int32[np.ndarray, "target row"]) -> Int32[np.ndarray, "target row"]:
        """The class of each target; -1 where it is absent or no candidate."""
        label = np.take_along_axis(self.class_of, np.maximum(token, 0), axis=1)
        return np.where(token < 0, np.int32(-1), label)


def survey(corpus: data.Corpus, training: int, held_out: int, types: int) -> Survey:
    """Takes steps until there are enough positions, or no more steps.

    Args:
        corpus: Text of the run.
        training: Training positions wanted.
        held_out: Held-out positions wanted.
        types: Classes a bin of rarity, where the vocabulary has more than they hold.

    Raises:
        DataError: The text has no training or no held-out documents, or too few to learn from.
    """
    if corpus.held_out.all() or not corpus.held_out.any():
        raise _no_documents(not corpus.held_out.any())
    vocab_size = corpus.job.ingested.index.vocab_size
    occurrences = np.zeros((len(TARGETS), vocab_size), np.int64)
    steps, n_training, documents = _take(corpus, training, occurrences)
    class_token = _choose(corpus, occurrences, types)
    class_count = occurrences[:, class_token]
    class_of = _class_of(class_token, class_count >= MIN_COUNT, vocab_size)
    outside = np.zeros((len(TARGETS), bins.FREQUENCY_BINS, bins.GROUPS), np.int64)
    judged, n_held_out, n_held_out_documents = _take(corpus, held_out, outside, class_of)
    return Survey(
        training=steps,
        held_out=judged,
        class_token=class_token,
        class_count=class_count,
        outside=outside,
        counts={
            "training_positions": n_training,
            "held_out_positions": n_held_out,
            "training_documents": documents,
            "held_out_documents": n_held_out_documents,
        },
        class_of=class_of,
    )


def _take(
    corpus: data.Corpus,
    wanted: int,
    totals: Int64[np.ndarray, "..."],
    class_of: Int32[np.ndarray, "target vocab"] | None = None,
) -> tuple[tuple[int, ...], int, int]:
    """Steps, positions and documents; adds to the totals.

    Args:
        corpus: Text of the run.
        wanted: Positions.
        totals: Of training documents the occurrences ``[target, vocab]``, of held-out ones the
            positions outside of the candidates.
        class_of: Class of each token, by target; given where held-out documents are taken.
    """
    steps: list[int] = []
    positions, documents = 0, np.zeros(len(corpus.held_out), bool)
    held_out = class_of is not None
    for number in data.step_order(corpus.job.plan.n_steps, corpus.seed).tolist():
        if positions >= wanted:
            break
        _, rows = corpus.rows(number, held_out)
        if not len(rows.slot):
            continue
        steps.append(number)
        positions += len(rows.slot)
        documents[rows.document] = True
        for target, token in enumerate(rows.token):
            if class_of is None:
                totals[target] += np.bincount(token[token >= 0], minlength=totals.shape[1])
                continue
            lost = (token >= 0) & (class_of[target, np.maximum(token, 0)] < 0)
            np.add.at(totals[target], (rows.rarity[target][lost], rows.group[lost]), 1)
    if not steps:
        raise _no_documents(held_out)
    return tuple(steps), positions, int(documents.sum())


def _no_documents(held_out: bool) -> errors.DataError:
    side = "held-out" if held_out else "training"
    return errors.DataError(f"the text has no {side} documents of two tokens or more", _MORE_TEXT)


def _choose(
    corpus: data.Corpus, occurrences: Int64[np.ndarray, "target vocab"], types: int
) -> Int64[np.ndarray, " class"]:
    """The classes: types that occur at least twice, of each bin of rarity at most ``types``.

    All of them count where the bins could hold the vocabulary.

    Raises:
        DataError: There are fewer than two.
    """
    known = np.flatnonzero(occurrences[data.OWN] >= MIN_COUNT)
    if len(known) < 2:
        raise errors.DataError(
            f"{errors.count(len(known), 'token type')} with two training occurrences", _MORE_TEXT
        )
    if occurrences.shape[1] <= types * bins.FREQUENCY_BINS:
        return known
    # Of a type, not of an occurrence: the counts of both folds.
    bin_ = bins.frequency_bin(bins.type_rarity(corpus.job.ingested.index.token_counts)[known])
    seed = np.array([corpus.seed % 2**64], np.uint64)
    key = hashing.mix(hashing.mix(seed) ^ hashing.mix(known.astype(np.uint64)))
    order = np.lexsort((key, bin_))
    ordered = bin_[order]
    place = np.arange(len(order)) - np.searchsorted(ordered, ordered, side="left")
    return np.sort(known[order[place < types]])


def _class_of(
    class_token: Int64[np.ndarray, " class"],
    is_candidate: Bool[np.ndarray, "target class"],
    vocab_size: int,
) -> Int32[np.ndarray, "target vocab"]:
    table = np.full((len(is_candidate), vocab_size), -1, np.int32)
    number = np.arange(len(class_token), dtype=np.int32)
    table[:, class_token] = np.where(is_candidate, number, -1)
    return table
