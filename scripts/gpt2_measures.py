"""What `check_gpt2` measures of a model: tokens, ranks, norms and perplexity."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np

import jaxlens
from jaxlens.models import loading

WINDOW = 1024


def encode(model: loading.Model, text: str) -> np.ndarray:
    """Token ids of a text, without special tokens."""
    return np.array(model.tokenizer.encode(text, add_special_tokens=False).ids, np.int32)


def bias_tokens(model: loading.Model, count: int) -> list[str]:
    """Tokens of the greatest products of the last norm's bias with the unembedding."""
    products = np.asarray(model.params["wte"]) @ np.asarray(model.params["ln_f"]["bias"])
    greatest = np.argsort(-products, kind="stable")[:count]
    return [model.tokenizer.decode([int(token)]) for token in greatest]


def last_ranks(model: loading.Model, text: str, decoder: str, position: int = -2) -> list[int]:
    """Rank of a text's last token at each layer.

    Args:
        model: The model.
        text: At least two tokens.
        decoder: Of the lens.
        position: Where it is read; -2 is where it is the next token.
    """
    ids = encode(model, text)
    readout = jaxlens.read_lens(model, ids[None], decoder=decoder, follow=ids[-1:])
    return np.asarray(readout.rank_follow)[:, 0, position, 0].tolist()


def growth(model: loading.Model, ids: np.ndarray, first: int = 1) -> float:
    """Growth of residual norms a block: geometric mean over blocks.

    The norm of a layer is the mean over the positions of the first window but its first, whose
    norm is tens of times that of the others.

    Args:
        model: The model.
        ids: Token ids.
        first: Layer from which on; 0 is the embedding, 1 the output of the first block.
    """
    window = ids[None, : min(WINDOW, model.config.n_positions)]
    streams = loading.forward(model.params, model.config, window)
    norms = np.asarray(jnp.linalg.norm(streams[:, 0, 1:], axis=-1).mean(-1), np.float64)
    return float((norms[-1] / norms[first]) ** (1 / (len(norms) - 1 - first)))


def perplexity(model: loading.Model, ids: np.ndarray) -> float:
    """Perplexity a token, over windows without overlap, whose first tokens are not predicted."""
    length = min(WINDOW, model.config.n_positions)
    total, count = 0.0, 0
    for start in range(0, len(ids), length):
        window = ids[start : start + length]
        padded = np.zeros((1, length), np.int32)
        padded[0, : len(window)] = window
        mask = (np.arange(length) < len(window))[None]
        readout = jaxlens.read_lens(model, padded, mask, layers=-1, quantities="logp_next")
        predicted = np.asarray(readout.logp_next, np.float64)[0, 0, : len(window) - 1]
        total -= predicted.sum()
        count += len(predicted)
    return math.exp(total / count)
