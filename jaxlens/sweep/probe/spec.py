"""The spec of a probe: its settings and the spec of its run, fixed in ``PROBE.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxlens import arguments, config, errors
from jaxlens.files import publish, temporary
from jaxlens.store import begun, probe_file
from jaxlens.sweep.probe import data, discriminant, moments

VERSION = 1


@dataclass(frozen=True)
class Settings:
    """What a probe takes.

    Attributes:
        tokens: Training positions.
        held_out_tokens: Held-out positions.
        types: Classes of a bin of rarity, where the vocabulary is larger than all bins.
        seed: Of the order of the steps, of permuted labels and of the choice of types.
        memory: Bytes of moments that are held at once, see ``work.divide``; it decides no result.
    """

    tokens: int = 300_000
    held_out_tokens: int = 60_000
    types: int = 256
    seed: int = 0
    memory: int | None = None

    def require(self) -> None:
        """Refuses numbers that make no sense.

        Raises:
            ConfigError: Naming one.
        """
        for name in ("tokens", "held_out_tokens", "types", "memory"):
            if name != "memory" or self.memory is not None:
                arguments.whole(getattr(self, name), name, 1)
        arguments.whole(self.seed, "seed")
        for name in ("tokens", "held_out_tokens"):
            if getattr(self, name) > moments.MAX_POSITIONS:
                raise errors.ConfigError(
                    f"{name} is {getattr(self, name):,}", f"give at most {moments.MAX_POSITIONS:,}"
                )


DEFAULTS = Settings()


def build(run: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """The spec as JSON values."""
    return {
        "version": VERSION,
        "run": dict(run),
        "probe": {
            "tokens": settings.tokens,
            "held_out_tokens": settings.held_out_tokens,
            "types": settings.types,
            "seed": settings.seed,
            "ridge": discriminant.RIDGE,
            "held_out": f"1/{data.HELD_OUT}",
            "min_count": probe_file.MIN_COUNT,
        },
    }


def require_same(run_dir: str | Path, spec: Mapping[str, Any]) -> None:
    """Refuses a folder in which another probe has begun; see ``begun.require_same``."""
    path = probe_file.path(run_dir, probe_file.SPEC)
    begun.require_same(path, config.canonical(spec), "probe")


def begin(run_dir: str | Path, spec: Mapping[str, Any]) -> None:
    """Begins a probe, or finds that the same one has begun.

    Raises:
        ConfigError: Another one has.
        StorageError: The disk is full or failed.
    """
    require_same(run_dir, spec)
    path = probe_file.path(run_dir, probe_file.SPEC)
    folders = path.parent, probe_file.path(run_dir, probe_file.DIRECTIONS, "any").parent
    for folder in folders:
        publish.make_directory(folder)
        temporary.remove_leftovers(folder)
    publish.publish(path, config.canonical(spec))
