"""A vocabulary of 262,144 tokens, Gemma 3's, from the sweep to the report."""

import numpy as np
import pytest
from families import gemma
from families.weights import random_weights
from sweeps import PACKAGED, configure, run_cli

import jaxlens
from jaxlens import models
from jaxlens.models.checkpoints import checkpoint
from jaxlens.store import verify
from jaxlens.sweep import run

VOCABULARY = 262_144


@pytest.mark.long
@pytest.mark.parametrize("tallies", ["basic", "study"])
def test_a_run_is_verified_studied_and_reported(tallies, texts, tmp_path):
    architecture = models.parse(gemma.CASES["gemma2"] | {"vocab_size": VOCABULARY})
    params = random_weights(architecture)
    checkpoint.save(
        tmp_path / "model", architecture, params, "safetensors", tokenizer_from=PACKAGED
    )
    out = tmp_path / "run"
    settings = {"store.tallies": tallies, "store.shard_tokens": 65_536, "corpus.limit": 600}
    assert run.run(configure(tmp_path / "model", texts, out, **settings)).finished
    assert verify.verify(out).ok
    assert run_cli("verify", out, "--untrusted") == 0
    with jaxlens.open_run(out) as found:
        assert found["top_id"][:].max() > 65_535
        assert found["rank_foreign"][:].dtype.itemsize >= 4
        counted = found.tally["token_sum_ln_rank_input"]
        assert counted.shape == (VOCABULARY, architecture.n_layer + 1)
        logs = np.log(found["rank_input"][:].astype(np.float64))
        np.testing.assert_allclose(counted.sum(0) / 65_536, logs.sum(0), rtol=1e-4)
    assert run_cli("study", out) == 0
    assert run_cli("report", out) == 0
    assert (out / "report.html").stat().st_size > 100_000
