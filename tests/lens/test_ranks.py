"""Counts of greater logits with the choices of every backend, beside counting them one by one."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from jaxlens.lens import ranks, tuning

LAYERS, TOKENS, TILE, N_TILES = 2, 3, 64, 2
VOCAB = TILE * N_TILES
LOGITS = (LAYERS, TOKENS, VOCAB)


def count(platform, z, reference_logits, ids):
    """Counts of all tiles, with the choices of a platform, on this CPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuning, "CPU", getattr(tuning, platform))
        counts = ranks.start(reference_logits, ids)
        for column in range(0, VOCAB, TILE):
            tile = z[..., column : column + TILE]
            counts = counts + ranks.count_greater(tile, column, reference_logits, ids)
    return np.asarray(counts)


def gather(z, ids):
    return np.take_along_axis(z, np.broadcast_to(ids, (LAYERS, *ids.shape)), -1)


def expect(z, ids):
    above = z[:, :, None, :] > gather(z, ids)[..., None]
    return above.sum(-1)


@pytest.mark.parametrize("platform", ["CPU", "GPU", "TPU"])
@hypothesis.given(
    seed=st.integers(0, 2**32 - 1), values=st.integers(1, 300), references=st.integers(1, 7)
)
@hypothesis.settings(max_examples=15, deadline=None)
def test_other_tokens_with_greater_logits_are_counted_once(platform, seed, values, references):
    rng = np.random.default_rng(seed)
    z = rng.integers(0, values, LOGITS).astype(np.float32)
    # Of so few tokens some are several references at once.
    ids = rng.choice(rng.integers(0, VOCAB, 4), (TOKENS, references)).astype(np.int32)
    np.testing.assert_array_equal(count(platform, z, gather(z, ids), ids), expect(z, ids))


# As where a product of one row rounds otherwise than one of a tile.
@pytest.mark.parametrize("platform", ["CPU", "GPU", "TPU"])
@pytest.mark.parametrize("towards", [-np.inf, np.inf])
def test_a_reference_is_not_above_itself_however_its_logit_is_rounded(platform, towards):
    rng = np.random.default_rng(4)
    z = np.stack([rng.permutation(VOCAB) for _ in range(LAYERS * TOKENS)])
    z = z.reshape(LOGITS).astype(np.float32)
    ids = rng.integers(0, VOCAB, (TOKENS, 5)).astype(np.int32)
    ids[:, 4] = ids[:, 0]
    rounded = np.nextafter(gather(z, ids), np.float32(towards))
    np.testing.assert_array_equal(count(platform, z, rounded, ids), expect(z, ids))
