"""The tiled lens with kernels in place of `interior.read` and `ends.read`, written in Pallas.

Which kernel is decided where the program is compiled; a CPU interprets that of TPUs, so that it
runs, slowly, where there is no accelerator. Experimental: no accelerator has run them.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import jax
from jaxtyping import Array, Float

from jaxlens import errors, types
from jaxlens.lens import numerics, tiled, unembedding
from jaxlens.lens.options import Options

_TPU, _HOPPER = (f"jaxlens.lens.kernels.{name}" for name in ("tpu", "hopper"))

KERNELS = {"cpu": _TPU, "tpu": _TPU, "cuda": _HOPPER}
"""Platform, as programs name it -> module with the kernel's ``read``, ``is_supported`` and
``is_available``, imported on use: Pallas for GPUs alone takes 0.7 s."""

_OTHERWISE = "use the tiled lens, which reads everything but ties"


def read(
    residuals: Float[Array, "layer batch position embed"],
    unembed: types.Unembed,
    references: types.References,
    options: Options,
    tiles: unembedding.TiledUnembedding | None = None,
) -> types.Readout:
    """Reads the lens at every chosen layer; same contract as ``tiled.read``.

    What the kernel does not read (see `require`) is read as the tiled lens does.
    """
    if unembed.softcap is not None:
        return tiled.read(residuals, unembed, references, options, tiles)
    return tiled.read(residuals, unembed, references, options, tiles, read_interior, read_ends)


def read_interior(*given: Any) -> Any:
    """The interior layers of a block; takes and returns what ``interior.read`` does."""
    *arrays, options = given

    def by(name: str) -> Callable[..., Any]:
        return lambda *arrays: importlib.import_module(name).read(*arrays, options=options)

    # That of TPUs leaves to XLA what is neither a TPU nor a CPU.
    return jax.lax.platform_dependent(*arrays, cuda=by(_HOPPER), default=by(_TPU))


def read_ends(*given: Any) -> Any:
    """The end layers of a block; takes and returns what ``ends.read`` does."""
    # Only the kernels for GPUs have one; it leaves all other platforms to XLA.
    return importlib.import_module(_HOPPER).read_ends(*given)


def is_supported(
    options: Options,
    layers: int,
    embed: int,
    references: int,
    platform: str | None = None,
    softcap: float | None = None,
) -> bool:
    """Whether a kernel reads all that is asked for; see `require`."""
    kernel = _kernel(platform)
    rows = jax.ShapeDtypeStruct((layers, 1, embed), numerics.operand_dtype(options.precision))
    has_kernel = kernel is not None and softcap is None
    return has_kernel and kernel.is_supported(rows, references, options)


def require(
    options: Options,
    layers: int,
    embed: int,
    references: int,
    platform: str | None = None,
    softcap: float | None = None,
) -> None:
    """Refuses what the kernel of a platform does not read.

    Args:
        options: What to read.
        layers: Streams between the first and the last; with none there is nothing to refuse.
        embed: Size of a stream.
        references: Reference tokens of a position, the final one and followed ones too.
        platform: Of the device; that of the default backend by default.
        softcap: Of the logits, see ``types.Unembed``.

    Raises:
        ConfigError: Naming what it does not read.
    """
    if not layers or is_supported(options, layers, embed, references, platform, softcap):
        return
    if softcap is not None:
        raise errors.ConfigError(
            f"the pallas lens does not read logits with a softcap of {softcap:g}", _OTHERWISE
        )
    if _kernel(platform) is None:
        raise errors.ConfigError(
            f"the pallas lens has no kernel for {platform or jax.default_backend()}", _OTHERWISE
        )

    def reads(references: int = 1, **asked: Any) -> bool:
        plain = dataclasses.replace(options, quantities=(), top_k=1, precision="bfloat16")
        asking = dataclasses.replace(plain, **asked)
        return is_supported(asking, layers, embed, references, platform)

    refused = [name for name in options.quantities if not reads(quantities=(name,))]
    if not reads():
        refused = [f"{layers} layers of {embed}"]
    elif not refused and not reads(top_k=options.top_k):
        refused = [f"top_k {options.top_k}"]
    elif not refused and not reads(precision=options.precision):
        refused = [f"{options.precision} operands"]
    elif not refused:
        refused = [f"{references} reference tokens of {layers} layers of {embed}"]
    raise errors.ConfigError(f"the pallas lens does not read {', '.join(refused)}", _OTHERWISE)


def _kernel(platform: str | None) -> ModuleType | None:
    """The kernels of a platform; None where there are none, or none for the devices at hand."""
    platform = platform or jax.default_backend()
    name = KERNELS.get("cuda" if platform == "gpu" else platform)
    kernel = None if name is None else importlib.import_module(name)
    return kernel if kernel is not None and kernel.is_available() else None
