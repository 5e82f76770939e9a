"""Random inputs of a lens, with everything that a lens can take."""

import dataclasses

import numpy as np

from jaxlens import types

LAYERS, BATCH, POSITION, EMBED = 4, 3, 5, 24


@dataclasses.dataclass(frozen=True)
class Case:
    residuals: np.ndarray
    unembed: types.Unembed
    references: types.References


def make_case(
    vocab, kind="final_norm", shift=0.0, seed=0, batch=BATCH, position=POSITION, embed=EMBED
):
    random = np.random.default_rng(seed)
    normal = lambda *shape: random.standard_normal(shape).astype(np.float32)  # noqa: E731
    ids = lambda *shape: random.integers(-1, vocab, shape).astype(np.int32)  # noqa: E731
    mask = np.arange(position) < np.array([position, 0, 1])[:batch, None]
    tokens = np.where(mask, np.abs(ids(batch, position)), 0)
    unembed = types.Unembed(
        kind=kind,
        scale=1 + 0.3 * normal(embed),
        bias=0.3 * normal(embed),
        eps=1e-5,
        weight=0.5 * normal(vocab, embed),
        output_bias=np.float32(shift) + normal(vocab),
        # Colder and warmer than 1; the last layer's is 1 by definition.
        temperature=np.array([0.5, *np.linspace(2.0, 30.0, LAYERS - 2), 1.0], np.float32),
    )
    grid = (batch, position)
    references = types.References(tokens, ids(*grid), ids(*grid), ids(*grid), mask, ids(*grid, 2))
    # Residuals far from the origin, as GPT-2's are.
    return Case(30 * normal(LAYERS, batch, position, embed) + 100, unembed, references)


def capped(case, softcap=30.0):
    """The head of a Gemma 2: logits of up to 90 under a cap, RMS norms, a scaled embedding."""
    unembed = dataclasses.replace(
        case.unembed,
        # A mean row, which a lens that centres it before the cap takes away.
        weight=10 * case.unembed.weight + np.float32(1.0),
        bias=None,
        norm="rms",
        softcap=softcap,
        embedding_scale=float(np.float32(np.sqrt(case.unembed.weight.shape[1]))),
    )
    return dataclasses.replace(case, unembed=unembed, residuals=case.residuals - 90)
