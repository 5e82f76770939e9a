"""Benchmarks that call the engine themselves run, at a size of seconds, and compute the same."""

import importlib.util
import pathlib
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from jaxlens import models, types
from jaxlens.lens import reference
from jaxlens.lens.options import Options
from jaxlens.models import loading

BENCHMARKS = pathlib.Path(__file__).parents[2] / "benchmarks"


def module(monkeypatch, path):
    """A script as a module; the scripts of its folder are imported by their bare names."""
    monkeypatch.syspath_prepend(str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.fixture
def case(monkeypatch):
    return module(monkeypatch, BENCHMARKS / "peers" / "case.py")


@pytest.fixture
def folder(tmp_path, case):
    case.make_model(tmp_path / "model", "mini")
    return tmp_path / "model"


def streams(folder, tokens):
    model = loading.from_checkpoint(loading.load_checkpoint(folder), "float32")
    return model, models.residuals(model.params, model.config, jnp.asarray(tokens))


def test_the_candidate_of_this_package_computes_the_quantities(folder, case, tmp_path):
    script = BENCHMARKS / "peers" / "run_jaxlens.py"
    given = ["--model", folder, "--tokens", "64", "--length", "32", "--repeats", "1"]
    command = [sys.executable, script, *given, "--out", tmp_path / "found.npz"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    tokens, following = case.make_tokens(folder, 64, 32)
    model, residuals = streams(folder, tokens)
    absent, mask = np.full(tokens.shape, -1), np.ones(tokens.shape, bool)
    known = types.References(*map(jnp.asarray, (tokens, following, absent, absent, mask)))
    options = Options(case.QUANTITIES, None, 1, "float32")
    unembed = models.unembed(model.params, model.config)
    expected = reference.read(residuals, unembed, known, options).present()
    with np.load(tmp_path / "found.npz") as found:
        assert set(found) == set(case.QUANTITIES)
        for name in case.NATS:
            np.testing.assert_allclose(found[name], expected[name], atol=1e-5, err_msg=name)
        for name in case.RANKS:
            np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


def test_the_forward_pass_that_is_timed_gives_the_streams(folder, case, monkeypatch):
    tokens, _ = case.make_tokens(folder, 64, 32)
    forward, _ = module(monkeypatch, BENCHMARKS / "bench_forward.py").ours(
        folder, tokens, "float32"
    )
    np.testing.assert_allclose(forward(), streams(folder, tokens)[1], atol=1e-5)
