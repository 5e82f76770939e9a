"""A prompt through the lens: the numbers that every picture of it shows, and nothing else."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, Num

from jaxlens import errors
from jaxlens.view import visible

Readings = Mapping[str, Num[np.ndarray, "layer position ..."]]

QUANTITIES = (
    *("rank_input", "rank_next", "rank_final", "logp_input", "logp_next", "logp_final"),
    *("kl_final", "kl_to_final", "kl_input", "entropy", "top_id", "top_logp"),
)
"""Fields of a readout that pictures are made of."""

FOLLOWED = ("rank_follow", "logp_follow")
"""Those of followed tokens."""


@dataclass(frozen=True, eq=False)
class Prompt:
    """One prompt.

    Attributes:
        model: Name of the model.
        text: What was typed.
        ids: Token at each position.
        following: The token after each, -1 where the prompt ends.
        layers: Names of the residual streams.
        vocab_size: Tokens of the vocabulary.
        spelled: Bytes of every token that a picture may name.
        readings: ``QUANTITIES`` by decoder, and with followed tokens ``FOLLOWED``.
        follow: Tokens that are followed down the layers.
        start: Position of the first of its tokens in what the model read.
    """

    model: str
    text: str
    ids: Int[np.ndarray, " position"]
    following: Int[np.ndarray, " position"]
    layers: tuple[str, ...]
    vocab_size: int
    spelled: Mapping[int, bytes]
    readings: Mapping[str, Readings]
    follow: tuple[int, ...] = ()
    start: int = 0

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def decoders(self) -> tuple[str, ...]:
        """Names of the decoders that were read."""
        return tuple(self.readings)

    def name(self, token: int, longest: int = visible.LONGEST) -> str:
        """A token as it can be shown; the number of one without bytes."""
        raw = self.spelled.get(int(token), b"")
        return visible.token(raw, longest) if raw else f"<{int(token)}>"

    @property
    def right(self) -> Bool[np.ndarray, " position"]:
        """Whether the model's best token is the one that follows."""
        best = next(iter(self.readings.values()))["top_id"][-1, :, 0]
        return best == self.following

    def part(self, start: int, stop: int | None) -> Prompt:
        """Some of its positions, which were read with all before them.

        Raises:
            ConfigError: There are none there.
        """
        first, last, _ = slice(start, stop).indices(len(self))
        if first >= last:
            raise errors.ConfigError(
                f"no tokens from {start} to {'the end' if stop is None else stop}",
                f"the prompt has {len(self)}; count from 0, or from the end with negative numbers",
            )
        chosen = {
            decoder: {name: values[:, first:last] for name, values in reading.items()}
            for decoder, reading in self.readings.items()
        }
        ids, following = self.ids[first:last], self.following[first:last]
        return dataclasses.replace(
            self, ids=ids, following=following, readings=chosen, start=self.start + first
        )

    def document(self) -> dict[str, Any]:
        r"""Everything as plain values: what ``--json`` prints.

        Ranks that do not exist are null. Tokens stand as ids; ``spelled`` says what they are,
        bytes that are no UTF-8 as ``\xe2``.
        """
        return {
            "model": self.model,
            "text": self.text,
            "tokens": self.ids.tolist(),
            "layers": list(self.layers),
            "follow": list(self.follow),
            "decoders": {
                decoder: {name: _plain(name, values) for name, values in reading.items()}
                for decoder, reading in self.readings.items()
            },
            "spelled": {
                str(number): raw.decode("utf-8", "backslashreplace")
                for number, raw in sorted(self.spelled.items())
            },
        }


def _plain(name: str, values: np.ndarray) -> Any:
    missing = values <= 0 if name.startswith("rank_") else np.isnan(np.asarray(values, float))
    found = values.astype(object)
    found[missing] = None
    if np.issubdtype(values.dtype, np.floating):
        # The shortest text that is the same float32.
        found[~missing] = [float(str(value)) for value in values[~missing]]
    return found.tolist()
