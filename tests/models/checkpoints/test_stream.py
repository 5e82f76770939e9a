"""Checkpoints read leaf by leaf are never whole in memory; for their bits see conftest."""

import checkpoints
import pytest

from jaxlens import models
from jaxlens.models.checkpoints import checkpoint, layout

# 290 MiB of float32 weights, of which the largest leaf is a third.
SIZES = {"model_type": "gpt2", "n_layer": 24, "n_head": 8, "n_embd": 512}
SIZES |= {"n_positions": 32, "vocab_size": 1000, "bos_token_id": None}
WHOLE = 290

TAKE = """
import sys
import orbax.checkpoint, safetensors.numpy
from jaxlens.models.checkpoints import checkpoint
mark()
total = 0
for _, value in checkpoint.load(sys.argv[1], read=False).take():
    total += value.nbytes
    del value
assert total > 280 * 2**20
"""


@pytest.mark.long
@pytest.mark.parametrize("fmt", ["safetensors", "orbax"])
def test_reading_leaf_by_leaf_takes_little_more_than_the_largest(tmp_path, memory_growth, fmt):
    architecture = models.parse(SIZES)
    checkpoint.save(tmp_path / "m", architecture, models.init(architecture, 0), fmt)
    # Orbax reads a leaf into memory of its own before it hands it over.
    assert memory_growth(TAKE, tmp_path / "m") < (0.5 if fmt == "safetensors" else 0.9) * WHOLE


def test_without_a_hash_the_leaves_are_the_same_and_there_is_none(tmp_path):
    found = {}
    architecture = models.parse(SIZES | {"n_layer": 2, "n_embd": 16})
    checkpoint.save(tmp_path / "m", architecture, models.init(architecture, 0), "safetensors")
    for with_hash in (True, False):
        loaded = checkpoint.load(tmp_path / "m", read=False)
        leaves = dict(loaded.take(with_hash=with_hash))
        found[with_hash] = layout.nested(leaves)
    checkpoints.assert_same_bits(found[False], found[True])
    with pytest.raises(ValueError, match="without their hash"):
        _ = loaded.sha256


LOAD = """
import sys
import jax, safetensors.numpy
from jaxlens.models import loading
jax.numpy.ones(1).block_until_ready()
mark()
checkpoint = loading.load_checkpoint(sys.argv[1], read=False)
model = loading.from_checkpoint(checkpoint, sys.argv[2])
"""


@pytest.mark.long
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_model_takes_little_more_than_its_own_bytes(tmp_path, memory_growth, dtype):
    wide = models.parse(SIZES | {"n_layer": 12, "vocab_size": 100_000})  # the embedding: 195 MiB
    checkpoint.save(tmp_path / "m", wide, models.init(wide, 0), "safetensors")
    own = models.leaves(wide).count(with_optional=False) * (4 if dtype == "float32" else 2)
    assert memory_growth(LOAD, tmp_path / "m", dtype) < 1.1 * own / 2**20
