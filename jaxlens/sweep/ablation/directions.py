"""Directions of the residual stream that tell token types apart."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int8

from jaxlens import config
from jaxlens.corpus.synthetic import draws
from jaxlens.store import probe_file
from jaxlens.tally import bins, hashing

RANK = 2
"""Directions of a type in a probe: its discriminant vector, and its class mean."""

_FLAT = 1e-6
"""Of the length of a direction: what is left of it beside the first must be longer."""

_BLOCK = 1024
"""Tokens whose signs are drawn at once."""


@dataclass(frozen=True, eq=False)
class Directions:
    """What a linear probe reads a token by.

    Attributes:
        token: Id of each type, in rising order.
        basis: Of each layer and type, orthonormal rows that span the discriminant vector
            ``S^-1 (mu_k - mu)`` and the mean of the class ``mu_k - mu``.
        sha256: Hash that identifies them in the spec of an ablation.
    """

    token: Int[np.ndarray, " type"]
    basis: Float32[np.ndarray, "layer type direction=2 embed"]
    sha256: str

    @classmethod
    def of_probe(
        cls,
        token: Int[np.ndarray, " type"],
        vectors: Iterable[Float[np.ndarray, "type direction=2 embed"]],
        sha256: str,
    ) -> Directions:
        """From the vectors of a probe, neither orthogonal nor of unit length.

        Args:
            token: Id of each type, in rising order.
            vectors: Of each layer in turn, the discriminant vector and the mean of each type.
            sha256: Hash that identifies them.
        """
        basis = [orthonormal(layer).astype(np.float32) for layer in vectors]
        return cls(np.asarray(token), np.stack(basis), sha256)

    @classmethod
    def of_run(cls, run_dir: str | Path) -> Directions | None:
        """The directions of a run's probe of the own token; None where it has no finished probe.

        Raises:
            DataError: The probe is damaged, or of another run.
        """
        probe = probe_file.read_of_run(run_dir)
        if probe is None:
            return None
        own = probe.class_count[probe_file.TARGETS.index("own")]
        order = np.argsort(probe.class_token)
        # Of classes with fewer occurrences the probe has no mean.
        order = order[own[order] >= probe_file.MIN_COUNT]
        vectors = (
            np.stack([one.discriminant, one.mean - one.centre[None]], axis=1)[order]
            for one in map(
                functools.partial(probe_file.read_directions, run_dir),
                range(len(probe.layer_names)),
            )
        )
        return cls.of_probe(probe.class_token[order], vectors, _hash(probe))

    def has(self, token: Int[np.ndarray, "*shape"]) -> Bool[np.ndarray, "*shape"]:
        """Whether there are directions of a token."""
        return self.token[self._place(token)] == token

    def of(
        self, layer: int, token: Int[np.ndarray, " n"]
    ) -> Float32[np.ndarray, "n direction=2 embed"]:
        """The basis of each token; zeros where there are no directions."""
        found = self.basis[layer, self._place(token)]
        found[~self.has(token)] = 0
        return found

    def _place(self, token: Int[np.ndarray, "*shape"]) -> Int[np.ndarray, "*shape"]:
        return np.minimum(np.searchsorted(self.token, token), len(self.token) - 1)


def _hash(probe: probe_file.Probe) -> str:
    return config.spec_hash(config.canonical(dict(probe.spec)))


def orthonormal(
    vectors: Float[np.ndarray, "n direction=2 embed"],
) -> Float[np.ndarray, "n direction=2 embed"]:
    """Orthonormal rows of the same span, float64; zeros where the span has fewer."""
    first = unit(vectors[:, 0])
    second = unit(vectors[:, 1])
    for _ in range(2):  # once more, as the first pass leaves a rest of rounding
        second = second - (second * first).sum(-1, keepdims=True) * first
    length = np.linalg.norm(second, axis=-1, keepdims=True)
    return np.stack([first, np.where(length > _FLAT, unit(second), 0.0)], axis=1)


def unit(vectors: Float[np.ndarray, "... embed"]) -> Float[np.ndarray, "... embed"]:
    """Rows of length 1, float64; zeros stay zeros."""
    vectors = np.asarray(vectors, np.float64)
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)


def random_signs(
    vocab_size: int, embed: int, seed: int
) -> Int8[np.ndarray, "vocab direction=2 embed"]:
    """Two random vectors of signs for each token, a function of the seed and the token.

    Signs are exact on every machine, and have the covariance of a random direction.
    """
    place = np.arange(RANK * embed, dtype=np.uint64)
    signs = np.empty((vocab_size, RANK * embed), np.int8)
    for start in range(0, vocab_size, _BLOCK):
        token = np.arange(start, min(start + _BLOCK, vocab_size), dtype=np.uint64)
        begin = hashing.mix(draws.start(seed) ^ token)
        bits = hashing.mix(begin[:, None] + place[None]) >> np.uint64(63)
        signs[start : start + len(token)] = 2 * bits.astype(np.int8) - 1
    return signs.reshape(vocab_size, RANK, embed)


def foreign_tokens(
    rarity: Float[np.ndarray, " vocab"], usable: Bool[np.ndarray, " vocab"], seed: int
) -> Int[np.ndarray, " vocab"]:
    """For each token another one of its bin of rarity, drawn by hash; -1 where there is none.

    Args:
        rarity: Of each token, in nats.
        usable: Tokens that may be drawn, and that get one.
        seed: Any integer; its lowest 64 bits count.
    """
    foreign = np.full(len(rarity), -1, np.int64)
    number = bins.frequency_bin(rarity)
    for b in np.unique(number[usable]):
        members = np.flatnonzero(usable & (number == b))
        if len(members) < 2:
            continue
        keys = hashing.mix(draws.start(seed) ^ members.astype(np.uint64))
        # One of the others, by the distance from the own place.
        step = 1 + (keys % np.uint64(len(members) - 1)).astype(np.int64)
        foreign[members] = members[(np.arange(len(members)) + step) % len(members)]
    return foreign
