"""One resolution of the configuration: what a run computes, with every default filled in.

Defaults depend on the model, on the backend and on the run that has begun; `resolve` decides them
once. Whatever computes takes a `Resolved`, never a ``config.RunConfig``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxlens import config as run_config
from jaxlens import errors, schema, types
from jaxlens.corpus import plan
from jaxlens.lens import tuning
from jaxlens.models import loading, placement
from jaxlens.store import shard_contents
from jaxlens.sweep import resolve_lens
from jaxlens.tally import definitions

MAX_SHARD_BYTES = 256 * 2**20
"""Bytes of rows in a shard: it is built in memory, and two more wait to be written."""

MAX_STEP_TOKENS = 2**24
"""Positions of a step; beyond any device, and below what would exhaust the host."""

MAX_SHARDS = 4096
"""Shards from which they grow with the corpus: tallies of the study take 9 MiB (GPT-2 small) to
23 MiB (xl) of every shard, however few its tokens, and each is a file to look at."""

MAX_GROWN_TOKENS = 2**24
"""Tokens to which a shard grows: half a minute of a fast device, which a kill may cost."""

_SHARD_TOKENS, _SHARD_TOKENS_PACKAGED = 65_536, 4_096


@dataclasses.dataclass(frozen=True)
class Resolved:
    """A configuration whose values are all known.

    Attributes:
        config: The configuration with its defaults filled in; ``lens.tile`` and ``lens.block``
            are None for the reference lens, ``lens.temperatures`` until they are fitted.
        architecture: Of the model.
        length: Positions of a sequence.
        step_sequences: Sequences of a step.
        shard_tokens: Tokens that a shard holds at most.
        chosen_here: Keys whose values neither the user nor the run that has begun gave, and
            which may change with the device (``plan.step_sequences``, ``lens.block``,
            ``mesh.model``) or with the corpus (``store.shard_tokens``).
        platform: Of the devices that defaults are chosen for.
    """

    config: run_config.RunConfig
    architecture: types.Architecture
    length: int
    step_sequences: int
    shard_tokens: int
    chosen_here: frozenset[str] = frozenset()
    platform: str = "cpu"

    @property
    def model_devices(self) -> int:
        """Devices that share one copy of the model."""
        return self.config.mesh.model or 1

    @property
    def step_tokens(self) -> int:
        """Positions of a step."""
        return self.length * self.step_sequences

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that a shard stores, in the order of the schema; none where no rows are kept."""
        store = self.config.store
        if store.rows == "none":
            return ()
        stored = {*schema.PROFILES[store.rows], *store.quantities}
        return tuple(name for name in schema.QUANTITIES if name in stored)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row on disk, without compression and checksums."""
        sizes = {"layer": self.architecture.n_layer + 1, "k": self.config.lens.top_k}
        profile, vocab_size = self.config.store.rows, self.architecture.vocab_size
        return sum(
            np.dtype(schema.stored_dtype(name, profile, vocab_size)).itemsize
            * math.prod(sizes.get(axis, 1) for axis in schema.QUANTITIES[name].axes)
            for name in self.columns
        )

    def with_step_sequences(self, step_sequences: int) -> Resolved:
        """The same with steps of another size, and the block that belongs to it."""
        plan = dataclasses.replace(self.config.plan, step_sequences=step_sequences)
        lens, step_tokens = self.config.lens, self.length * step_sequences
        if "lens.block" in self.chosen_here:
            vocab_size = self.architecture.vocab_size
            block = tuning.choose_block(vocab_size, step_tokens, self.platform)
            lens = dataclasses.replace(lens, block=min(block, step_tokens))
        elif lens.block is not None:
            lens = dataclasses.replace(lens, block=min(lens.block, step_tokens))
        config = dataclasses.replace(self.config, plan=plan, lens=lens)
        return dataclasses.replace(self, config=config, step_sequences=step_sequences)

    def with_shard_tokens(self, shard_tokens: int) -> Resolved:
        """The same with shards of another size."""
        store = dataclasses.replace(self.config.store, shard_tokens=shard_tokens)
        config = dataclasses.replace(self.config, store=store)
        return dataclasses.replace(self, config=config, shard_tokens=shard_tokens)

    def with_corpus(self, n_tokens: int) -> Resolved:
        """The same with shards that suit a corpus, unless their size was given."""
        if "store.shard_tokens" not in self.chosen_here:
            return self
        shard_tokens = self.shard_tokens
        most = min(MAX_GROWN_TOKENS, MAX_SHARD_BYTES // 2 // max(1, self.row_bytes))
        while n_tokens > MAX_SHARDS * shard_tokens and 2 * shard_tokens <= most:
            shard_tokens *= 2
        return self.with_shard_tokens(shard_tokens)

    def with_bos(self, bos: run_config.Bos) -> Resolved:
        """The same with a chosen ``corpus.bos``.

        Raises:
            ConfigError: Windows have no place for it.
        """
        settings = self.config
        if bos == "window":
            shape = settings.plan.overlap, self.step_sequences, self.shard_tokens
            plan.check_shape(self.length, *shape, before=1)
        corpus = dataclasses.replace(settings.corpus, bos=bos)
        return dataclasses.replace(self, config=dataclasses.replace(settings, corpus=corpus))

    def with_temperatures(self, temperatures: tuple[float, ...]) -> Resolved:
        """The same with fitted temperatures, one a layer."""
        lens = dataclasses.replace(self.config.lens, temperatures=temperatures)
        return dataclasses.replace(self, config=dataclasses.replace(self.config, lens=lens))


def resolve(
    config: run_config.RunConfig,
    architecture: types.Architecture,
    existing_spec: Mapping[str, Any] | None = None,
    platform: str | None = None,
) -> Resolved:
    """Fills in every default.

    Bits depend on the shape of steps, tiles and blocks, whose defaults depend on the backend: a
    run that has begun keeps those it began with, wherever it goes on.

    Args:
        config: From ``config.load``.
        architecture: Of the model.
        existing_spec: The spec of the run, if it has begun.
        platform: Of the devices; that of the default backend by default.

    Raises:
        ConfigError: A length, overlap, step, shard or quantity that the model, the lens or memory
            does not allow.
    """
    spec = existing_spec or {}
    length = config.plan.length or _recorded_length(spec)
    length = length or plan.default_length(architecture.n_positions)
    if length > architecture.n_positions:
        raise errors.ConfigError(
            f"plan.length is {length}, the model has {architecture.n_positions} positions",
            f"give at most {architecture.n_positions}",
        )
    platform = platform or jax.default_backend()
    sequences = config.plan.step_sequences or _recorded_sequences(spec)
    mesh = config.mesh.model or recorded_mesh(spec)
    config = dataclasses.replace(
        config,
        store=dataclasses.replace(config.store, tallies=_edition(config.store, spec)),
        mesh=run_config.MeshConfig(mesh or 1),
    )
    placement.require(architecture, mesh or 1)
    lens = resolve_lens.resolve_lens(config, architecture, spec, platform)
    is_chosen_here = {
        "mesh.model": mesh is None,
        "plan.step_sequences": sequences is None,
        "lens.block": lens.implementation != "reference" and lens.block is None,
        "store.shard_tokens": _grows(config, spec),
    }
    sequences = sequences or default_step_sequences(length, platform)
    shard_tokens = config.store.shard_tokens or _default_shard_tokens(config)
    plan.check_shape(length, config.plan.overlap, sequences, shard_tokens)
    filled = dataclasses.replace(
        config,
        plan=dataclasses.replace(config.plan, length=length),
        lens=lens,
        store=dataclasses.replace(config.store, shard_tokens=shard_tokens),
    )
    chosen_here = frozenset(key for key, is_chosen in is_chosen_here.items() if is_chosen)
    resolved = Resolved(
        filled, architecture, length, sequences, shard_tokens, chosen_here, platform
    )
    resolved = resolved.with_step_sequences(sequences)
    _require_small_shards(resolved)
    return resolved


def default_step_sequences(length: int, platform: str | None = None) -> int:
    """Sequences that fill a device of a platform, that of the default backend by default."""
    return max(1, tuning.of_platform(platform).step_tokens // length)


def _default_shard_tokens(config: run_config.RunConfig) -> int:
    # A shard of the study's tallies takes tens of MB before compression, however few its tokens.
    small = config.model.path == loading.PACKAGED and config.store.tallies == "basic"
    return _SHARD_TOKENS_PACKAGED if small else _SHARD_TOKENS


def _recorded_length(spec: Mapping[str, Any]) -> int | None:
    """Tokens a line of the run that has begun, of which earlier versions had more by default."""
    section = spec.get("plan")
    length = section.get("length") if isinstance(section, dict) else None
    return length if isinstance(length, int) and length > plan.MAX_DEFAULT_LENGTH else None


def _recorded_sequences(spec: Mapping[str, Any]) -> int | None:
    section = spec.get("plan")
    sequences = section.get("step_sequences") if isinstance(section, dict) else None
    valid = isinstance(sequences, int) and 0 < sequences <= MAX_STEP_TOKENS
    return sequences if valid else None


def _grows(config: run_config.RunConfig, spec: Mapping[str, Any]) -> bool:
    """Whether shards grow with the corpus.

    Runs of earlier versions that took the default have small shards, whatever their corpus.
    """
    section = spec.get("store")
    recorded = section.get("shard_tokens") if isinstance(section, dict) else None
    return config.store.shard_tokens is None and recorded != _default_shard_tokens(config)


def recorded_mesh(spec: Mapping[str, Any]) -> int | None:
    """Devices that share the model of the run that has begun; None where none has."""
    section = spec.get("mesh", {"model": 1}) if spec else None
    count = section.get("model") if isinstance(section, dict) else None
    return count if isinstance(count, int) and count > 0 else None


def _edition(store: run_config.StoreConfig, spec: Mapping[str, Any]) -> run_config.Tallies:
    """The newest edition of the study's tallies, or that with which the run began.

    Products within token types are only needed where there are no rows to take them from.
    """
    if store.tallies != "study":
        return store.tallies
    section = spec.get("store")
    began = section.get("tallies") if isinstance(section, dict) else None
    if began in ("study", "study-2", "study-3"):
        return began
    return "study-3" if store.rows == "none" else "study-2"


def _require_small_shards(resolved: Resolved) -> None:
    tallies, architecture = resolved.config.store.tallies, resolved.architecture
    if architecture.vocab_size > (most := shard_contents.MAX_VOCABULARY):
        raise errors.ConfigError(
            f"a vocabulary of {architecture.vocab_size} tokens",
            f"a store holds totals of at most {most} tokens; use another model",
        )
    items = definitions.items(architecture.n_layer + 1, architecture.vocab_size, tallies)
    if (tally_bytes := 8 * items) > (limit := shard_contents.MAX_TALLY_BYTES):
        raise errors.ConfigError(
            f"tallies of {architecture.n_layer + 1} layers and {architecture.vocab_size} tokens "
            f"take {tally_bytes / 2**20:.0f} MiB",
            f"a store holds at most {limit >> 20} MiB of these; use a smaller model"
            + (", or store.tallies: basic" if tallies != "basic" else ""),
        )
    if resolved.step_tokens > MAX_STEP_TOKENS:
        raise errors.ConfigError(
            f"a step of {resolved.step_tokens} positions",
            f"lower plan.step_sequences: {MAX_STEP_TOKENS} at most",
        )
    tokens = max(resolved.step_tokens, resolved.shard_tokens)
    size = tokens * resolved.row_bytes
    if size > MAX_SHARD_BYTES:
        raise errors.ConfigError(
            f"a shard of {tokens} tokens would hold {size / 2**20:.0f} MiB of rows",
            f"lower store.shard_tokens; a shard holds at most {MAX_SHARD_BYTES >> 20} MiB",
        )
