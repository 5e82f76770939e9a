"""The computation of an ablation: clean and patched log-probabilities of the copied tokens.

A run of the model is a sequence with one arm at one layer. Runs of any sequences, arms and layers
share a batch, and one compiled program of a group's shape serves them all, the clean ones too,
which replace nothing. The layers below a patch are computed again for each run.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxlens import models, types
from jaxlens.lens import decoders, numerics, reference
from jaxlens.models import patches
from jaxlens.sweep import compute, devices
from jaxlens.sweep.ablation.arms import Arms, Replaced
from jaxlens.sweep.ablation.design import Design
from jaxlens.sweep.ablation.sequences import Sequences
from jaxlens.sweep.job import Job

_LOGIT_BYTES = 1 << 27
"""Logits that are held at once."""

_AHEAD = 3
"""Batches that wait on each device."""


class Runs(NamedTuple):
    """Input of the program, one run of the model a line.

    Attributes:
        tokens: Ids.
        source: Positions where the stream is replaced.
        present: Those of them that are.
        basis: Directions there, see ``patches.Replace``.
        complement: See ``patches.Replace``.
        shift: Direction there, see ``patches.Replace``.
        layer: Number of the stream.
        read: Positions whose prediction is read.
        copied: Token whose log-probability is read there.
    """

    tokens: Int[Array, "run position"]
    source: Int[Array, "run target"]
    present: Bool[Array, "run target"]
    basis: Float[Array, "run target direction embed"]
    complement: Bool[Array, " run"]
    shift: Float[Array, "run target embed"]
    layer: Int[Array, " run"]
    read: Int[Array, "run target"]
    copied: Int[Array, "run target"]


class Program(NamedTuple):
    """What the program is compiled for."""

    architecture: types.Architecture
    residuals: str
    precision: str


@dataclass(frozen=True, eq=False)
class Engine:
    """The model on its devices, and the batches that they take.

    Attributes:
        program: What is compiled.
        weights: Parameters, final norm and head, on each device.
        step_tokens: Positions of a batch.
    """

    program: Program
    weights: tuple[tuple[types.Params, types.Unembed], ...]
    step_tokens: int

    def log_probabilities(
        self,
        runs: Sequence[Callable[[], tuple[np.ndarray, ...]]],
        mean: Float[np.ndarray, "layer embed"],
        length: int,
        advance: Callable[[int], None],
    ) -> Float[np.ndarray, "run target"]:
        """Log-probabilities of runs of one shape.

        Args:
            runs: Each makes the fields of one line of `Runs`.
            mean: What takes the place of the stream, of every layer of the model.
            length: Tokens of a run.
            advance: Receives the tokens of each batch that is done.
        """
        size = max(1, min(self.step_tokens // length, len(runs)))
        batches = [runs[i : i + size] for i in range(0, len(runs), size)]
        done = []
        for batch, values in compute.prefetch(
            self._dispatched(batches, size, mean), _AHEAD * len(self.weights)
        ):
            done.append(np.asarray(values)[: len(batch)])
            advance(len(batch) * length)
        return np.concatenate(done).astype(np.float32)

    def _dispatched(
        self,
        batches: Iterable[Sequence[Callable[[], tuple[np.ndarray, ...]]]],
        size: int,
        mean: Any,
    ) -> Iterator[tuple[Sequence[Any], jax.Array]]:
        for number, batch in enumerate(batches):
            made = [run() for run in batch]
            made += made[-1:] * (size - len(made))  # the last batch has the shape of the others
            fields: list[Any] = [np.stack(field) for field in zip(*made, strict=True)]
            params, unembed = self.weights[number % len(self.weights)]
            with numerics.matmul_precision(self.program.precision):
                yield batch, _read(self.program, params, unembed, Runs(*fields), mean)


def engine(job: Job) -> Engine:
    """Puts the model of a job on its devices.

    Raises:
        ConfigError: There are fewer devices than were asked for.
    """
    head = models.unembed(job.model.params, job.model.config)
    config = job.step_config
    return Engine(
        Program(job.model.config, config.residuals, config.request.precision),
        tuple(
            devices.put((job.model.params, head), device)
            for device in devices.choose(job.config.devices)
        ),
        job.resolved.step_tokens,
    )


@functools.partial(jax.jit, static_argnums=0)
def _read(
    program: Program,
    params: types.Params,
    unembed: types.Unembed,
    runs: Runs,
    mean: Float[Array, "layer embed"],
) -> Float[Array, "run target"]:
    """Log-probabilities of the copied tokens at the last layer; logits at those positions alone."""

    def last(run: Runs) -> Float[Array, "target embed"]:
        length, embed = run.tokens.shape[0], run.basis.shape[-1]
        mask = jnp.zeros(length, bool).at[run.source].set(run.present)
        basis = jnp.zeros((length, run.basis.shape[1], embed)).at[run.source].set(run.basis)
        shift = jnp.zeros((length, embed)).at[run.source].set(run.shift)
        patch = patches.Replace(
            run.layer, mask[None], mean[run.layer], basis[None], run.complement, shift[None]
        )
        streams = models.residuals(
            params, program.architecture, run.tokens[None], dtype=program.residuals, patch=patch
        )
        return streams[-1, 0, run.read]

    def log_probability(line: tuple[jax.Array, jax.Array]) -> Float[Array, " target"]:
        stream, token = line
        normed = decoders.normalise(stream[None], unembed)[0]
        log_p = numerics.log_softmax(reference.logits(normed, unembed, program.precision))
        return jnp.take_along_axis(log_p, token[:, None], -1)[:, 0]

    streams = jax.vmap(last)(runs)
    row = 4 * runs.read.shape[1] * unembed.weight.shape[0]
    lines = max(1, min(len(runs.tokens), _LOGIT_BYTES // row))
    return jax.lax.map(log_probability, (streams, runs.copied), batch_size=lines)


def part(
    engine: Engine,
    sequences: Sequences,
    made: Design,
    mean: Float[np.ndarray, "layer embed"],
    advance: Callable[[int], None],
) -> dict[str, np.ndarray]:
    """Losses of some sequences, with all arms at all layers.

    Args:
        engine: The model.
        sequences: Of one group.
        made: Arms, their directions, and layers.
        mean: What takes the place of the stream, of every layer of the model.
        advance: Receives the tokens of each batch that is done.

    Returns:
        ``loss``, ``n_targets``, ``clean`` and ``earlier``, see ``ablation_file``.
    """
    n, arms = len(sequences), made.arms
    runs = [
        functools.partial(_clean, sequences, i, at, arms)
        for at in (sequences.target, sequences.earlier)
        for i in range(n)
    ]
    runs += [
        functools.partial(_patched, sequences, i, arms, name, layer)
        for name in made.names
        for layer in made.layers
        for i in range(n)
    ]
    length = sequences.tokens.shape[1]
    values = engine.log_probabilities(runs, mean, length, advance).astype(np.float64)
    clean, earlier = values[:n], values[n : 2 * n]
    patched = values[2 * n :].reshape(len(made.names), len(made.layers), *clean.shape)
    ids = np.take_along_axis(sequences.tokens, sequences.source, 1)
    # Whether an arm is defined depends on the token, not on the layer.
    present = np.array(
        [[arms.replaced(name, 0, line).present for line in ids] for name in made.names]
    )
    loss = _mean_over_targets(clean - patched, present[:, None])
    return {
        "loss": loss.transpose(2, 0, 1).astype(np.float32),
        "n_targets": present.sum(-1).T.astype(np.int32),
        "clean": _mean_over_targets(clean[None], present).T.astype(np.float32),
        "earlier": _mean_over_targets(earlier[None], present).T.astype(np.float32),
    }


def _mean_over_targets(values: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Mean along the last axis of those that are present; NaN where none is."""
    count = present.sum(-1)
    total = np.where(present, values, 0.0).sum(-1)
    none = np.full(total.shape, np.nan)
    return np.divide(total, count, out=none, where=np.broadcast_to(count, total.shape) > 0)


def _clean(sequences: Sequences, i: int, at: np.ndarray, arms: Arms) -> tuple[np.ndarray, ...]:
    ids = sequences.tokens[i, sequences.source[i]]
    nothing = arms.replaced("whole", 0, ids)._replace(present=np.zeros(len(ids), bool))
    return _line(sequences, i, at, nothing, 0)


def _patched(
    sequences: Sequences, i: int, arms: Arms, name: str, layer: int
) -> tuple[np.ndarray, ...]:
    replaced = arms.replaced(name, layer, sequences.tokens[i, sequences.source[i]])
    return _line(sequences, i, sequences.target, replaced, layer)


def _line(
    sequences: Sequences,
    i: int,
    at: np.ndarray,
    replaced: Replaced,
    layer: int,
) -> tuple[np.ndarray, ...]:
    basis, present, complement, shift = replaced
    return (
        sequences.tokens[i].astype(np.int32),
        sequences.source[i].astype(np.int32),
        present,
        basis,
        np.asarray(complement),
        np.zeros((len(basis), basis.shape[-1]), np.float32) if shift is None else shift,
        np.asarray(layer, np.int32),
        at[i].astype(np.int32),
        sequences.copied[i].astype(np.int32),
    )
