"""Random weights from a seed, GPT-2's or any family's, the same bits on every machine.

The scripts that make goldens give them to PyTorch and the tests give them to the engine, so the
golden files hold results only. Imports nothing but NumPy.
"""

import hashlib

import numpy as np

# Matrices are uniform in +-GAIN / sqrt(n_embd), so activations, logits and the blocks' updates
# are of order one at every width and the exact GELU can be told from its approximation; biases
# and gains vary too, or forgetting one would pass.
GAIN = 2.2
SPREAD = 0.2


def random_params(config, seed):
    """Stacked float32 pytree for a decoded ``config.json`` (sizes and, if untied, the head).

    Every leaf is drawn in the order in which it stands here: matrices uniform in
    +-``GAIN / sqrt(n_embd)``, biases in +-``SPREAD``, gains in 1 +- ``SPREAD``.
    """
    bits = np.random.Philox(seed)

    def uniform(shape, half_width, centre=0.0):
        # From raw bits: NumPy promises this stream, but not that of its distributions.
        raw = bits.random_raw(int(np.prod(shape))) >> np.uint64(40)
        unit = raw.astype(np.float32) * np.float32(2.0**-23) - np.float32(1.0)
        return (unit * np.float32(half_width) + np.float32(centre)).reshape(shape)

    def norm(*stack):
        return {
            "scale": uniform((*stack, embed), SPREAD, 1.0),
            "bias": uniform((*stack, embed), SPREAD),
        }

    def dense(rows, columns):
        kernel = uniform((layers, rows, columns), scale)
        return {"kernel": kernel, "bias": uniform((layers, columns), SPREAD)}

    scale = GAIN / config["n_embd"] ** 0.5
    layers, embed, vocab = config["n_layer"], config["n_embd"], config["vocab_size"]
    inner = config.get("n_inner") or 4 * embed
    params = {
        "wte": uniform((vocab, embed), scale),
        "wpe": uniform((config["n_positions"], embed), scale),
        "h": {
            "ln_1": norm(layers),
            "attn": {"c_attn": dense(embed, 3 * embed), "c_proj": dense(embed, embed)},
            "ln_2": norm(layers),
            "mlp": {"c_fc": dense(embed, inner), "c_proj": dense(inner, embed)},
        },
        "ln_f": norm(),
    }
    if config.get("tie_word_embeddings") is False:
        params["lm_head"] = {"weight": uniform((vocab, embed), scale)}
    return params


def random_tokens(config, shape, seed):
    """Token ids [batch, position], uniform over the vocabulary."""
    raw = np.random.Philox(seed).random_raw(int(np.prod(shape)))
    return (raw % np.uint64(config["vocab_size"])).astype(np.int32).reshape(shape)


def torch_names(params):
    """The same weights as the state dict of PyTorch's ``GPT2LMHeadModel``."""
    state = {"transformer.wte.weight": params["wte"], "transformer.wpe.weight": params["wpe"]}
    for name, part in (("weight", "scale"), ("bias", "bias")):
        state[f"transformer.ln_f.{name}"] = params["ln_f"][part]
    h = params["h"]
    for layer in range(len(h["ln_1"]["scale"])):
        prefix = f"transformer.h.{layer}"
        for norm in ("ln_1", "ln_2"):
            state[f"{prefix}.{norm}.weight"] = h[norm]["scale"][layer]
            state[f"{prefix}.{norm}.bias"] = h[norm]["bias"][layer]
        for part, name in (
            ("attn", "c_attn"),
            ("attn", "c_proj"),
            ("mlp", "c_fc"),
            ("mlp", "c_proj"),
        ):
            state[f"{prefix}.{part}.{name}.weight"] = h[part][name]["kernel"][layer]
            state[f"{prefix}.{part}.{name}.bias"] = h[part][name]["bias"][layer]
    state["lm_head.weight"] = params.get("lm_head", {}).get("weight", params["wte"])
    return state


def random_state(shapes, seed):
    """A state dict of any family, from names and shapes in PyTorch's layout.

    Drawn in the order of the names: matrices uniform in +-``GAIN / sqrt(columns)``, biases in
    +-``SPREAD``, other vectors in 1 +- ``SPREAD``.
    """
    bits = np.random.Philox(seed)
    state = {}
    for name, shape in sorted(shapes.items()):
        raw = bits.random_raw(int(np.prod(shape))) >> np.uint64(40)
        unit = (raw.astype(np.float32) * np.float32(2.0**-23) - np.float32(1.0)).reshape(shape)
        half_width = SPREAD if len(shape) == 1 else GAIN / shape[-1] ** 0.5
        is_gain = len(shape) == 1 and not name.endswith("bias")
        state[name] = unit * np.float32(half_width) + np.float32(is_gain)
    return state


def fingerprint(params):
    """SHA-256 over the state dict, so that a golden says whether it is about these weights."""
    return fingerprint_of_state(torch_names(params))


def fingerprint_of_state(state):
    """The same of a state dict."""
    total = hashlib.sha256()
    for name, value in sorted(state.items()):
        total.update(name.encode())
        total.update(np.ascontiguousarray(value, "<f4").tobytes())
    return total.hexdigest()
