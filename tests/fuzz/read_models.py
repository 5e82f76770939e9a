"""Targets of the fuzzer: each takes bytes in place of one file of a tiny model, and loads it."""

import pathlib
import tempfile

import checkpoints
import jax
import numpy as np

from jaxlens.models.checkpoints import checkpoint
from jaxlens.models.tokenizer import load_tokenizer, splits_at_spaces, strings, tokenizer_digest

_KEPT = tempfile.TemporaryDirectory(prefix="jaxlens-fuzz-")
_ROOT = pathlib.Path(_KEPT.name)
_ARCHITECTURE, _PARAMS = checkpoints.make()
TEXTS = ("ab ba, a\nb", "\0 \U0001f600 na\u00efve")

for _fmt in checkpoints.FILE:
    checkpoint.save(_ROOT / _fmt, _ARCHITECTURE, _PARAMS, _fmt)
    checkpoints.write_shards(_ROOT / f"{_fmt}-shards", _fmt)


def _load(folder, name, raw):
    (_ROOT / folder / name).write_bytes(raw)
    found = checkpoint.load(_ROOT / folder)
    shapes = jax.tree.map(np.shape, found.params)
    assert shapes["wte"] == (found.architecture.vocab_size, found.architecture.n_embd)
    assert shapes["h"]["ln_1"]["bias"] == (found.architecture.n_layer, found.architecture.n_embd)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found.params))


def msgpack(raw):
    _load("msgpack", "flax_model.msgpack", raw)


def safetensors(raw):
    _load("safetensors", "model.safetensors", raw)


def config(raw):
    _load("safetensors-shards", "config.json", raw)


def index(raw):
    _load("msgpack-shards", "flax_model.msgpack.index.json", raw)


def gguf(raw):
    path = _ROOT / "model.gguf"
    path.write_bytes(raw)
    found = checkpoint.load(path)
    shapes = jax.tree.map(np.shape, found.params)
    assert shapes["wte"] == (found.architecture.vocab_size, found.architecture.n_embd)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found.params))
    one = load_tokenizer(path)
    assert one is None or len(tokenizer_digest(one)) == 64


def tokenizer(raw):
    (_ROOT / "tokenizer.json").write_bytes(raw)
    found = load_tokenizer(_ROOT)
    assert len(tokenizer_digest(found)) == 64
    assert len(strings(found, 11)) == 11
    splits_at_spaces(found)
