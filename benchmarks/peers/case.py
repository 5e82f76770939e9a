"""The same work for everybody: a GPT-2 with random weights on disk, and random tokens.

python benchmarks/peers/case.py FOLDER [--shape gpt2]

Imports nothing but NumPy, so that the environment of every peer can import it. The weights are
those of the parity tests (`tests/random_model.py`): gains and biases of the final norm are not
trivial, so that a lens that forgets one, or applies the norm twice, gives other numbers.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import pathlib
from types import ModuleType
from typing import Any

import numpy as np

SEED = 20200831
SHAPES = {
    "mini": {"n_layer": 2, "n_head": 2, "n_embd": 16, "n_positions": 32, "vocab_size": 211},
    "gpt2": {"n_layer": 12, "n_head": 12, "n_embd": 768, "n_positions": 1024, "vocab_size": 50257},
}
RANKS = ("rank_input", "rank_next", "rank_final")
NATS = ("logp_input", "kl_final", "kl_input", "kl_to_final", "entropy")
QUANTITIES = (*RANKS, *NATS, "top_id")
"""What everybody computes, ``[layer, batch, position]``: ``core`` and ``kl_to_final``."""

ROOT = pathlib.Path(__file__).resolve().parents[2]


def make_model(folder: pathlib.Path, shape: str) -> None:
    """Writes ``config.json`` and ``model.safetensors`` as Hugging Face lays them out."""
    sizes = SHAPES[shape]
    random_model = _random_model()
    state = random_model.torch_names(random_model.random_params(sizes, SEED))
    del state["lm_head.weight"]  # tied
    config = {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "torch_dtype": "float32",
        "tie_word_embeddings": True,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "bos_token_id": None,
        "eos_token_id": None,
        **sizes,
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_safetensors(folder / "model.safetensors", state)
    (folder / "config.json").write_text(json.dumps(config, indent=2))


def make_tokens(folder: pathlib.Path, count: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """``count`` tokens in full lines, and the token after each; int32 ``[batch, position]``."""
    config = json.loads((folder / "config.json").read_text())
    positions = config.get("n_positions") or config["max_position_embeddings"]
    length = min(count, length, positions)
    batch, rest = divmod(count, length)
    if rest:
        raise SystemExit(f"{count} tokens do not fill lines of {length}")
    ids = _random_model().random_tokens(config, (batch, length + 1), SEED + 1)
    return np.ascontiguousarray(ids[:, :-1]), np.ascontiguousarray(ids[:, 1:])


def write_safetensors(path: pathlib.Path, state: dict[str, np.ndarray]) -> None:
    """The container by its definition: length, JSON header, little-endian tensors."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, value in state.items():
        size = 4 * value.size
        place = [offset, offset + size]
        header[name] = {"dtype": "F32", "shape": list(value.shape), "data_offsets": place}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for value in state.values():
            file.write(np.ascontiguousarray(value, "<f4").data)


def _random_model() -> ModuleType:
    path = ROOT / "tests" / "random_model.py"
    spec = importlib.util.spec_from_file_location("random_model", path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"cannot import {path.name}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    """Makes the model folder."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--shape", choices=SHAPES, default="gpt2")
    given = parser.parse_args()
    make_model(given.folder, given.shape)


if __name__ == "__main__":
    main()
