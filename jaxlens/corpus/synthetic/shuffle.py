"""The shuffled null: the tokens of each document in another order, and nothing else changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Int

from jaxlens.corpus.synthetic import draws


class Shuffler:
    """Writes a token file document by document, each in an order of its own.

    The order depends on the seed, the hash of the document and the number of its tokens. The
    document that has not ended is held in memory, and its order takes 16 bytes a token.

    Args:
        write: Takes bytes.
        seed: Any integer; its lowest 64 bits count.
        fixed: Tokens at the beginning of each document that stay there.
    """

    def __init__(self, write: Callable[[bytes], object], seed: int, fixed: int) -> None:
        self._write = write
        self._seed = seed
        self._fixed = fixed
        self._held: list[np.ndarray] = []
        self._written = 0
        self._documents = 0

    def take(
        self, ids: Int[np.ndarray, " n"], starts: Sequence[int], hashes: Sequence[int]
    ) -> None:
        """Takes the next ids; what is complete is written.

        Args:
            ids: In the type of the file.
            starts: First token of every document so far.
            hashes: Hash of every document so far; the last document may go on.
        """
        self._held.append(ids)
        if len(hashes) > self._documents + 1:
            self._pass_on(starts, hashes, len(hashes) - 1)

    def finish(self, starts: Sequence[int], hashes: Sequence[int]) -> None:
        """Writes what is held; ``starts`` ends in the number of tokens."""
        if len(hashes) > self._documents:
            self._pass_on(starts, hashes, len(hashes))

    def _pass_on(self, starts: Sequence[int], hashes: Sequence[int], stop: int) -> None:
        joined = np.concatenate(self._held)
        for number in range(self._documents, stop):
            first, last = (int(starts[n]) - self._written for n in (number, number + 1))
            document = joined[first + self._fixed : last]
            begin = draws.start(self._seed, int(hashes[number]), len(document))
            document[:] = document[draws.sample(begin, len(document), len(document))]
        done = int(starts[stop]) - self._written
        self._write(joined[:done].tobytes())
        self._held = [joined[done:].copy()]
        self._written += done
        self._documents = stop
