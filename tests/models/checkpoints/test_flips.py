"""One flipped bit in a weights file: refused, or the digest differs, or nothing has changed."""

import collections

import checkpoints
import numpy as np
import pytest

from jaxlens import errors
from jaxlens.models.checkpoints import checkpoint

FLIPS = 1_000
HEAD = 2_000
"""Bytes at the start, where half of the flips go: most of the structure of either format."""


def flipped(data, count, seed):
    """Copies with one bit flipped, all different, half of them in the first ``HEAD`` bytes."""
    random = np.random.default_rng(seed)
    head = random.choice(8 * HEAD, count // 2, replace=False)
    rest = 8 * HEAD + random.choice(8 * (len(data) - HEAD), count - count // 2, replace=False)
    for bit in [*head, *rest]:
        copy = bytearray(data)
        copy[bit // 8] ^= 1 << (bit % 8)
        yield bytes(copy)


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(checkpoints.CONFIG, id="tied", marks=pytest.mark.long),
        pytest.param(checkpoints.UNTIED, id="untied"),
    ],
)
@pytest.mark.parametrize("fmt", checkpoints.FILE)
def test_no_flipped_bit_is_silent(tmp_path, fmt, config):
    architecture, params = checkpoints.make(config)
    checkpoint.save(tmp_path, architecture, params, fmt)
    path, digest = tmp_path / checkpoints.FILE[fmt], checkpoint.digest(params)
    outcomes = collections.Counter()
    for raw in flipped(path.read_bytes(), FLIPS, seed=3):
        path.write_bytes(raw)
        try:
            found = checkpoint.load(tmp_path)
        except errors.DataError as error:
            assert checkpoints.FILE[fmt] in error.message
            outcomes["refused"] += 1
            continue
        assert found.architecture == architecture
        if checkpoint.digest(found.params) == digest:
            checkpoints.assert_same_bits(found.params, params)
            outcomes["harmless"] += 1
        else:
            outcomes["changed"] += 1
    assert outcomes.total() == FLIPS
    # Flips in numbers change the digest; flips in structure are refused.
    assert outcomes["changed"] > FLIPS // 4
    assert outcomes["refused"] > FLIPS // 20


@pytest.mark.parametrize("path", ["wte", "h/attn/c_proj/kernel", "ln_f/bias"])
def test_every_bit_of_a_number_decides_the_digest(path):
    _, params = checkpoints.make()
    leaves = checkpoints.layout.flat(params)
    digests = {checkpoint.digest(params)}
    for bit in range(32):
        value = leaves[path].copy()
        value.reshape(-1).view(np.uint32)[1] ^= np.uint32(1 << bit)
        digests.add(checkpoint.digest(checkpoints.layout.nested({**leaves, path: value})))
    assert len(digests) == 33
