"""A prompt through the lens: the numbers that every picture of it shows, and nothing else."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, Num

from jaxlens import arguments, errors
from jaxlens.view import printable
from jaxlens.view.prompt import metrics

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
        token_bytes: Bytes of every token that a picture may name.
        readings: Those of ``QUANTITIES`` that were read, by decoder; with followed tokens
            ``FOLLOWED``.
        follow: Tokens that are followed down the layers; -1 for one that is another at each
            position.
        last: Place of the model's own last layer among the layers; None where it was not read.
        start: Position of the first of its tokens in what the model read.
        streams: How many residual streams the model has; 0 where nobody knows.
    """

    model: str
    text: str
    ids: Int[np.ndarray, " position"]
    following: Int[np.ndarray, " position"]
    layers: tuple[str, ...]
    vocab_size: int
    token_bytes: Mapping[int, bytes]
    readings: Mapping[str, Readings]
    follow: tuple[int, ...] = ()
    last: int | None = -1
    start: int = 0
    streams: int = 0

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def decoders(self) -> tuple[str, ...]:
        """Names of the decoders that were read."""
        return tuple(self.readings)

    def name(self, token: int, longest: int = printable.LONGEST) -> str:
        """A token as it can be shown; the number of one without bytes."""
        raw = self.token_bytes.get(int(token), b"")
        return printable.token(raw, longest) if raw else f"<{int(token)}>"

    @property
    def judged(self) -> bool:
        """Whether it is known which tokens the model itself puts first."""
        return self.last is not None and "top_id" in next(iter(self.readings.values()))

    @property
    def right(self) -> Bool[np.ndarray, " position"]:
        """Whether the model's best token is the one that follows; False where nobody knows."""
        if not self.judged:
            return np.zeros(len(self), bool)
        best = next(iter(self.readings.values()))["top_id"][self.last, :, 0]
        return best == self.following

    def views(self) -> dict[str, metrics.Metric]:
        """The metrics that can be made of what was read, by name, as they are offered."""
        known = list(metrics.table(self.vocab_size).values())
        for index, number in enumerate(self.follow):
            name = self.name(number) if number >= 0 else f"followed token {index + 1}"
            known += metrics.followed(name, index, self.vocab_size, len(self.follow) > 1)
        read = set.intersection(*map(set, self.readings.values()))
        return {metric.name: metric for metric in known if metric.quantity in read}

    def view(self, name: str) -> metrics.Metric:
        """One of the `views`.

        Raises:
            ConfigError: There is none of that name, or its quantity was not read.
        """
        views = self.views()
        name = arguments.text(name, "metric", f"one of {', '.join(views)}")
        if name not in views:
            if name.partition(".")[0] in ("rank_follow", "p_follow"):
                last = f", the last of them number {len(self.follow)}" if self.follow else ""
                raise errors.ConfigError(
                    f"no metric {name}: {len(self.follow)} tokens are followed{last}",
                    "follow tokens when you read: follow=[...]",
                )
            quantity = metrics.find(name, self.vocab_size).quantity
            raise errors.ConfigError(
                f"{name} needs {quantity}, which was not read",
                f"read it: quantities=[{quantity!r}]; drawable is {', '.join(views) or 'nothing'}",
            )
        return views[name]

    def part(self, start: int, stop: int | None) -> Prompt:
        """Some of its positions, which were read with all before them.

        Raises:
            ConfigError: There are none there.
        """
        start = arguments.whole(start, "start")
        stop = None if stop is None else arguments.whole(stop, "stop")
        first, last, _ = slice(start, stop).indices(len(self))
        if first >= last:
            raise errors.ConfigError(
                f"no tokens from {start} to {'the end' if stop is None else stop}",
                f"the prompt has {len(self)}; count from 0, or from the end with negative numbers",
            )
        readings = {
            decoder: {name: values[:, first:last] for name, values in reading.items()}
            for decoder, reading in self.readings.items()
        }
        ids, following = self.ids[first:last], self.following[first:last]
        return dataclasses.replace(
            self, ids=ids, following=following, readings=readings, start=self.start + first
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
                for number, raw in sorted(self.token_bytes.items())
            },
        }


def _plain(name: str, values: np.ndarray) -> Any:
    missing = values <= 0 if name.startswith("rank_") else np.isnan(np.asarray(values, float))
    plain = values.astype(object)
    plain[missing] = None
    if np.issubdtype(values.dtype, np.floating):
        # The shortest text that is the same float32.
        plain[~missing] = [float(str(value)) for value in values[~missing]]
    return plain.tolist()
