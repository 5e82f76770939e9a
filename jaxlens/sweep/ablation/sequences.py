"""What an ablation runs: sequences with the places that are replaced and the places that are read.

All sequences of a group have one length and one number of targets, so that one compiled program
serves them. What a sequence holds depends on the corpus and the seed, never on a batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int


@dataclass(frozen=True, eq=False)
class Sequences:
    """Sequences of one length.

    A target is a token that is copied. It is read at the position before its copy, and once more
    before its earlier occurrence, which is its source.

    Attributes:
        tokens: Ids, padded with 0 on the right.
        target: Position whose prediction the copy is.
        earlier: Position whose prediction the earlier occurrence is.
        source: Position of the earlier occurrence, where the stream is replaced.
        copied: Id of the token that is copied.
        rarity: Bin of rarity of the copied tokens, see ``bins``; a sequence has one.
        lag: Tokens between a source and its copy.
        cluster: What is drawn independently: a sequence of blocks, or a document of the corpus.
    """

    tokens: Int[np.ndarray, "sequence position"]
    target: Int[np.ndarray, "sequence target"]
    earlier: Int[np.ndarray, "sequence target"]
    source: Int[np.ndarray, "sequence target"]
    copied: Int[np.ndarray, "sequence target"]
    rarity: Int[np.ndarray, " sequence"]
    lag: Int[np.ndarray, " sequence"]
    cluster: Int[np.ndarray, " sequence"]

    def __len__(self) -> int:
        return len(self.tokens)

    def part(self, which: slice | np.ndarray) -> Sequences:
        """Some of the sequences."""
        return Sequences(*(value[which] for value in vars(self).values()))


@dataclass(frozen=True, eq=False)
class Material:
    """The sequences of one kind, and what was left out of it.

    Attributes:
        groups: By length.
        left_out: Counts of what could not be used, by reason.
    """

    groups: tuple[Sequences, ...]
    left_out: dict[str, int]
