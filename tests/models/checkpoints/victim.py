"""A tiny model with a tiny tokenizer, to be changed into one that harms."""

import json

import checkpoints

from jaxlens.models.checkpoints import checkpoint

TOKENIZER = {
    "version": "1.0",
    "added_tokens": [],
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]},
}


def model(directory, fmt="safetensors"):
    checkpoint.save(directory, *checkpoints.make(), fmt)
    (directory / "tokenizer.json").write_text(json.dumps(TOKENIZER))
    return directory


def changed(**parts):
    return {**TOKENIZER, **parts}


def bpe(**parts):
    return changed(model={**TOKENIZER["model"], **parts})
