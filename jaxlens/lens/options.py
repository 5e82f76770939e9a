"""What to read and how: the static options that every lens implementation takes."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from jaxlens import arguments, errors, schema


@dataclass(frozen=True)
class Options:
    """Static (hashable) options of a lens.

    Attributes:
        quantities: Names from ``schema.LAYERED``.
        layers: Residual streams to report, in this order; None is all of them.
        top_k: Tokens that ``top_id`` and ``top_logp`` hold.
        precision: Operands of the matrix multiplies, see ``numerics``.
        tile: Vocabulary columns a tile (``tiled`` only).
        block: Tokens a block (``tiled`` only).
        parts: Devices that share the vocabulary, see ``mesh`` (``tiled`` only).
    """

    quantities: tuple[str, ...]
    layers: tuple[int, ...] | None = None
    top_k: int = 1
    precision: str = "float32"
    tile: int | None = None
    block: int | None = None
    parts: int = 1

    def wants(self, *names: str) -> bool:
        """Whether any of these quantities is asked for."""
        return any(name in self.quantities for name in names)

    def for_model(self, n_layers: int, vocab_size: int) -> Options:
        """Options with ``layers`` as indices from 0 and ``top_k`` clipped to the vocabulary.

        Raises:
            ConfigError: No layer, one that the model does not have, or a ``top_k`` below 1.
        """
        whole = isinstance(self.top_k, (int, np.integer)) and not isinstance(self.top_k, bool)
        if not whole or self.top_k < 1:
            raise errors.ConfigError(f"top_k is {self.top_k}", "give a number of at least 1")
        layers = tuple(range(n_layers)) if self.layers is None else self.layers
        if not layers:
            raise errors.ConfigError("no layers to read", "name at least one, or leave it out")
        for layer in layers:
            if not -n_layers <= layer < n_layers:
                raise errors.ConfigError(
                    f"layer {layer} of a model with {n_layers} residual streams",
                    f"layers go from 0 (input) to {n_layers - 1} (the last block's output)",
                )
        return dataclasses.replace(
            self,
            layers=tuple(layer % n_layers for layer in layers),
            top_k=min(int(self.top_k), vocab_size),
        )


def resolve_quantities(quantities: str | Iterable[str] | None) -> tuple[str, ...]:
    """Names to read from a profile name, a list of names, or None for ``core``.

    A list adds to ``core``; ``core`` and ``full`` are the profiles of ``schema``.

    Raises:
        ConfigError: A name that is no quantity, is a column of the corpus.
    """
    if quantities is None:
        quantities = "core"
    if isinstance(quantities, str):
        if quantities in ("core", "full"):
            return tuple(n for n in schema.PROFILES[quantities] if n in schema.LAYERED)
        quantities = (quantities,)
    wanted = arguments.listed(quantities)
    if wanted is None:
        raise errors.ConfigError(
            f"quantities are {errors.show(quantities)}", "core, full, or a list of names"
        )
    names = dict.fromkeys(n for n in schema.CORE if n in schema.LAYERED)
    for name in wanted:
        check(name)
        names[name] = None
    return tuple(names)


def check(name: str) -> None:
    """Refuses a name that no lens can read.

    Raises:
        ConfigError: Saying why, with the nearest name.
    """
    if not isinstance(name, str):
        raise errors.ConfigError(f"a quantity is {name!r}", f"one of {', '.join(schema.LAYERED)}")
    if name in schema.COLUMNS:
        raise errors.ConfigError(
            f"{name} is a column of the corpus, not of the lens", "open a run to read it"
        )
    if name in schema.PER_TOKEN:
        raise errors.ConfigError(f"{name} is no quantity of a layer", "open a run to read it")
    if name not in schema.LAYERED:
        near = difflib.get_close_matches(name, schema.LAYERED, n=1)
        hint = f"did you mean {near[0]}?" if near else f"one of {', '.join(schema.LAYERED)}"
        raise errors.ConfigError(f"unknown quantity {name}", hint)
