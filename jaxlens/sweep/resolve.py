"""Defaults that depend on the model, and refusal of what model or memory cannot hold."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax

from jaxlens import config as configs
from jaxlens import errors, schema, types
from jaxlens.corpus import plan
from jaxlens.lens import options, unembedding
from jaxlens.models import loading
from jaxlens.store import shard_contents
from jaxlens.tally import definitions

MAX_SHARD_BYTES = 256 * 2**20
"""Most bytes of rows a shard: it is built in memory, and two more wait to be written."""

MAX_STEP_TOKENS = 2**24
"""Most positions a step; beyond any device, and below what would exhaust the host."""

_POSITIONS, _POSITIONS_THERE = 2_048, 65_536
"""Positions of a step: enough for a core, and for an accelerator (there not measured yet)."""

_SHARD_TOKENS = 65_536
_PACKAGED_SHARD_TOKENS = 4_096


def settle(
    config: configs.RunConfig,
    architecture: types.Architecture,
    begun: Mapping[str, Any] | None = None,
) -> configs.RunConfig:
    """The configuration with every default that depends on the model filled in.

    Bits depend on the shape of steps, tiles and blocks, whose defaults depend on the backend: a
    run that has begun keeps those it began with, wherever it goes on.

    Args:
        config: From ``config.load``.
        architecture: Of the model.
        begun: The spec of the run, if it has begun.

    Raises:
        ConfigError: A length, overlap, step or shard that the model or memory cannot hold.
    """
    length = config.plan.length or architecture.n_positions
    if length > architecture.n_positions:
        raise errors.ConfigError(
            f"plan.length is {length}, the model has {architecture.n_positions} positions",
            f"give at most {architecture.n_positions}",
        )
    # A shard of the study's tallies takes tens of MB before compression, however few its tokens.
    small = config.model.path == loading.PACKAGED and config.store.tallies == "basic"
    shard_tokens = config.store.shard_tokens or (_PACKAGED_SHARD_TOKENS if small else _SHARD_TOKENS)
    sequences = config.plan.step_sequences or _sequences_of(begun) or default_sequences(length)
    plan.check_shape(length, config.plan.overlap, sequences, shard_tokens)
    lens = _as_begun(config.lens, begun or {}, architecture.n_layer + 1)
    if lens.implementation == "tiled":
        vocab_size, capacity = architecture.vocab_size, length * sequences
        lens = dataclasses.replace(
            lens,
            tile=min(lens.tile or unembedding.choose_tile(vocab_size), vocab_size),
            block=min(lens.block or unembedding.choose_block(vocab_size, capacity), capacity),
        )
    settled = dataclasses.replace(
        config,
        plan=dataclasses.replace(config.plan, length=length, step_sequences=sequences),
        lens=dataclasses.replace(lens, top_k=min(lens.top_k, architecture.vocab_size)),
        store=dataclasses.replace(config.store, shard_tokens=shard_tokens),
    )
    _require_temperatures(settled.lens.temperatures, architecture.n_layer + 1)
    _require_small_shards(settled, architecture)
    return settled


def default_sequences(length: int) -> int:
    """Sequences that fill a device of this backend."""
    positions = _POSITIONS if jax.default_backend() == "cpu" else _POSITIONS_THERE
    return max(1, positions // length)


def has_shape(begun: Mapping[str, Any] | None) -> bool:
    """Whether a run has begun that says how large its steps are."""
    return _sequences_of(begun) is not None


def _sequences_of(begun: Mapping[str, Any] | None) -> int | None:
    there = (begun or {}).get("plan")
    found = there.get("step_sequences") if isinstance(there, dict) else None
    return found if isinstance(found, int) and 0 < found <= MAX_STEP_TOKENS else None


def _as_begun(
    lens: configs.LensConfig, begun: Mapping[str, Any], n_layers: int
) -> configs.LensConfig:
    """Tile, block and temperatures of the run that has begun, where none are asked for."""
    there = begun.get("lens")
    if not isinstance(there, dict) or there.get("implementation") != lens.implementation:
        return lens
    kept = {
        name: there[name]
        for name in ("tile", "block")
        if getattr(lens, name) is None and isinstance(there.get(name), int) and there[name] > 0
    }
    found = there.get("temperatures")
    # Of another model's run they are not: the spec will say so, and name the model.
    if lens.temperatures is None and isinstance(found, list) and len(found) == n_layers:
        kept["temperatures"] = tuple(found)
    return dataclasses.replace(lens, **kept)


def rows(config: configs.RunConfig) -> tuple[str, ...]:
    """Columns that a shard stores, in the order of the schema; none where only tallies are kept.

    Raises:
        ConfigError: A quantity that cannot be read.
    """
    for name in config.store.quantities:
        options.check(name)
        if name in schema.REFERENCE_ONLY and config.lens.implementation != "reference":
            raise errors.ConfigError(
                f"only the reference lens counts {name}", "use lens.implementation=reference"
            )
        if name.endswith("_follow"):
            raise errors.ConfigError(f"a sweep follows no tokens, so no {name}", "use read_lens")
    if config.store.rows == "none":
        return ()
    chosen = {*schema.PROFILES[config.store.rows], *config.store.quantities}
    return tuple(name for name in schema.QUANTITIES if name in chosen)


def row_bytes(config: configs.RunConfig, architecture: types.Architecture) -> int:
    """Bytes a row takes on disk, without compression and checksums."""
    profile = config.store.rows
    return schema.row_bytes(
        rows(config),
        profile,
        architecture.vocab_size,
        architecture.n_layer + 1,
        config.lens.top_k,
    )


def _require_temperatures(temperatures: tuple[float, ...] | None, n_layers: int) -> None:
    if temperatures is None:
        return
    ok = all(isinstance(value, (int, float)) and 0 < value < 1e6 for value in temperatures)
    if not ok or len(temperatures) != n_layers or temperatures[-1] != 1.0:
        raise errors.ConfigError(
            f"lens.temperatures are {len(temperatures)} numbers for {n_layers} layers",
            "give one above 0 for each, 1 for the last; or leave them out",
        )


def _require_small_shards(config: configs.RunConfig, architecture: types.Architecture) -> None:
    kept = config.store.tallies
    items = definitions.items(architecture.n_layer + 1, architecture.vocab_size, kept)
    if (tally_bytes := 8 * items) > (most := shard_contents.MAX_TALLY_BYTES[kept]):
        raise errors.ConfigError(
            f"tallies of {architecture.n_layer + 1} layers and {architecture.vocab_size} tokens "
            f"take {tally_bytes / 2**20:.0f} MiB",
            f"a store holds at most {most >> 20} MiB of these; use a smaller model"
            + (", or store.tallies: basic" if kept != "basic" else ""),
        )
    capacity = config.plan.length * config.plan.step_sequences  # type: ignore[operator]
    if capacity > MAX_STEP_TOKENS:
        raise errors.ConfigError(
            f"a step of {capacity} positions",
            f"lower plan.step_sequences: {MAX_STEP_TOKENS} at most",
        )
    tokens = max(capacity, config.store.shard_tokens or 0)
    size = tokens * row_bytes(config, architecture)
    if size > MAX_SHARD_BYTES:
        raise errors.ConfigError(
            f"a shard of {tokens} tokens would hold {size / 2**20:.0f} MiB of rows",
            f"lower store.shard_tokens; a shard holds at most {MAX_SHARD_BYTES >> 20} MiB",
        )
