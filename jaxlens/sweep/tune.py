"""Which tile and block are fastest here: measured once, kept for later runs of the same shape.

Neither changes what a run means, but both change its last bits. They are therefore chosen once,
when a run begins, and stand in its spec.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlens import config as configs
from jaxlens import errors, types
from jaxlens.files import contained, publish
from jaxlens.lens import numerics
from jaxlens.sweep import devices, resolve
from jaxlens.sweep import step as steps

TILES, TILES_THERE = (256, 512, 1024, 2048), (1024, 2048, 4096, 8192, 16384)
"""Columns that are tried, on CPUs and on accelerators."""

GAIN = 0.03
"""Share of its time that a choice must save: below it the machine's noise would decide."""

_TOKENS, _TOKENS_THERE = 512, 65_536
_ROUNDS = 4
_FILE = "tuned.json"
_FILE_BYTES = 1 << 20

Choice = tuple[int, int]
"""Tile and block."""

logger = logging.getLogger("jaxlens")


def tune(
    config: configs.RunConfig,
    architecture: types.Architecture,
    params: types.Params,
    cached: Path | None,
) -> configs.RunConfig:
    """The configuration with the fastest tile and block of those that are not given.

    Args:
        config: From ``config.load``, of a run that has not begun.
        architecture: Of the model.
        params: Its parameters, on a device.
        cached: What ``cache.folder`` returned.

    Raises:
        ConfigError: See `settle.settle`.
    """
    settled = resolve.settle(config, architecture)
    key = json.dumps(_key(settled, config.lens, architecture), sort_keys=True)
    known = _read(cached)
    if key in known:
        best = known[key]
    else:
        logger.info("trying tiles and blocks")
        best = _fastest(config, settled, architecture, params)
        logger.info("tile %d, block %d", *best)
        _write(cached, known | {key: best})
    lens = dataclasses.replace(config.lens, tile=best[0], block=best[1])
    return dataclasses.replace(config, lens=lens)


def _key(
    settled: configs.RunConfig, asked: configs.LensConfig, architecture: types.Architecture
) -> dict[str, Any]:
    """What a choice depends on, beside the machine and the versions, which name the folder."""
    return {
        "layers": architecture.n_layer + 1,
        "embed": architecture.n_embd,
        "vocab": architecture.vocab_size,
        "positions": _positions(settled),
        "devices": settled.devices,
        "precision": settled.lens.precision,
        "quantities": steps.static(settled, architecture).request.quantities,
        "top_k": settled.lens.top_k,
        "tile": asked.tile,
        "block": asked.block,
    }


def _fastest(
    config: configs.RunConfig,
    settled: configs.RunConfig,
    architecture: types.Architecture,
    params: types.Params,
) -> Choice:
    """The best tile at the default block, then the best block at that tile."""
    usual = (settled.lens.tile or 0, settled.lens.block or 0)
    trial = _Trial(settled, architecture, params)
    best = trial.best(usual, _tiles(config, usual, architecture.vocab_size))
    return trial.best(best, _blocks(config, best, _positions(settled)))


def _tiles(config: configs.RunConfig, usual: Choice, vocab_size: int) -> Iterator[Choice]:
    tiles = TILES if jax.default_backend() == "cpu" else TILES_THERE
    if config.lens.tile is None:
        yield from ((tile, usual[1]) for tile in tiles if tile <= vocab_size)


def _blocks(config: configs.RunConfig, usual: Choice, positions: int) -> Iterator[Choice]:
    if config.lens.block is None:
        for block in (usual[1] // 4, usual[1] // 2, usual[1] * 2):
            if 0 < block <= positions:
                yield usual[0], block


def _positions(settled: configs.RunConfig) -> int:
    most = _TOKENS if jax.default_backend() == "cpu" else _TOKENS_THERE
    return min(most, (settled.plan.length or 1) * (settled.plan.step_sequences or 1))


class _Trial:
    """Times the lens on random residuals of the model's own width and vocabulary."""

    def __init__(
        self, settled: configs.RunConfig, architecture: types.Architecture, params: types.Params
    ) -> None:
        positions, embed = _positions(settled), architecture.n_embd
        shape = (architecture.n_layer + 1, 1, positions, embed)
        random = np.random.default_rng(0)
        drawn = random.integers(architecture.vocab_size, size=(1, positions), dtype=np.int32)
        ids, mask = jnp.asarray(drawn), jnp.ones(drawn.shape, bool)
        self._streams = jnp.asarray(random.standard_normal(shape, np.float32))
        self._known = types.References(ids, ids, ids, ids, mask)
        self._unembed = steps.unembed(settled, architecture, params)
        self._settled = settled
        self._architecture = architecture
        # Cores share caches and memory, so all of them work at once, as in the run.
        chosen = devices.choose(settled.devices)
        self._devices = chosen if chosen[0].platform == "cpu" else chosen[:1]
        self._room = devices.room(self._devices)

    def best(self, usual: Choice, others: Iterator[Choice]) -> Choice:
        """The fastest of all, but the usual one where nothing gains enough on it."""
        compiled = {choice: self._compile(choice) for choice in dict.fromkeys([usual, *others])}
        seconds = {choice: [] for choice, run in compiled.items() if run}
        for _ in range(_ROUNDS if len(seconds) > 1 else 0):
            for choice, found in seconds.items():  # in turn, so that noise meets all of them
                began = time.perf_counter()
                jax.block_until_ready([run() for run in compiled[choice]])
                found.append(time.perf_counter() - began)
        if not seconds or usual not in seconds or not seconds[usual]:
            return usual
        fastest = min(seconds, key=lambda choice: min(seconds[choice]))
        gains = min(seconds[fastest]) < (1 - GAIN) * min(seconds[usual])
        return fastest if gains else usual

    def _compile(self, choice: Choice) -> list[Callable[[], Any]]:
        """A call of the lens for each device; none where it would not fit into memory."""
        lens = dataclasses.replace(self._settled.lens, tile=choice[0], block=choice[1])
        config = dataclasses.replace(self._settled, lens=lens)
        static = steps.static(config, self._architecture)
        given = (self._streams, self._unembed, self._known, static.prepare(self._unembed))
        calls: list[Callable[[], Any]] = []
        for device in self._devices:
            here = devices.place(given, device)
            with numerics.matmul_precision(lens.precision):
                run = jax.jit(static.read).lower(*here).compile()
            if self._room is not None and steps.scratch_bytes(run) > self._room:
                return []
            jax.block_until_ready(run(*here))
            calls.append(functools.partial(run, *here))
        return calls


def _read(cached: Path | None) -> dict[str, Choice]:
    """Choices of earlier runs; whatever is damaged is measured again."""
    if cached is None:
        return {}
    try:
        found = json.loads(contained.read(cached / _FILE, _FILE_BYTES))
        choices = {str(key): (int(tile), int(block)) for key, (tile, block) in found.items()}
    except (ValueError, TypeError, AttributeError, errors.JaxlensError):
        return {}
    return {key: choice for key, choice in choices.items() if min(choice) > 0}


def _write(cached: Path | None, choices: dict[str, Choice]) -> None:
    if cached is None:
        return
    try:
        publish.publish(cached / _FILE, json.dumps(choices, sort_keys=True).encode())
    except errors.JaxlensError as error:
        logger.info("the choice is not kept: %s", error)
