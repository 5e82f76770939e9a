"""The pre-pass of a sweep: each layer's temperature, fitted to a hundredth of the text.

The text is what begins the documents with the lowest hashes, one context each, so that it depends
on neither the order of the corpus nor the shape of steps. The temperatures stand in the spec.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxlens import models, types
from jaxlens.corpus import plan, token_file
from jaxlens.lens import mesh, numerics, temperature
from jaxlens.models import loading
from jaxlens.sweep import devices, environment
from jaxlens.sweep import tokens as run_tokens
from jaxlens.sweep.resolve import Resolved
from jaxlens.tally import hashing

logger = logging.getLogger("jaxlens")

SHARE = 0.01
"""Share of the tokens that is fitted to."""

MIN_TOKENS, MAX_TOKENS = 1_024, 65_536
"""Fewest tokens that are fitted to, where the corpus has them, and most."""

_CHUNK = 1_024
"""Positions that go through the model at once."""


def fit_temperatures(
    resolved: Resolved, model: loading.Model, tokens: token_file.TokenFile
) -> tuple[float, ...]:
    """The temperature of every layer, 1 for the last.

    Args:
        resolved: The configuration.
        model: On the default device.
        tokens: Token file.
    """
    logger.info("fitting a temperature to each layer")
    config, length = resolved.config, resolved.length
    bos_id = run_tokens.window_bos(config, model)
    length -= plan.lead(bos_id)
    documents = sample(tokens.index, length)
    width = _width(tokens.index, documents, length)
    chunks = list(_chunks(tokens, documents, width, bos_id))
    unembed = models.unembed(model.params, model.config, config.lens.decoder)
    weights = [group.put((model.params, unembed)) for group in devices.groups(config)]

    def slopes_at(inverse_temperature: np.ndarray) -> np.ndarray:
        # All are dispatched before one is waited for, so that all devices work.
        fixed = resolved.architecture, config.lens.precision
        count = resolved.model_devices
        slopes = [
            _slopes(*fixed, *weights[i % len(weights)], *chunk, inverse_temperature, count)
            for i, chunk in enumerate(chunks)
        ]
        return np.sum([np.asarray(slope, np.float64) for slope in slopes], axis=0)

    with numerics.matmul_precision(config.lens.precision):
        fitted = temperature.search(slopes_at, model.config.n_layer + 1)
    environment.release_memory()
    ends = temperature.LIMITS
    if stopped := [str(layer) for layer, found in enumerate(fitted) if found in ends]:
        logger.warning(
            "the best temperature of layer %s is beyond %g to %g, where the search ends: "
            "kl_final_matched is an upper bound there",
            *(", ".join(stopped), *ends),
        )
    return fitted


def sample(index: token_file.Index, length: int) -> Int[np.ndarray, " document"]:
    """Documents whose beginnings are fitted to, in the order of their hashes.

    Args:
        index: Of the token file.
        length: Tokens that are taken of each at most.
    """
    sizes = np.minimum(np.diff(index.document_start), length)
    order = np.lexsort((np.arange(index.n_documents), hashing.mix(index.document_hash)))
    wanted = min(max(SHARE * index.n_tokens, MIN_TOKENS), MAX_TOKENS)
    reached = np.cumsum(sizes[order])
    return order[: int(np.searchsorted(reached, wanted)) + 1]


def _width(index: token_file.Index, documents: Int[np.ndarray, " document"], length: int) -> int:
    """Positions a line: short documents are not padded to a whole context.

    A power of two, so that corpora of about the same documents share what was compiled.
    """
    longest = int(np.diff(index.document_start)[documents].max())
    return min(length, 1 << (longest - 1).bit_length())


def _chunks(
    tokens: token_file.TokenFile,
    documents: Int[np.ndarray, " document"],
    length: int,
    bos_id: int | None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Tokens ``[batch, position]`` of equal shapes, a document a line, and their mask.

    Lines hold ``length`` tokens of a document, after a BOS token if there is one, which is masked.
    """
    lines, lead = max(1, _CHUNK // length), plan.lead(bos_id)
    start = tokens.index.document_start
    for first in range(0, len(documents), lines):
        grid = np.zeros((lines, lead + length), np.int32)
        mask = np.zeros((lines, lead + length), bool)
        grid[:, :lead] = bos_id or 0
        for line, document in enumerate(documents[first : first + lines]):
            begin = int(start[document])
            ids = tokens.read(begin, min(begin + length, int(start[document + 1])))
            here = slice(lead, lead + len(ids))
            grid[line, here], mask[line, here] = ids, True
        yield grid, mask


@functools.partial(jax.jit, static_argnums=(0, 1, 7))
def _slopes(
    architecture: types.Architecture,
    precision: str,
    params: types.Params,
    unembed: types.Unembed,
    grid: Int[Array, "batch position"],
    mask: Bool[Array, "batch position"],
    inverse_temperature: Float[Array, "layer point"],
    count: int = 1,
) -> Float[Array, "layer point"]:
    """`temperature.slopes` of tokens, on the ``count`` devices where the parameters lie."""
    with mesh.context(count):
        streams = models.residuals(params, architecture, grid)
    return temperature.slopes(streams, mask, unembed, inverse_temperature, precision)
