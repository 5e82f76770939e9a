"""A family that the package does not know: residual MLPs without attention or positions.

Its weights have other names than GPT-2's, blocks under another word, and kernels as PyTorch's
``Linear`` stores them. ``test_families`` registers it.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np

from jaxlens import types
from jaxlens.models import config_json
from jaxlens.models.checkpoints import layout

TITLE = "Toy"
CONFIG = {
    "model_type": "toy",
    "n_layer": 3,
    "n_embd": 8,
    "n_positions": 32,
    "vocab_size": 4096,
    "width": 12,
    "tie_word_embeddings": False,
}


@dataclasses.dataclass(frozen=True)
class Options:
    width: int


def parse(config):
    return types.Architecture(
        model_type="toy",
        n_layer=config_json.size(config, "n_layer"),
        n_embd=config_json.size(config, "n_embd"),
        n_positions=config_json.size(config, "n_positions"),
        vocab_size=config_json.vocab_size(config),
        tie_word_embeddings=config_json.flag(config, "tie_word_embeddings", True),
        options=Options(width=config["width"]),
    )


def dump(architecture):
    return {"model_type": "toy"} | architecture.spec()


def leaves(architecture):
    vocab, embed = architecture.vocab_size, architecture.n_embd
    width = architecture.options.width

    def leaf(path, name, shape, **more):
        return layout.Leaf(path, f"{name}.weight", f"{name}/kernel", shape, **more)

    return layout.Layout(
        architecture=architecture,
        title="the toy",
        leaves=(
            leaf("tokens", "tokens", (vocab, embed)),
            leaf("layers/up", "up", (embed, width), transposed_in=("torch",)),
            leaf("layers/down", "down", (width, embed), transposed_in=("torch",)),
            leaf("norm", "norm", (embed,)),
            leaf("out", "out", (vocab, embed), is_optional=architecture.tie_word_embeddings),
        ),
        prefix="model",
        blocks="layers",
        embedding="tokens",
        head="out",
    )


def init(architecture, seed):
    random = np.random.default_rng(seed)
    expected = leaves(architecture)
    return layout.nested(
        {
            leaf.path: random.standard_normal(expected.stacked_shape(leaf), np.float32)
            for leaf in expected.required()
        }
    )


def residuals(
    params, architecture, tokens, positions=None, segments=None, *, dtype="float32", patch=None
):
    del positions, segments
    patch = patch or (lambda _, stream: stream)
    streams = [patch(0, params["tokens"][tokens].astype(jnp.float32))]
    for layer in range(architecture.n_layer):
        up, down = (params["layers"][name][layer] for name in ("up", "down"))
        hidden = jnp.tanh(jnp.einsum("bpe,ew->bpw", streams[-1], up))
        stream = streams[-1] + jnp.einsum("bpw,we->bpe", hidden, down)
        streams.append(patch(layer + 1, stream))
    return jnp.stack(streams).astype(dtype)


def unembed(params, architecture, kind="final_norm"):
    return types.Unembed(
        kind=kind,
        scale=params["norm"],
        bias=jnp.zeros_like(params["norm"]),
        eps=1e-5,
        weight=params.get("out", params["tokens"]),
        embedding=params["tokens"] if "out" in params else None,
        n_layer=architecture.n_layer,
    )


def forward_flops(architecture, length):
    del length
    return float(4 * architecture.n_layer * architecture.n_embd * architecture.options.width)
