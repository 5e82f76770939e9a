"""A probe from the definitions, in float64 NumPy, and made streams for the real one."""

import jax.numpy as jnp
import numpy as np

from jaxlens import types
from jaxlens.sweep.probe import data, discriminant, evaluate, moments

RIDGE, PRIOR, MIN_COUNT = 1e-3, 0.5, 2


def scores(streams, labels, n_classes, at):
    """Log-posteriors ``[row, class]`` of linear discriminant analysis, minus infinity for others.

    ``streams [row, embed]`` and ``labels`` (-1: of no class) are what it learns from, ``at`` what
    it reads. Written from the Gaussian density of each class.
    """
    streams, at = np.asarray(streams, np.float64), np.asarray(at, np.float64)
    counts = np.array([(labels == k).sum() for k in range(n_classes)])
    candidates = [k for k in range(n_classes) if counts[k] >= MIN_COUNT]
    residuals, means = [], {}
    for k in candidates:
        rows = streams[labels == k]
        means[k] = rows.mean(0)
        residuals.append(rows - means[k])
    residuals = np.concatenate(residuals)
    covariance = residuals.T @ residuals / (len(residuals) - len(candidates))
    embed = streams.shape[1]
    ridge = RIDGE * np.trace(covariance) / embed
    precision = np.linalg.inv(covariance + ridge * np.eye(embed))
    total = counts[candidates].sum() + PRIOR * len(candidates)
    result = np.full((len(at), n_classes), -np.inf)
    for k in candidates:
        away = at - means[k]
        density = -0.5 * np.einsum("re,ef,rf->r", away, precision, away)
        result[:, k] = density + np.log((counts[k] + PRIOR) / total)
    return result


def log_softmax(z):
    shifted = z - z.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def rank(z, label):
    own = z[np.arange(len(z)), label]
    return 1 + (z > own[:, None]).sum(1)


def unembed(weight):
    """A decoder that hands on the direction of a stream, and a head."""
    embed = weight.shape[1]
    return types.Unembed(
        kind="plain",
        scale=jnp.ones(embed, jnp.float32),
        bias=jnp.zeros(embed, jnp.float32),
        eps=1e-5,
        weight=jnp.asarray(weight, jnp.float32),
    )


def rows(labels, groups=None, rarity=0):
    """All positions of one line, with a label for each target."""
    n = labels.shape[1]
    groups = np.arange(n) % 256 if groups is None else groups
    zeros = np.zeros(n, np.int64)
    bins = np.full(labels.shape, rarity, np.int32)
    slot = np.arange(n, dtype=np.int32)
    return data.Rows(slot, labels.astype(np.int32), bins, groups.astype(np.int32), zeros)


def batched(streams):
    """``[layer, row, embed]`` as one line of a batch, float32."""
    return jnp.asarray(streams[:, None], jnp.float32)


def learn(streams, labels, n_classes, step=1000):
    """Moments of streams ``[layer, row, embed]`` and labels ``[target, row]``, in steps."""
    n_layers, n, embed = streams.shape
    totals = moments.zeros(n_layers, n_classes, embed)
    scale = moments.scale(batched(streams[:, :step]), np.arange(min(step, n), dtype=np.int32))
    for first in range(0, n, step):
        part = labels[:, first : first + step]
        here = batched(streams[:, first : first + step])
        totals = moments.add(totals, here, scale, rows(part), part.astype(np.int32))
    return moments.Totals(*map(np.asarray, totals)), scale


def fit(totals, scale, counts, weight):
    """Readers of all layers; the lens has the head ``weight``."""
    n_layers = len(scale.unit)
    fitted = [
        [
            discriminant.fit(moments.of_layer(totals, layer, t), count, count >= MIN_COUNT)
            for t, count in enumerate(counts)
        ]
        for layer in range(n_layers)
    ]
    stacked = [
        np.array([[getattr(one, name) for one in layer] for layer in fitted], np.float32)
        for name in ("weight", "bias")
    ]
    readers = evaluate.Readers(
        *stacked, scale, np.arange(n_layers, dtype=np.int32), unembed(weight)
    )
    return fitted, readers


def judge(streams, labels, readers, groups=None):
    """``[target, readout, statistic, layer]`` of streams, over rarity and groups."""
    totals = evaluate.zeros(len(streams))
    judged = rows(labels, groups)
    totals = evaluate.add(
        totals, batched(streams), readers, judged, labels.astype(np.int32), "float32"
    )
    return evaluate.arranged(np.asarray(totals))
