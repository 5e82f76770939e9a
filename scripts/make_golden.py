"""Makes tests/golden/*.npz: what PyTorch's GPT2LMHeadModel computes from seeded weights.

Needs an environment of its own, because the project has no PyTorch:

    python3 -m venv /tmp/golden
    /tmp/golden/bin/pip install torch transformers numpy
    /tmp/golden/bin/python scripts/make_golden.py

A golden holds no weights: tests/random_model.py makes them again from the seed.
"""

import json
import pathlib
import platform
import sys
from typing import Any

import numpy as np
import torch
import transformers

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
import random_model  # noqa: E402

OUT = ROOT / "tests" / "golden"
COMMAND = "python scripts/make_golden.py"
SEED = 20200831

SMALL = {"vocab_size": 97, "n_positions": 32, "n_embd": 24, "n_layer": 5, "n_head": 3}
TINY = {"vocab_size": 53, "n_positions": 16, "n_embd": 12, "n_layer": 2, "n_head": 2}
ACTIVATIONS = """
    gelu_new gelu_pytorch_tanh gelu_fast gelu relu silu swish tanh quick_gelu
"""
CASES = {
    "small": SMALL,
    "untied": {**SMALL, "tie_word_embeddings": False},
    "inverse_layer": {**SMALL, "scale_attn_by_inverse_layer_idx": True},
    "unscaled_relu": {
        **SMALL,
        "scale_attn_weights": False,
        "n_inner": 40,
        "activation_function": "relu",
        "layer_norm_epsilon": 1e-3,
    },
    **{f"activation_{name}": {**TINY, "activation_function": name} for name in ACTIVATIONS.split()},
}


def make_model(options, seed):
    """The standard implementation holding the seeded weights: float32, eager attention."""
    rest: dict[str, Any] = {
        "attn_implementation": "eager",
        "bos_token_id": None,
        "eos_token_id": None,
    }
    config = transformers.GPT2Config(**options, **rest)
    params = random_model.random_params(config.to_dict(), seed)
    state = {k: torch.from_numpy(np.array(v)) for k, v in random_model.torch_names(params).items()}
    model = transformers.GPT2LMHeadModel(config).eval()
    model.load_state_dict(state, strict=True)
    return model, random_model.fingerprint(params)


def forward(model, tokens):
    """Residuals before ln_f and logits; hooks, because hidden_states changed between versions."""
    streams = []

    def keep(module, arguments, *_):
        streams.append(arguments[0].detach().clone())

    hooks = [block.register_forward_pre_hook(keep) for block in model.transformer.h]
    hooks.append(model.transformer.ln_f.register_forward_pre_hook(keep))
    with torch.no_grad():
        logits = model(torch.from_numpy(tokens).long()).logits
    for hook in hooks:
        hook.remove()
    return torch.stack(streams).numpy(), logits.numpy()


def write(name, options, seed, tokens, sample=None):
    """One golden. ``sample`` cuts rows, width and vocabulary of a model too large to keep whole."""
    model, fingerprint = make_model(options, seed)
    streams, logits = forward(model, tokens)
    positions, width, stride = sample or (range(tokens.shape[1]), None, 1)
    positions = np.array(list(positions))
    provenance = {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "command": COMMAND,
    }
    wide = logits.astype(np.float64)
    np.savez_compressed(
        OUT / f"{name}.npz",
        config=model.config.to_json_string(use_diff=False),
        seed=seed,
        weights_sha256=fingerprint,
        tokens=tokens,
        positions=positions,
        stride=stride,
        residuals=streams[:, :, positions, :width],
        residual_norms=np.linalg.norm(streams.astype(np.float64), axis=-1),
        logits=logits[:, positions, ::stride],
        log_sum_exp=np.log(np.exp(wide - wide.max(-1, keepdims=True)).sum(-1)) + wide.max(-1),
        argmax=logits.argmax(-1).astype(np.int32),
        largest_residual=np.abs(streams).max(),
        largest_logit=np.abs(logits).max(),
        provenance=json.dumps(provenance),
    )
    print(name, (OUT / f"{name}.npz").stat().st_size, "bytes", flush=True)


def main():
    """Writes every golden."""
    OUT.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    for number, (name, options) in enumerate(CASES.items()):
        shape = (2, 11) if options["n_layer"] == SMALL["n_layer"] else (1, 7)
        write(name, options, SEED + number, random_model.random_tokens(options, shape, number))
    tokens = random_model.random_tokens({"vocab_size": 50257}, (1, 24), 99)
    write("default", {}, SEED + 100, tokens, sample=((0, 11, 23), 64, 101))


if __name__ == "__main__":
    main()
