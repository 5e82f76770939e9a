"""How a run reads the lens: implementation, tile and temperatures, with every default filled in."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

from jaxlens import config as run_config
from jaxlens import errors, models, schema, types
from jaxlens.lens import options, pallas, tuning
from jaxlens.tally import definitions

_REFERENCES = 5
"""Reference tokens of a position in a sweep: input, next, foreign, copy and final."""


def resolve_lens(
    config: run_config.RunConfig,
    architecture: types.Architecture,
    spec: Mapping[str, Any],
    platform: str,
) -> run_config.LensConfig:
    """The lens of a run; its block depends on the step, and is left as it is.

    Args:
        config: As the user gave it, with the edition of its tallies.
        architecture: Of the model.
        spec: Of the run, empty where none has begun.
        platform: Of the devices.

    Raises:
        ConfigError: A quantity or temperatures that the lens does not allow.
    """
    lens = _recorded(config.lens, spec, architecture.n_layer + 1)
    lens = dataclasses.replace(lens, top_k=min(lens.top_k, architecture.vocab_size))
    _require_temperatures(lens.temperatures, architecture.n_layer + 1)
    _require_quantities(config)
    config = dataclasses.replace(config, lens=lens)
    asked = request(config)
    softcap = models.softcap(architecture)
    sizes = (architecture.n_layer - 1, architecture.n_embd, _REFERENCES, platform, softcap)
    if lens.implementation is None:
        usual = tuning.of_platform(platform).implementation
        fits = usual != "pallas" or pallas.is_supported(asked, *sizes)
        lens = dataclasses.replace(lens, implementation=usual if fits else "tiled")
    elif lens.implementation == "pallas":
        pallas.require(asked, *sizes)
    if lens.implementation != "reference":
        default = tuning.choose_tile(
            architecture.vocab_size, architecture.n_layer, platform, asked.parts
        )
        tile = min(lens.tile or default, architecture.vocab_size)
        lens = dataclasses.replace(lens, tile=tile)
    return lens


def request(config: run_config.RunConfig) -> options.Options:
    """What the lens of a sweep reads: all of `full` whatever the rows are, for the tallies."""
    lens = config.lens
    needed = definitions.QUANTITIES[config.store.tallies]
    wanted = {*schema.FULL, *config.store.quantities, *needed}
    return options.Options(
        quantities=tuple(name for name in schema.LAYERED if name in wanted),
        top_k=lens.top_k,
        precision=lens.precision,
        tile=lens.tile,
        block=lens.block,
        parts=config.mesh.model or 1,
    )


def _recorded(
    lens: run_config.LensConfig, spec: Mapping[str, Any], n_layers: int
) -> run_config.LensConfig:
    """The lens with what the run that has begun recorded, where the user gives none."""
    section = spec.get("lens")
    if not isinstance(section, dict):
        return lens
    recorded: dict[str, Any] = {}
    implementation = section.get("implementation")
    if lens.implementation is None and implementation in typing.get_args(run_config.Lens):
        recorded["implementation"] = implementation
    elif implementation != lens.implementation:
        return lens
    recorded |= {
        name: section[name]
        for name in ("tile", "block")
        if getattr(lens, name) is None and isinstance(section.get(name), int) and section[name] > 0
    }
    temperatures = section.get("temperatures")
    # A run of another model may have others: its spec differs, and the refusal names the model.
    fits = isinstance(temperatures, list) and len(temperatures) == n_layers
    if lens.temperatures is None and fits:
        recorded["temperatures"] = tuple(temperatures)
    return dataclasses.replace(lens, **recorded)


def _require_quantities(config: run_config.RunConfig) -> None:
    for name in config.store.quantities:
        options.check(name)
        if name in schema.REFERENCE_ONLY and config.lens.implementation != "reference":
            raise errors.ConfigError(
                f"only the reference lens counts {name}", "use lens.implementation=reference"
            )
        if name.endswith("_follow"):
            raise errors.ConfigError(
                f"{name} needs followed tokens, which a sweep does not have", "use read_lens"
            )


def _require_temperatures(temperatures: tuple[float, ...] | None, n_layers: int) -> None:
    if temperatures is None:
        return
    valid = all(isinstance(value, (int, float)) and 0 < value < 1e6 for value in temperatures)
    if not valid or len(temperatures) != n_layers or temperatures[-1] != 1.0:
        raise errors.ConfigError(
            f"lens.temperatures are {len(temperatures)} numbers for {n_layers} layers",
            "give one above 0 for each, 1 for the last; or leave them out",
        )
