"""Random weights of the published shapes, and random tokens: for speed, not for meaning."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from jaxlens import errors, models, types
from jaxlens.corpus import token_file, token_folder
from jaxlens.files import publish
from jaxlens.models.checkpoints.checkpoint import Checkpoint
from jaxlens.store import layout, records

SHAPES = {  # blocks, heads, embed
    "gpt2": (12, 12, 768),
    "gpt2-medium": (24, 16, 1024),
    "gpt2-large": (36, 20, 1280),
    "gpt2-xl": (48, 25, 1600),
}
"""The published models, all of 1,024 positions and 50,257 tokens."""


def architecture(shape: str) -> types.Architecture:
    """Sizes of a published model.

    Raises:
        ConfigError: No such shape.
    """
    if shape not in SHAPES:
        raise errors.ConfigError(f"unknown shape {shape}", f"one of {', '.join(SHAPES)}")
    blocks, heads, embed = SHAPES[shape]
    sizes = {"n_layer": blocks, "n_head": heads, "n_embd": embed}
    sizes |= {"n_positions": 1024, "vocab_size": 50257}
    return models.parse({"model_type": "gpt2", "bos_token_id": None} | sizes)


def checkpoint(shape: str, seed: int = 0) -> Checkpoint:
    """Fresh weights of a published shape.

    Raises:
        ConfigError: No such shape.
    """
    sizes = architecture(shape)
    return Checkpoint(sizes, models.init(sizes, seed), None)


def ingested(
    folder: Path, vocab_size: int, documents: int, length: int, seed: int = 0
) -> token_folder.Ingested:
    """A token file of equal documents of random tokens."""
    random = np.random.default_rng(seed)
    ids = random.integers(0, vocab_size, documents * length)
    index = token_file.Index(
        document_start=np.arange(documents + 1) * length,
        document_hash=np.arange(documents, dtype=np.uint64),
        document_id=np.array([b"%d" % number for number in range(documents)]),
        token_counts=np.stack([np.bincount(ids, minlength=vocab_size), np.zeros(vocab_size, int)]),
    )
    data = ids.astype(index.dtype).tobytes()
    publish.publish(folder / layout.TOKEN_FILE, data)
    record = records.Tokens(
        sha256=hashlib.sha256(data).hexdigest(),
        n_tokens=len(ids),
        dtype=index.dtype.name,
        index_sha256="0" * 64,
    )
    return token_folder.Ingested(folder, record, index, {}, (), "", True)
