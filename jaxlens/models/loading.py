"""A model in memory: loaded, put on the device, and checked to be what the lens reads."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.resources
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxlens import arguments, models, types
from jaxlens.lens import identity, implementations, mesh, numerics, options, unembedding
from jaxlens.models import encoding, patches, placement, tokenizer_files
from jaxlens.models.checkpoints import layout
from jaxlens.models.checkpoints.checkpoint import Checkpoint, load
from jaxlens.models.tokenizer import load_tokenizer

PACKAGED = "packaged"
"""Name of the model that is shipped with jaxlens."""


@dataclass(frozen=True)
class Model:
    """A model in memory.

    Attributes:
        config: Sizes and options.
        params: Parameter pytree on the default device, or on devices that share it (see
            ``placement``); see the module of its family.
        tokenizer: The ``tokenizers.Tokenizer`` beside the weights; None where there is none.
        adds_bos: Whether that tokenizer puts the beginning-of-text token before a text, as the
            model is used to.
    """

    config: types.Architecture
    params: types.Params = field(repr=False)
    tokenizer: Any = field(default=None, repr=False)
    adds_bos: bool = False

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} {n}" for name, n in self._sizes().items())
        return f"<Model: {models.title(self.config)}; {sizes}>"

    def _repr_html_(self) -> str:
        """What notebooks show: the sizes."""
        from jaxlens.view.prompt import notebook

        return notebook.facts(models.title(self.config), self._sizes())

    def _sizes(self) -> dict[str, str]:
        leaves = jax.tree.leaves(self.params)
        config = self.config
        heads = getattr(config.options, "n_head", None)
        return {
            "blocks": f"{config.n_layer:,}",
            **({"heads": f"{heads:,}"} if heads else {}),
            "width": f"{config.n_embd:,}",
            "positions": f"{config.n_positions:,}",
            "vocabulary": f"{config.vocab_size:,}",
            "parameters": f"{sum(leaf.size for leaf in leaves):,}",
            "weights": "/".join(sorted({str(leaf.dtype) for leaf in leaves})),
            "tokenizer": "none" if self.tokenizer is None else "yes",
        }


def load_checkpoint(
    source: str | Path, revision: str | None = None, config: Any = None, *, read: bool = True
) -> Checkpoint:
    """Weights as NumPy arrays, or where they are; ``packaged`` names the shipped model."""
    if source == PACKAGED:
        source = Path(str(importlib.resources.files("jaxlens") / "models" / "packaged"))
    return load(source, revision, config, read=read)


def from_checkpoint(
    checkpoint: Checkpoint,
    dtype: str = "float32",
    devices: Sequence[jax.Device] = (),
    *,
    with_hash: bool = True,
) -> Model:
    """Puts a checkpoint on the default device, with the tokenizer beside it.

    Args:
        checkpoint: Weights on the host, or on disk.
        dtype: Of the weights on the device.
        devices: That share the model, instead of the default device. None of them is given more
            than its share, and the checkpoint is taken leaf by leaf (see `Checkpoint.take`).
        with_hash: Whether the checkpoint's ``sha256`` will be asked for.

    Raises:
        DataError: A file is damaged, or does not fit.
    """
    arguments.one_of(dtype, "dtype", ("float32", "bfloat16"))
    # Before the weights move: a bad tokenizer costs no device and no compilation.
    model = without_weights(checkpoint)
    if len(devices) > 1 or checkpoint.stored is not None:
        expected = models.leaves(checkpoint.architecture)
        leaves: dict[str, jax.Array] = {}
        for path, value in checkpoint.take(dtype, with_hash=with_hash):
            if len(devices) > 1:
                leaves[path] = placement.put(value, expected, path, dtype, devices)
            else:
                # Nobody else holds these values: on a CPU they need not be there twice.
                leaves[path] = jax.device_put(value, may_alias=True)
            del value  # or it would be there beside the next one
        return dataclasses.replace(model, params=layout.nested(leaves))
    target = jnp.dtype(dtype)
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, target), checkpoint.params)
    return dataclasses.replace(model, params=params)


def without_weights(checkpoint: Checkpoint) -> Model:
    """The sizes of a checkpoint and the tokenizer beside it.

    Raises:
        DataError: The tokenizer is damaged.
    """
    tokenizer, adds_bos = None, False
    if checkpoint.directory is not None:
        tokenizer = load_tokenizer(checkpoint.directory)
        bos_id = checkpoint.architecture.bos_token_id
        adds_bos = _puts_bos(tokenizer, checkpoint.directory, bos_id)
    return Model(checkpoint.architecture, {}, tokenizer, adds_bos)


def _puts_bos(tokenizer: Any, directory: str | Path, bos_id: int | None) -> bool:
    """Whether a tokenizer puts the model's beginning-of-text token before a text.

    ``add_bos_token`` of ``tokenizer_config.json`` decides, or else the template in
    ``tokenizer.json``, which GGUF files get from their ``add_bos_token``.

    Args:
        tokenizer: Of the model, if there is one.
        directory: Where it lies, a folder or a GGUF file.
        bos_id: Beginning-of-text token of the model, if it has one.
    """
    if tokenizer is None or bos_id is None:
        return False
    stated = tokenizer_files.adds_bos(Path(directory))
    if stated is None and tokenizer.num_special_tokens_to_add(False):
        with contextlib.suppress(Exception):  # some lack a token for what is unknown
            (read,) = encoding.encode(tokenizer, ["a"], encoding.SECONDS, add_special_tokens=True)
            return read.ids[:1] == [bos_id]
    return stated is True


def check_identity(
    model: Model,
    sample: np.ndarray | None = None,
    *,
    implementation: str = "tiled",
    decoder: str = "final_norm",
    request: options.Options | None = None,
    tiles: unembedding.TiledUnembedding | None = None,
) -> float:
    """Runs the identity gate of ``lens.identity``.

    Args:
        model: Model to check.
        sample: ``[batch, position]`` tokens; spread over the vocabulary by default.
        implementation: Lens to check.
        decoder: Decoder to check; at the last layer all of them are the model.
        request: Precision, tile and block to check.
        tiles: The tiled unembedding to check; computed here by default.

    Returns:
        The measured difference in nats.
    """
    if sample is None:
        length = min(identity.TOKENS, model.config.n_positions)
        spread = np.linspace(0, model.config.vocab_size - 1, identity.TOKENS // length * length)
        sample = spread.astype(np.int32).reshape(-1, length)
    if request is None:
        request = options.Options((), parts=mesh.count(model.params))
    numerics.require_precision(request.precision)
    streams = forward(model.params, model.config, jnp.asarray(sample), request.precision)
    unembed = models.unembed(model.params, model.config, decoder)
    if implementation != "reference" and tiles is None:
        tiles = unembedding.tile_unembedding(unembed, request)
    prepared = () if tiles is None else (tiles,)
    return identity.require(
        implementations.IMPLEMENTATIONS[implementation],
        *(streams, unembed, sample, request, *prepared),
        has_kernel=implementation == "pallas",
    )


def forward(
    params: types.Params,
    architecture: types.Architecture,
    tokens: Int[Array | np.ndarray, "batch position"],
    precision: str = "float32",
    patch: patches.Patch | None = None,
) -> Float[Array, "layer batch position embed"]:
    """Every residual stream, compiled; see ``api.residuals`` for what it is.

    Args:
        params: Of the model, on a device.
        architecture: Of the model.
        tokens: Ids that the model has, at most ``n_positions`` a line.
        precision: Operands of the matrix multiplies.
        patch: A pytree, see ``models.patches``.
    """
    with numerics.matmul_precision(precision):
        return _forward(params, architecture, tokens, mesh.count(params), patch=patch)


@functools.partial(jax.jit, static_argnums=(1, 3))
def _forward(
    params: types.Params,
    architecture: types.Architecture,
    tokens: jax.Array,
    count: int = 1,
    *,
    patch: patches.Patch | None = None,
) -> jax.Array:
    with mesh.context(count):
        return models.residuals(params, architecture, tokens, patch=patch)
