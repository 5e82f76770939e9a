"""What the pallas lens refuses, who takes it by default, and what its gate sees."""

import dataclasses
import functools
import subprocess
import sys

import jax
import numpy as np
import pytest

import jaxlens
from jaxlens import config, errors, schema
from jaxlens.bench import random_model
from jaxlens.lens import interior, pallas, tuning
from jaxlens.lens.kernels import hopper, tpu
from jaxlens.lens.options import Options
from jaxlens.models import loading
from jaxlens.sweep import resolve

FULL = tuple(name for name in schema.FULL if name in schema.LAYERED)
SIZES = 11, 768, 5  # layers between the ends, embed, references of GPT-2 small
GPT2 = random_model.architecture("gpt2")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("platform", ["cpu", "tpu"])
@pytest.mark.parametrize("top_k", [1, 16])
def test_all_of_full_is_read(precision, platform, top_k):
    pallas.require(Options(FULL, top_k=top_k, precision=precision), *SIZES, platform)


@pytest.mark.parametrize(
    ("how", "sizes", "message"),
    [
        ({"quantities": (*FULL, "js_final", "kl_to_input")}, SIZES, "js_final, kl_to_input$"),
        ({"top_k": 17}, SIZES, "top_k 17$"),
        ({"precision": "bf16x3"}, SIZES, "bf16x3 operands$"),
        ({}, (11, 768, 17), "17 reference tokens"),
        ({}, (2000, 4096, 5), "2000 layers of 4096$"),
    ],
)
def test_what_the_kernel_does_not_read_is_named(how, sizes, message):
    with pytest.raises(errors.ConfigError, match=message) as refusal:
        pallas.require(Options(**({"quantities": FULL} | how)), *sizes, "tpu")
    assert "tiled" in refusal.value.hint


def test_several_best_tokens_are_read_on_gpus_too():
    asked = Options(FULL, top_k=8, precision="bfloat16")
    pallas.require(asked, *SIZES, "gpu")
    with pytest.raises(errors.ConfigError, match=r"top_k 9$"):
        pallas.require(dataclasses.replace(asked, top_k=9), *SIZES, "gpu")


def test_a_platform_without_a_kernel_is_refused(monkeypatch):
    monkeypatch.setattr(pallas, "KERNELS", {"tpu": pallas.KERNELS["tpu"]})
    with pytest.raises(errors.ConfigError, match="no kernel for gpu"):
        pallas.require(Options(FULL), *SIZES, "gpu")


def test_a_gpu_that_is_no_hopper_has_no_kernel(monkeypatch):
    asked = Options(FULL, precision="bfloat16")
    pallas.require(asked, *SIZES, "gpu")
    monkeypatch.setattr(hopper, "is_available", lambda: False)
    with pytest.raises(errors.ConfigError, match="no kernel for gpu"):
        pallas.require(asked, *SIZES, "gpu")


def test_kernels_are_imported_on_use():
    code = "import sys, jaxlens.lens.pallas; print([n for n in sys.modules if 'kernels' in n])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_without_layers_between_the_ends_nothing_is_refused():
    pallas.require(Options(FULL, top_k=17), 0, 768, 5, "tpu")


def test_read_lens_refuses_what_the_kernel_does_not_read():
    model = jaxlens.load_model("packaged")
    with pytest.raises(errors.ConfigError, match="js_final"):
        jaxlens.read_lens(model, [[1, 2]], quantities=["js_final"], implementation="pallas")
    with pytest.raises(errors.ConfigError, match="17 reference tokens"):
        jaxlens.read_lens(model, [[1, 2]], follow=np.arange(12), implementation="pallas")


def implementation(platform, spec=None, **settings):
    resolved = resolve.resolve(config.load([], {}, settings), GPT2, spec, platform)
    assert resolved.config.lens.tile and resolved.config.lens.block
    return resolved.config.lens.implementation


def test_a_run_takes_the_lens_of_its_platform_and_keeps_it(monkeypatch):
    monkeypatch.setattr(tuning, "TPU", dataclasses.replace(tuning.TPU, implementation="pallas"))
    assert implementation("cpu") == "tiled"
    assert implementation("tpu") == "pallas"
    assert implementation("tpu", **{"lens.implementation": "tiled"}) == "tiled"
    assert implementation("tpu", {"lens": {"implementation": "tiled"}}) == "tiled"
    assert implementation("cpu", {"lens": {"implementation": "pallas"}}) == "pallas"
    # What the kernel does not read is no reason to refuse it where nobody asked for the kernel.
    more = {"store.quantities": ["js_final"]}
    assert implementation("tpu", **more) == "tiled"
    with pytest.raises(errors.ConfigError, match="js_final"):
        implementation("tpu", **more, **{"lens.implementation": "pallas"})


def test_a_run_that_nothing_is_known_of_keeps_no_lens_of_another_name():
    assert implementation("cpu", {"lens": {"implementation": "mosaic"}}) == "tiled"


@pytest.mark.long
def test_the_gate_sees_what_a_kernel_reads_wrongly(monkeypatch, tiny):
    model = jaxlens.load_model(tiny)
    check = functools.partial(
        loading.check_identity, model, np.arange(8, dtype=np.int32)[None], implementation="pallas"
    )
    monkeypatch.setattr(tpu, "read", interior.read)
    assert check() < 1e-4

    def wrong(*given, options):
        running, cross, between = interior.read(*given, options)
        return running._replace(sum_exp=1.01 * running.sum_exp), cross, between

    jax.clear_caches()
    monkeypatch.setattr(tpu, "read", wrong)
    with pytest.raises(errors.NumericalError, match="identity gate") as refusal:
        check()
    assert "lens.implementation=tiled" in refusal.value.hint
