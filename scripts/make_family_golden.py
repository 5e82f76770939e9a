"""Makes tests/golden/families/*.npz: what transformers computes from seeded weights.

One for each configuration of tests/families, in an environment that has both sides:

    python3 -m venv /tmp/golden
    /tmp/golden/bin/pip install . torch==2.13.0 transformers==5.24.0
    PYTHONPATH=. /tmp/golden/bin/python scripts/make_family_golden.py

Each model is loaded twice by transformers: from its configuration as it stands in tests/families,
which makes the golden, and from the folder that ``checkpoint.save`` writes. Both must load without
a missing or an unexpected tensor and agree to the bit. Names on the command line pick cases.
"""

import importlib.metadata
import json
import pathlib
import platform
import sys
import tempfile

import numpy as np
import safetensors.numpy
import torch
import transformers

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
import families  # noqa: E402
import random_model  # noqa: E402
from families import weights  # noqa: E402

from jaxlens import models  # noqa: E402
from jaxlens.models.checkpoints import checkpoint  # noqa: E402

OUT = ROOT / "tests" / "golden" / "families"
COMMAND = "python scripts/make_family_golden.py"
SEED = 20221014
BATCH, LENGTH = 2, 24
POSITIONS = np.array([0, 1, 4, 7, 8, 15, 22, 23])
STRIDE = 61


def load(folder):
    """The model of a folder, float32 with eager attention; every tensor has its place."""
    model, found = transformers.AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager", dtype=torch.float32, output_loading_info=True
    )
    wrong = {what: names for what, names in found.items() if names}
    if wrong:
        raise SystemExit(f"{folder}: {wrong}")
    return model.eval()


def forward(model, tokens):
    """Residuals before the final norm, and logits."""
    streams = []

    def keep(module, arguments, keywords):
        stream = arguments[0] if arguments else keywords["hidden_states"]
        streams.append(stream.detach().clone())

    body = model.base_model
    final = body.norm if hasattr(body, "norm") else body.final_layer_norm
    hooks = [m.register_forward_pre_hook(keep, with_kwargs=True) for m in (*body.layers, final)]
    with torch.no_grad():
        logits = model(torch.from_numpy(tokens).long()).logits
    for hook in hooks:
        hook.remove()
    return torch.stack(streams).numpy(), logits.numpy()


def write(name, config, seed):
    """One golden."""
    architecture = models.parse(config)
    state = weights.random_state(architecture, seed)
    tokens = random_model.random_tokens(config, (BATCH, LENGTH), seed)
    with tempfile.TemporaryDirectory() as scratch:
        theirs, ours = pathlib.Path(scratch) / "theirs", pathlib.Path(scratch) / "ours"
        theirs.mkdir()
        (theirs / "config.json").write_text(json.dumps(config))
        safetensors.numpy.save_file(state, theirs / "model.safetensors", {"format": "pt"})
        params = checkpoint.from_state_dict(state, config).params
        checkpoint.save(ours, architecture, params, "safetensors")
        streams, logits = forward(load(theirs), tokens)
        again = forward(load(ours), tokens)
    if not all(map(np.array_equal, (streams, logits), again)):
        raise SystemExit(f"{name}: transformers reads our config.json as another model")
    provenance = {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "numpy": np.__version__,
        "jax": importlib.metadata.version("jax"),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "command": COMMAND,
    }
    np.savez_compressed(
        OUT / f"{name}.npz",
        config=json.dumps(config),
        seed=seed,
        weights_sha256=random_model.fingerprint_of_state(state),
        tokens=tokens,
        positions=POSITIONS,
        stride=STRIDE,
        residuals=streams[:, :, POSITIONS],
        residual_norms=np.linalg.norm(streams.astype(np.float64), axis=-1),
        logits=logits[:, POSITIONS, ::STRIDE],
        argmax=logits.argmax(-1).astype(np.int32),
        largest_logit=np.abs(logits).max(),
        provenance=json.dumps(provenance),
    )
    print(name, (OUT / f"{name}.npz").stat().st_size, "bytes", flush=True)


def require_gpt2_loads():
    """GPT-2, which has goldens of its own, loads from what we write as well."""
    sizes = {"n_layer": 2, "n_head": 2, "n_embd": 12, "n_positions": 16, "vocab_size": 53}
    architecture = models.parse({"model_type": "gpt2", **sizes})
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.save(folder, architecture, models.init(architecture, 0), "safetensors")
        load(folder)


def main():
    """Writes the goldens of all cases, or of those that are named."""
    require_gpt2_loads()
    OUT.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[1:] or families.CASES:
        # A seed that does not depend on what other cases there are.
        write(name, families.CASES[name][1], SEED + sum(name.encode()))


if __name__ == "__main__":
    main()
