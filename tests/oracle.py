"""Float64 NumPy GPT-2 and lens, written from the definitions and from nothing else.

Everything is materialised and slow on purpose. Parameters are the stacked pytree (leaves under
``h`` have a leading layer axis, kernels are ``[in, out]``); ``config`` is a decoded
``config.json`` or anything with the same names as attributes.
"""

import math

import numpy as np

_erf = np.frompyfunc(math.erf, 1, 1)


def _sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def _gelu_tanh(x):
    return 0.5 * x * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (x + 0.044715 * x**3)))


ACTIVATIONS = {
    "gelu_new": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "gelu_fast": _gelu_tanh,
    "gelu": lambda x: 0.5 * x * (1.0 + np.asarray(_erf(x / np.sqrt(2.0)), np.float64)),
    "relu": lambda x: np.maximum(x, 0.0),
    "silu": lambda x: x * _sigmoid(x),
    "swish": lambda x: x * _sigmoid(x),
    "tanh": np.tanh,
    "quick_gelu": lambda x: x * _sigmoid(1.702 * x),
}


def option(config, name, default):
    """A value of the configuration: a decoded ``config.json`` or an ``Architecture``."""
    value = (config.spec() if hasattr(config, "spec") else config).get(name)
    return default if value is None else value


def _f64(array):
    return np.asarray(array).astype(np.float64)


def normalise(x, eps):
    """Layer norm without gain and bias."""
    mean = x.mean(-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + eps)


def layer_norm(x, norm, eps):
    return normalise(x, eps) * _f64(norm["scale"]) + _f64(norm["bias"])


def _dense(x, layer):
    return x @ _f64(layer["kernel"]) + _f64(layer["bias"])


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def log_softmax(z):
    shifted = z - z.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def attention(x, layer, config, index, segments):
    """Causal self-attention of layer ``index``; within a segment where segments are given."""
    batch, length, embed = x.shape
    heads = option(config, "n_head", None)
    width = embed // heads
    query, key, value = np.split(_dense(x, layer["c_attn"]), 3, axis=-1)
    by_head = (batch, length, heads, width)
    query, key, value = (part.reshape(by_head).swapaxes(1, 2) for part in (query, key, value))
    scores = query @ key.swapaxes(-1, -2)
    if option(config, "scale_attn_weights", True):
        scores = scores / np.sqrt(width)
    if option(config, "scale_attn_by_inverse_layer_idx", False):
        scores = scores / (index + 1)
    allowed = np.tril(np.ones((length, length), bool))[None, None]
    if segments is not None:
        allowed = allowed & (segments[:, None, :, None] == segments[:, None, None, :])
    mixed = softmax(np.where(allowed, scores, -np.inf)) @ value
    return _dense(mixed.swapaxes(1, 2).reshape(batch, length, embed), layer["c_proj"])


def _layer(tree, index):
    if isinstance(tree, dict):
        return {name: _layer(part, index) for name, part in tree.items()}
    return np.asarray(tree)[index]


def residuals(params, config, tokens, positions=None, segments=None, patch=lambda layer, h: h):
    """``[n_layer + 1, batch, position, embed]`` float64: embedding, then after each block."""
    tokens = np.asarray(tokens)
    if positions is None:
        positions = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)
    segments = None if segments is None else np.asarray(segments)
    eps = option(config, "layer_norm_epsilon", 1e-5)
    activation = ACTIVATIONS[option(config, "activation_function", "gelu_new")]
    h = _f64(np.asarray(params["wte"])[tokens]) + _f64(
        np.asarray(params["wpe"])[np.asarray(positions)]
    )
    h = patch(0, h)
    streams = [h]
    for index in range(option(config, "n_layer", None)):
        block = _layer(params["h"], index)
        h = h + attention(layer_norm(h, block["ln_1"], eps), block["attn"], config, index, segments)
        hidden = activation(_dense(layer_norm(h, block["ln_2"], eps), block["mlp"]["c_fc"]))
        h = patch(index + 1, h + _dense(hidden, block["mlp"]["c_proj"]))
        streams.append(h)
    return np.stack(streams)


def head(params):
    """``(weight [vocab, embed], bias [vocab] or None)`` of the unembedding."""
    stored = params.get("lm_head", {})
    return stored.get("weight", params["wte"]), stored.get("bias")


def rms_normalise(x, eps):
    """RMS norm without gain."""
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps)


def decode(streams, unembed):
    """Normalised residuals: the decoder at every layer, the model's own ``ln_f`` at the last.

    ``unembed`` has ``kind``, ``scale``, ``bias``, ``eps`` and maybe ``norm``.
    """
    norm = rms_normalise if getattr(unembed, "norm", "layer") == "rms" else normalise
    plain = norm(_f64(streams), unembed.eps)
    scale = _f64(unembed.scale)
    bias = 0.0 * scale if unembed.bias is None else _f64(unembed.bias)
    decoded = {
        "final_norm": plain * scale + bias,
        "plain": plain.copy(),
        "final_norm_nobias": plain * scale,
    }[unembed.kind]
    decoded[-1] = plain[-1] * scale + bias
    return decoded


def logits(streams, unembed):
    """``[layer, batch, position, vocab]`` float64."""
    z = decode(streams, unembed) @ _f64(unembed.weight).T
    z = z if unembed.output_bias is None else z + _f64(unembed.output_bias)
    cap = getattr(unembed, "softcap", None)
    return z if cap is None else cap * np.tanh(z / cap)


def rank(z, token):
    """``1 + #{v != token : z_v > z_token}`` along the last axis."""
    return rank_interval(z, token, 0.0)[0]


def ties(z, token):
    """``#{v != token : z_v == z_token}``."""
    at = np.take_along_axis(z, np.asarray(token)[..., None], -1)
    return (z == at).sum(-1) - 1


def rank_interval(z, token, gap):
    """Smallest and largest rank that logits off by less than ``gap`` from each other can give.

    ``[1 + #{v != t : z_v > z_t + gap}, 1 + #{v != t : z_v > z_t - gap}]``: a float32 rank outside
    of it is wrong, one inside differs by near-ties only.
    """
    token = np.asarray(token)
    at = np.take_along_axis(z, token[..., None], -1)
    other = np.arange(z.shape[-1]) != token[..., None]
    low = 1 + ((z > at + gap) & other).sum(-1)
    high = 1 + ((z > at - gap) & other).sum(-1)
    return low, high


def kl(log_p, log_q):
    """``KL(p || q)`` in nats."""
    return (np.exp(log_p) * (log_p - log_q)).sum(-1)


def js(log_p, log_q):
    """Jensen-Shannon divergence in nats."""
    log_m = np.logaddexp(log_p, log_q) - np.log(2.0)
    return 0.5 * kl(log_p, log_m) + 0.5 * kl(log_q, log_m)


def lens(streams, unembed, references, top_k=1, gap=0.0, tau=None):
    """Every quantity of the lens by name, ``[layer, batch, position(, k or m)]``, float64 or int.

    Args:
        streams: All residuals, before ``ln_f``.
        unembed: ``types.Unembed`` or the like.
        references: Has ``input next foreign copy mask`` and maybe ``follow``; -1 is missing.
        top_k: Clipped to the vocabulary.
        gap: Width in which two logits count as nearly tied; ``rank_*_low`` and ``rank_*_high``
            bound the ranks that this allows.
        tau: Temperature of each layer, for ``kl_final_matched``.

    Returns:
        Masked like the engine: rank 0, NaN, id -1. ``top_gap`` is the distance between the two
        largest logits, which says where ``top_id`` is a matter of rounding.
    """
    z = logits(streams, unembed)
    log_p = log_softmax(z)
    mask = np.asarray(references.mask, bool)
    out = {"entropy": -(np.exp(log_p) * log_p).sum(-1)}
    for name, end in (("final", log_p[-1]), ("input", log_p[0])):
        out[f"kl_{name}"] = kl(end[None], log_p)
        out[f"kl_to_{name}"] = kl(log_p, end[None])
        out[f"js_{name}"] = js(end[None], log_p)
    if tau is not None:
        tempered = log_softmax(z / _f64(tau)[:, None, None, None])
        out["kl_final_matched"] = kl(log_p[-1][None], tempered)
    order = np.argsort(-z, axis=-1, kind="stable")[..., : min(top_k, z.shape[-1])]
    out["top_id"], out["top_logp"] = order, np.take_along_axis(log_p, order, -1)
    best = -np.partition(-z, 1, axis=-1)[..., :2]
    out["top_gap"] = best[..., 0] - best[..., 1]
    out |= _of_residuals(streams, unembed, references)
    out = {name: _masked(value, mask) for name, value in out.items()}
    for name, tokens in _reference_tokens(z, references).items():
        out |= _of_token(z, log_p, name, tokens, mask, gap)
    return out


def _reference_tokens(z, references):
    names = ("input", "next", "foreign", "copy", "follow")
    found = {name: getattr(references, name, None) for name in names}
    found = {name: np.asarray(ids) for name, ids in found.items() if ids is not None}
    return found | {"final": z[-1].argmax(-1)}


def _of_residuals(streams, unembed, references):
    streams = _f64(streams)
    own = getattr(unembed, "embedding", None)
    table = _f64(unembed.weight if own is None else own) * getattr(unembed, "embedding_scale", 1.0)
    found = {"norm": np.sqrt((streams * streams).sum(-1))}
    for name, tokens in (
        ("retention", references.input),
        ("retention_foreign", references.foreign),
    ):
        tokens = np.asarray(tokens)
        rows = table[np.maximum(tokens, 0)] - table.mean(0)
        projection = (streams * rows).sum(-1) / (rows * rows).sum(-1)
        found[name] = np.where(tokens >= 0, projection, np.nan)
    return found


def _of_token(z, log_p, name, tokens, mask, gap):
    """Rank, interval, ties and log-probability of one reference, or of ``m`` followed tokens."""
    many = tokens if tokens.ndim == 3 else tokens[..., None]
    present = mask[..., None] & (many >= 0)
    ids = np.broadcast_to(np.maximum(many, 0), (len(z), *many.shape))
    columns = {"rank": [], "rank_low": [], "rank_high": [], "ties": [], "logp": []}
    for m in range(ids.shape[-1]):
        low, high = rank_interval(z, ids[..., m], gap)
        columns["rank"].append(rank(z, ids[..., m]))
        columns["rank_low"].append(low)
        columns["rank_high"].append(high)
        columns["ties"].append(ties(z, ids[..., m]))
        columns["logp"].append(np.take_along_axis(log_p, ids[..., m, None], -1)[..., 0])
    out = {}
    for kind, values in columns.items():
        value = np.stack(values, -1)
        missing = np.nan if kind == "logp" else 0
        value = np.where(present[None], value, missing)
        base, _, bound = kind.partition("_")
        key = f"{base}_{name}" + (f"_{bound}" if bound else "")
        out[key] = value if tokens.ndim == 3 else value[..., 0]
    return out


def _masked(value, mask):
    mask = mask[None].reshape(1, *mask.shape, *([1] * (value.ndim - 3)))
    return np.where(mask, value, -1 if np.issubdtype(value.dtype, np.integer) else np.nan)
