"""Arms of an ablation: what of the stream is replaced by its mean at the source of a copy."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Int8

from jaxlens import arguments, errors
from jaxlens.store import ablation_file
from jaxlens.sweep.ablation import directions


class Replaced(NamedTuple):
    """What an arm replaces at some sources.

    Attributes:
        basis: Orthonormal rows, or zeros.
        present: Sources where the arm is defined.
        complement: Whether everything but the span is replaced.
        shift: Unit direction along which the stream is moved instead, as far as the replacement
            would move it; None to replace.
    """

    basis: Float[np.ndarray, "source direction embed"]
    present: Bool[np.ndarray, " source"]
    complement: bool
    shift: Float[np.ndarray, "source embed"] | None = None


@dataclass(frozen=True, eq=False)
class Arms:
    """The directions of all arms.

    Attributes:
        embedding: Centred embeddings of unit length.
        foreign: Another token of the same bin of rarity, -1 where there is none.
        seed: Of the random directions.
        probe: Directions of the probe; None without one.
        foreign_probe: Another token of the same bin of rarity that the probe has directions of, -1
            where there is none; None without a probe.
    """

    embedding: Float[np.ndarray, "vocab embed"]
    foreign: Int[np.ndarray, " vocab"]
    seed: int
    probe: directions.Directions | None = None
    foreign_probe: Int[np.ndarray, " vocab"] | None = None

    @property
    def rank(self) -> int:
        """Rows of a basis, the same for all arms."""
        return directions.RANK if self.probe is not None else 1

    def replaced(self, arm: str, layer: int, token: Int[np.ndarray, " source"]) -> Replaced:
        """What an arm replaces at sources of given tokens.

        Args:
            arm: One of ``ablation_file.ARMS``.
            layer: Number of the stream.
            token: Token at each source.
        """
        every = np.ones(len(token), bool)
        if arm == "whole":
            return Replaced(self._padded(np.zeros((len(token), 0, self._embed))), every, True)
        if arm == "rest":
            own = self.replaced("embedding" if self.probe is None else "probe", layer, token)
            return own._replace(complement=True)
        if arm == "foreign":
            other = self.foreign[token]
            rows = self.embedding[np.maximum(other, 0)][:, None]
            return Replaced(self._padded(rows), other >= 0, False)
        if arm == "embedding":
            return Replaced(self._padded(self.embedding[token][:, None]), every, False)
        if arm == "random":
            return Replaced(self._padded(self._random(token)[:, None]), every, False)
        return self._of_probe(arm, layer, token)

    def _of_probe(self, arm: str, layer: int, token: Int[np.ndarray, " source"]) -> Replaced:
        """The arms that exist where a probe has left directions."""
        assert self.probe is not None, arm
        # Where the probe has no directions, what it is compared with has none either.
        known = self.probe.has(token)
        if arm == "random_plane":
            plane = directions.orthonormal(self._signs[token])
            return Replaced(self._padded(plane), known, False)
        if arm == "foreign_probe":
            assert self.foreign_probe is not None
            other = self.foreign_probe[token]
            known = known & (other >= 0)
            return Replaced(self.probe.of(layer, np.maximum(other, 0)), known, False)
        shift = self._random(token) if arm == "random_shift" else None
        return Replaced(self.probe.of(layer, token), known, False, shift)

    def _random(self, token: Int[np.ndarray, " source"]) -> Float[np.ndarray, "source embed"]:
        """A random unit direction of each token."""
        return self._signs[token, 0] / np.float32(np.sqrt(self._embed))

    @functools.cached_property
    def _signs(self) -> Int8[np.ndarray, "vocab direction=2 embed"]:
        vocab_size, embed = self.embedding.shape
        return directions.random_signs(vocab_size, embed, self.seed)

    @property
    def _embed(self) -> int:
        return self.embedding.shape[1]

    def _padded(self, rows: np.ndarray) -> Float[np.ndarray, "source direction embed"]:
        basis = np.zeros((len(rows), self.rank, self._embed), np.float32)
        basis[:, : rows.shape[1]] = rows
        return basis


def choose(wanted: Sequence[str] | None, probe: bool) -> tuple[str, ...]:
    """The arms to run, in their order; all that there are by default.

    Args:
        wanted: Names; None for all.
        probe: Whether there are directions of a probe.

    Raises:
        ConfigError: A name is unknown, or needs directions that there are not.
    """
    there = [arm for arm in ablation_file.ARMS if probe or arm not in ablation_file.OF_PROBE]
    if wanted is None:
        return tuple(there)
    for name in wanted:
        arguments.one_of(name, "arm", ablation_file.ARMS)
        if name not in there:
            raise errors.ConfigError(
                f"the arm {name} needs the directions of a probe, which are not there",
                "make them first: jaxlens probe RUN; or leave the arm out",
            )
    return tuple(arm for arm in there if arm in wanted)


def centred(embedding: Float[np.ndarray, "vocab embed"]) -> Float[np.ndarray, "vocab embed"]:
    """Embeddings without what all of them share, of unit length, float32."""
    rows = np.asarray(embedding, np.float64)
    return directions.unit(rows - rows.mean(0)).astype(np.float32)
