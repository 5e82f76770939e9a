"""Bytes and operations of compiled programs, and what is refused before one is compiled."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlens import errors, models
from jaxlens.bench import random_model
from jaxlens.bench.compiled import hlo, targets, traffic
from jaxlens.cli import main
from jaxlens.models import placement

# A loop of ten trips whose fusion reads a slice of a large array, beside one on a TPU's chip; then
# a copy of what a TPU pads to tiles of 8 x 128.
PROGRAM = """HloModule jit_f, is_scheduled=true

%fused (p.0: f32[10,64], p.1: s32[]) -> f32[64] {
  %p.0 = f32[10,64]{1,0} parameter(0)
  %p.1 = s32[] parameter(1)
  %zero = s32[] constant(0)
  %slice = f32[1,64]{1,0} dynamic-slice(%p.0, %p.1, %zero), dynamic_slice_sizes={1,64}
  ROOT %row = f32[64]{0} bitcast(%slice)
}

%body (state: (s32[], f32[10,64], f32[64,64], f32[64])) -> (s32[], f32[10,64], f32[64,64], f32[64]) {
  %state = (s32[], f32[10,64]{1,0}, f32[64,64]{1,0:S(1)}, f32[64]{0}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %rows = f32[10,64]{1,0} get-tuple-element(%state), index=1
  %table = f32[64,64]{1,0:S(1)} get-tuple-element(%state), index=2
  %row = f32[64]{0} fusion(%rows, %i), kind=kLoop, calls=%fused
  %product = f32[64]{0} dot(%row, %table), lhs_contracting_dims={0}, rhs_contracting_dims={0}
  ROOT %out = (s32[], f32[10,64]{1,0}, f32[64,64]{1,0:S(1)}, f32[64]{0}) tuple(%i, %rows, %table, %product)
}

%condition (state: (s32[], f32[10,64], f32[64,64], f32[64])) -> pred[] {
  %state = (s32[], f32[10,64]{1,0}, f32[64,64]{1,0:S(1)}, f32[64]{0}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %limit = s32[] constant(10)
  ROOT %less = pred[] compare(%i, %limit), direction=LT
}

ENTRY %main (start: (s32[], f32[10,64], f32[64,64], f32[64]), x: f32[3,100]) -> f32[3,100] {
  %start = (s32[], f32[10,64]{1,0}, f32[64,64]{1,0:S(1)}, f32[64]{0}) parameter(0)
  %x = f32[3,100]{1,0:T(8,128)} parameter(1)
  %loop = (s32[], f32[10,64]{1,0}, f32[64,64]{1,0:S(1)}, f32[64]{0}) while(%start), condition=%condition, body=%body
  ROOT %copy = f32[3,100]{1,0:T(8,128)} copy(%x)
}
"""  # noqa: E501


def test_loops_count_as_often_as_they_run_and_slices_as_what_they_read():
    works = {work.instruction.name: work for work in traffic.count(hlo.parse(PROGRAM))}
    assert set(works) == {"row", "product", "copy"}
    row, product, copy = works["row"], works["product"], works["copy"]
    # And the index of the slice.
    assert (row.times, row.read, row.written) == (10, 64 * 4 + 4, 64 * 4)
    assert row.path == product.path == ("loop",) and copy.path == ()
    # The table lies on the chip.
    assert (product.read, product.written, product.flops) == (64 * 4, 64 * 4, 2 * 64 * 64)
    assert (copy.read, copy.written) == (8 * 128 * 4, 8 * 128 * 4)
    assert traffic.flops(list(works.values())) == 10 * 2 * 64 * 64
    assert traffic.moved(list(works.values())) == 10 * (4 * 64 * 4 + 4) + 2 * 8 * 128 * 4


def test_an_asynchronous_slice_moves_what_it_slices():
    start = "(f32[64,64]{1,0}, f32[8,64]{1,0:S(1)}, s32[]) slice-start(%x), slice={[0:8], [0:64]}"
    text = "ENTRY %main (x: f32[64,64]) -> f32[8,64] {\n  %x = f32[64,64]{1,0} parameter(0)\n"
    (work,) = traffic.count(hlo.parse(f"{text}  ROOT %start = {start}\n}}\n"))
    # Into the chip's own memory.
    assert (work.read, work.written) == (8 * 64 * 4, 0)


def test_a_kernel_moves_and_computes_what_it_declares():
    declared = '"cost_estimate":{"flops":"640","transcendentals":"7","bytes_accessed":"9000"}'
    text = f"""ENTRY %main (x: f32[64,64]) -> f32[8,64] {{
  %x = f32[64,64]{{1,0}} parameter(0)
  ROOT %kernel = f32[8,64]{{1,0}} custom-call(%x), backend_config={{"custom_call_config":{{{declared}}}}}
}}
"""  # noqa: E501
    (work,) = traffic.count(hlo.parse(text))
    # More than its operand has: blocks of it are fetched several times.
    assert (work.read, work.written, work.flops) == (9000 - 8 * 64 * 4, 8 * 64 * 4, 640)


def test_a_kernel_for_gpus_states_no_operations():
    text = """ENTRY %main (x: f32[64,64]) -> f32[8,64] {
  %x = f32[64,64]{1,0} parameter(0)
  ROOT %kernel = f32[8,64]{1,0} custom-call(%x), custom_call_target="mosaic_gpu_v2"
}
"""
    assert not traffic.states_flops(traffic.count(hlo.parse(text)))
    assert traffic.states_flops(traffic.count(hlo.parse(text.replace("mosaic_gpu_v2", "other"))))


def test_a_loop_of_unknown_length_is_an_error_and_one_that_the_compiler_knows_is_not():
    unknown = PROGRAM.replace("constant(10)", "parameter(1)")
    with pytest.raises(ValueError, match="no known number of trips"):
        traffic.count(hlo.parse(unknown))
    known = unknown.replace(
        "body=%body", 'body=%body, backend_config={"known_trip_count":{"n":"7"}}'
    )
    assert {work.times for work in traffic.count(hlo.parse(known))} == {7, 1}


def test_the_multiplies_of_a_real_program_are_those_that_were_written():
    def layers(x, weights):
        return jax.lax.scan(lambda x, weight: (jnp.tanh(x @ weight), None), x, weights)[0]

    given = (np.ones((32, 48), np.float32), np.ones((5, 48, 48), np.float32))
    works = traffic.count(hlo.parse(jax.jit(layers).lower(*given).compile().as_text()))
    assert traffic.flops(works) == 5 * 2 * 32 * 48 * 48
    # At least each weight and the carried rows once a layer.
    assert traffic.moved(works) >= 4 * (5 * 48 * 48 + 5 * 2 * 32 * 48)


def test_shapes_of_weights_are_those_of_weights():
    sizes = {"model_type": "gpt2", "n_layer": 2, "n_head": 2, "n_embd": 8, "vocab_size": 50}
    architecture = models.parse(sizes | {"n_positions": 16, "bos_token_id": None})
    made = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), models.init(architecture, 0))
    shapes = placement.shapes(architecture, "float32")
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), shapes) == made
    assert random_model.architecture("gpt2-xl").n_layer == 48


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main.main(["bench", *arguments])
    return ended.value.code, capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--compile-only", "v9"], "unknown target v9"),
        (["--compile-only", "v5e", "gpt5"], "unknown shape gpt5"),
        (["--compile-only", "v5e", "--sweep"], "measures nothing"),
        (["gpt2", "gpt2-xl"], "several shapes"),
    ],
)
def test_what_cannot_be_compiled_is_refused_in_one_line(capsys, arguments, message):
    code, said = run(capsys, *arguments)
    assert code == errors.ConfigError.exit_code and message in said[0] and len(said) == 2


@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is not None, reason="the compiler of TPUs is installed"
)
def test_a_compiler_that_is_not_installed_is_named_with_what_brings_it(capsys):
    code, said = run(capsys, "--compile-only", "v5e")
    assert code == errors.MissingError.exit_code
    assert "libtpu" in said[0] and "'.[tpu]'" in said[1]


# In the words of XLA; where the compilers are installed, so is the assembler.
def test_an_assembler_that_is_not_installed_is_named_with_what_brings_it():
    target = targets.TARGETS["h100"]
    with pytest.raises(errors.MissingError, match="ptxas") as missing, targets.assembling(target):
        raise RuntimeError("UNAVAILABLE: No PTX compilation provider is available. Neither ptxas")
    assert "'.[cuda13]'" in missing.value.hint
    with pytest.raises(RuntimeError, match="anything else"), targets.assembling(target):
        raise RuntimeError("anything else")


@pytest.mark.parametrize("name", ["h100", "h200"])
def test_facts_of_a_gpu_agree_with_what_its_compiler_is_told(name):
    target = targets.TARGETS[name]
    folder = importlib.util.find_spec("jaxlens.bench.compiled").submodule_search_locations[0]
    with open(f"{folder}/{name}.textproto") as file:
        told = dict(line.strip().split(": ", 1) for line in file if ": " in line)
    assert int(told["device_memory_size"]) == target.memory
    assert int(told["memory_bandwidth"]) == pytest.approx(target.bandwidth, rel=0.01)
