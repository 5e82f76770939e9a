"""What several families compute alike, in float64."""

import math

import numpy as np


def rms_norm(x, gain, eps):
    return x / np.sqrt(np.mean(x * x, -1, keepdims=True) + eps) * gain


def layer_norm(x, gain, bias, eps):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt(np.mean(centred**2, -1, keepdims=True) + eps) * gain + bias


def linear(x, state, name):
    """PyTorch's ``Linear``: the weight is ``[out, in]``, the bias may be missing."""
    product = x @ state[f"{name}.weight"].T
    return product + state[f"{name}.bias"] if f"{name}.bias" in state else product


def silu(x):
    return x / (1 + np.exp(-x))


def gelu_tanh(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def gelu(x):
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


ACTIVATIONS = {
    "silu": silu,
    "gelu": gelu,
    "gelu_new": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "relu": lambda x: np.maximum(x, 0),
}


def frequencies(size, theta, scaling=None):
    """Radians a position, by the published rules."""
    found = [theta ** (-2 * i / size) for i in range(size // 2)]
    kind = (scaling or {}).get("rope_type", "default")
    if kind == "linear":
        return np.array([one / scaling["factor"] for one in found])
    if kind == "llama3":
        original = scaling["original_max_position_embeddings"]
        low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
        scaled = []
        for one in found:
            wave = 2 * math.pi / one
            if wave < original / high:
                scaled.append(one)
            elif wave > original / low:
                scaled.append(one / scaling["factor"])
            else:
                smooth = (original / wave - low) / (high - low)
                scaled.append((1 - smooth) * one / scaling["factor"] + smooth * one)
        return np.array(scaled)
    assert kind == "default", kind
    return np.array(found)


def rotated(row, position, found):
    """One head's entries, ``row[i]`` and ``row[i + half]`` turned as one complex number."""
    half = len(found)
    turned = (row[:half] + 1j * row[half : 2 * half]) * np.exp(1j * position * found)
    return np.concatenate([turned.real, turned.imag, row[2 * half :]])


def attention(query, key, value, scale, segments, window=None, softcap=None):
    """``[position, head, size]`` each; several heads of queries may share one of keys."""
    length, heads, _ = query.shape
    shared = heads // key.shape[1]
    mixed = np.zeros((length, heads, value.shape[-1]))
    for head in range(heads):
        for at in range(length):
            first = 0 if window is None else max(0, at - window + 1)
            seen = [to for to in range(first, at + 1) if segments[to] == segments[at]]
            scores = scale * key[seen, head // shared] @ query[at, head]
            if softcap is not None:
                scores = softcap * np.tanh(scores / softcap)
            weights = np.exp(scores - scores.max())
            mixed[at, head] = weights / weights.sum() @ value[seen, head // shared]
    return mixed
