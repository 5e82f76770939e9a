"""Both lenses against the float64 oracle: one suite, one signature."""

import dataclasses
import functools
import itertools
import typing

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import oracle
import pytest
from cases import BATCH, EMBED, LAYERS, POSITION, capped, make_case
from jax.extend.core import jaxprs_in_params
from jax.sharding import NamedSharding, PartitionSpec
from readings import ABSOLUTE, BFLOAT16, NEAR_TIE, assert_close, expect

from jaxlens import config, errors, schema
from jaxlens.lens import decoders, mesh, numerics, pallas, reference, tiled, tuning
from jaxlens.lens.kernels import tpu
from jaxlens.lens.options import Options, resolve_quantities

READABLE = schema.LAYERED
TILED = tuple(n for n in READABLE if n not in schema.REFERENCE_ONLY)


def read_as_on(platform):
    """The tiled lens with the choices that an accelerator gets, on this CPU."""

    def read(*arguments):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tuning, "CPU", getattr(tuning, platform))
            return tiled.read(*arguments)

    return read


def read_with_kernel(*arguments):
    """The TPU kernel, interpreted, in tiles as narrow as there are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tpu, "MAX_TILE", 128)
        return pallas.read(*arguments)


def read_over(parts, as_on="CPU", function=tiled.read):
    """The lens of devices that share the vocabulary."""
    devices = mesh.of(jax.devices()[:parts])

    def read(residuals, unembed, references, options):
        split = NamedSharding(devices, PartitionSpec(None, mesh.AXIS))
        weight = jax.lax.with_sharding_constraint(unembed.weight, split)
        options = dataclasses.replace(options, parts=parts)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tuning, "CPU", getattr(tuning, as_on))
            return function(residuals, unembed.replace(weight=weight), references, options)

    return read


FUSED = tuple(n for n in TILED if not n.startswith(("js_", "kl_to_")))

# Tiles and blocks that divide nothing; the last takes the defaults.
LENSES = {
    "reference": (reference.read, {}, READABLE),
    "tiled-32-7": (tiled.read, {"tile": 32, "block": 7}, TILED),
    "as-on-gpu": (read_as_on("GPU"), {"tile": 32, "block": 7}, TILED),
    "as-on-tpu": (read_as_on("TPU"), {"tile": 48, "block": 4}, TILED),
    "over-2": (read_over(2), {"tile": 32, "block": 7}, TILED),
    "over-4": (read_over(4, "TPU"), {"tile": 8, "block": 4}, TILED),
    "tpu-kernel-over-2": (read_over(2, function=read_with_kernel), {"tile": 32, "block": 7}, FUSED),
    "tpu-kernel": (read_with_kernel, {"tile": 32, "block": 7}, FUSED),
    "tiled": (tiled.read, {}, TILED),
}


# On small vocabularies the default is a single tile and a single block; those that divide nothing
# are worth more.
ONE_TILED = ["reference", "tiled-32-7", pytest.param("tiled", marks=pytest.mark.long)]
OVER = ["over-2", "over-4", "tpu-kernel-over-2"]
LONG_OVER = [pytest.param(lens, marks=pytest.mark.long) for lens in OVER]
KERNEL = "tpu-kernel"  # interpreted, it takes seconds to compile
LONG_KERNEL, LONG_REFERENCE, LONG_GPU, LONG_TPU = (
    pytest.param(lens, marks=pytest.mark.long)
    for lens in (KERNEL, "reference", "as-on-gpu", "as-on-tpu")
)


@pytest.mark.parametrize(
    ("tokens", "layers", "width", "most", "size"),
    [
        (128, 7, 512, 1024, 128),
        (128, 29, 512, 1024, 32),
        (128, 32, 512, 1024, 128),  # sums of so many logits have other last digits
        (128, 11, 512, None, 128),
        (33, 47, 512, 1024, 33),
        (96, 200, 64, 1024, 32),
    ],
)
def test_groups_divide_a_block(tokens, layers, width, most, size):
    assert tuning.group_size(tokens, layers, width, most) == size


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_interior_layers_in_groups_have_the_same_bits(precision, monkeypatch):
    """At sizes of models; XLA has other programs for very small products."""
    case = make_case(1000, "final_norm", position=128, embed=384)
    options = Options(TILED, tile=512, block=128, precision=precision)
    found = []
    for rows in (None, 64):
        monkeypatch.setattr(tuning, "CPU", dataclasses.replace(tuning.CPU, interior_rows=rows))
        run = jax.jit(functools.partial(tiled.read, options=options))
        found.append(run(case.residuals, case.unembed, case.references).present())
    for name, value in found[0].items():
        np.testing.assert_array_equal(value, found[1][name], err_msg=name)


@functools.cache
def _compiled(read):
    return jax.jit(read, static_argnums=3)


def read(lens, case, **how):
    function, tiles, names = LENSES[lens]
    options = Options(**({"quantities": names, "top_k": 3} | tiles | how))
    readout = _compiled(function)(case.residuals, case.unembed, case.references, options)
    return {name: np.asarray(value) for name, value in readout.present().items()}


def check(lens, case, absolute=ABSOLUTE, gap=NEAR_TIE, **how):
    got = read(lens, case, **how)
    expected = expect(case, got["top_id"].shape[-1], gap)
    size = np.abs(oracle.logits(case.residuals, case.unembed)).max()
    assert_close(got, expected, got, absolute, gap, size)
    return got


# Each is a compilation of seconds, so most are long; the third decoder and the default tiles are
# below, with GPT-2's vocabulary.
SHORT = dict.fromkeys(("reference", "tiled-32-7"), ((97, "final_norm"), (257, "plain")))
SHORT |= dict.fromkeys(("as-on-gpu", "as-on-tpu"), ((257, "plain"),))
SHORT |= {"over-2": ((97, "final_norm"),)}
SHORT |= dict.fromkeys(
    ("tiled", "over-4", KERNEL, f"{KERNEL}-over-2"), ()
)  # of the kernel `test_kernels` has short ones
PRODUCTS = [
    pytest.param(lens, *rest, marks=() if rest in SHORT[lens] else pytest.mark.long)
    for lens, rest in itertools.product(LENSES, itertools.product((97, 257), decoders.DECODERS))
]


@pytest.mark.parametrize(("lens", "vocab", "kind"), PRODUCTS)
def test_every_quantity_is_the_oracles_at_any_shift_of_the_logits(lens, vocab, kind):
    for shift in (0.0, 40.0, -40.0):
        got = check(lens, make_case(vocab, kind, shift, seed=vocab))
        assert set(got) == set(LENSES[lens][2])


# The kernel reads no caps, and leaves them to the tiled lens.
CAPPED = {("reference", 97), ("tiled-32-7", 257), ("over-4", 257)}


@pytest.mark.parametrize(
    ("lens", "vocab"),
    [
        pytest.param(*how, marks=() if how in CAPPED else pytest.mark.long)
        for how in itertools.product(LENSES, (97, 257))
    ],
)
def test_every_quantity_of_capped_logits_is_the_oracles(lens, vocab):
    for shift, kind in ((0.0, "final_norm"), (20.0, "final_norm")):
        case = capped(make_case(vocab, kind, shift, seed=vocab))
        raw = oracle.logits(case.residuals, dataclasses.replace(case.unembed, softcap=None))
        assert np.abs(raw).max() > 2 * case.unembed.softcap
        got = check(lens, case)
        assert set(got) == set(LENSES[lens][2])


@pytest.mark.parametrize("lens", ["tiled", LONG_GPU])
@pytest.mark.long
def test_capped_logits_without_padding_and_without_a_head_bias_agree_with_the_oracle(lens):
    case = capped(make_case(128, seed=2))
    case = dataclasses.replace(case, unembed=case.unembed.replace(output_bias=None))
    check(lens, case, tile=64)


@pytest.mark.parametrize("lens", ["tiled", LONG_REFERENCE])
def test_the_vocabulary_of_gpt2_agrees_with_the_oracle(lens):
    check(lens, make_case(50257, "final_norm_nobias", seed=3))


# Tiles that are padded need a bias, and the default, which is not, adds none.
@pytest.mark.parametrize(
    "lens", [LONG_REFERENCE, *ONE_TILED[1:], LONG_GPU, LONG_TPU, LONG_KERNEL, *LONG_OVER]
)
def test_one_token_and_no_head_bias_agree_with_the_oracle(lens):
    case = make_case(97, batch=1, position=1)
    case = dataclasses.replace(case, unembed=case.unembed.replace(output_bias=None))
    check(lens, case)


@pytest.mark.parametrize("lens", [*ONE_TILED, LONG_GPU, LONG_TPU, LONG_KERNEL, *LONG_OVER])
def test_bfloat16_operands_stay_within_their_own_tolerance(lens):
    case = make_case(257, seed=5)
    got = read(lens, case, precision="bfloat16")
    expected = expect(case, got["top_id"].shape[-1], BFLOAT16)
    floats = [n for n in got if not n.startswith(("rank", "ties", "top_id"))]
    assert_close(got, expected, [*floats, *(n for n in got if n.startswith("rank"))], BFLOAT16)


@pytest.mark.parametrize("lens", [*ONE_TILED, LONG_KERNEL, *LONG_OVER])
def test_masked_positions_have_rank_0_id_minus_1_and_nan(lens):
    got = read(lens, make_case(97))
    for name, value in got.items():
        hidden = value[:, 1]
        if value.dtype == np.int32:
            assert (hidden == (-1 if name == "top_id" else 0)).all(), name
        else:
            assert np.isnan(hidden).all(), name


@pytest.mark.parametrize("lens", [*ONE_TILED, LONG_KERNEL, *LONG_OVER])
def test_the_ends_are_exact_by_construction(lens):
    case = make_case(97)
    got = read(lens, case)
    mask = case.references.mask
    assert (got["rank_final"][-1][mask] == 1).all()
    for name in {"kl_final", "kl_to_final", "js_final"} & set(got):
        assert (got[name][-1][mask] == 0).all()
    for name in {"kl_input", "kl_to_input", "js_input"} & set(got):
        assert (got[name][0][mask] == 0).all()


@pytest.mark.parametrize("lens", [LONG_REFERENCE, *ONE_TILED[1:], LONG_KERNEL, *LONG_OVER])
@pytest.mark.long
def test_chosen_layers_are_those_of_the_whole_readout(lens):
    case = make_case(97)
    whole, some = read(lens, case), read(lens, case, layers=(2, -1, 0))
    for name, value in some.items():
        np.testing.assert_allclose(value, whole[name][[2, -1, 0]], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("lens", [*ONE_TILED, LONG_GPU, "as-on-tpu", LONG_KERNEL, *LONG_OVER])
def test_equal_logits_rank_equally_and_the_lowest_id_comes_first(lens):
    case = make_case(97)
    weight = np.repeat(case.unembed.weight[:1], 97, 0)
    flat = dataclasses.replace(
        case, unembed=case.unembed.replace(weight=weight, output_bias=np.zeros(97, np.float32))
    )
    got = read(lens, flat)
    mask = case.references.mask
    # The tiled lens gathers a reference's logit apart from the tile, so at ties rounding decides.
    if lens == "reference":
        assert (got["rank_input"][:, mask] == 1).all()
        assert (got["ties_input"][:, mask] == 96).all()
    assert (got["top_id"][:, mask] == np.arange(got["top_id"].shape[-1])).all()
    np.testing.assert_allclose(got["entropy"][:, mask], np.log(97), rtol=1e-5)
    one = read(lens, flat, top_k=1, quantities=("top_id",))
    assert (one["top_id"][:, mask] == 0).all()


def test_rank_counts_only_greater_logits():
    z = np.array([[1.0, 3.0, 3.0, 2.0]], np.float32)
    tokens = np.arange(4)
    ranks = jax.jit(numerics.rank)(np.tile(z, (4, 1)), tokens, z[0][tokens])
    assert ranks.tolist() == [4, 1, 1, 3]


FEW = ("rank_input", "rank_final", "kl_final", "kl_input", "entropy", "top_id")


def check_few(tile, block, top_k, lens="tiled"):
    case = make_case(97, seed=8)
    got = read(lens, case, tile=tile, block=block, top_k=top_k, quantities=FEW)
    expected = expect(case, top_k)
    size = np.abs(oracle.logits(case.residuals, case.unembed)).max()
    assert_close(got, expected | {"top_logp": expected["top_logp"]}, got, size=size)


# Tiles of fewer columns than best tokens, of whole groups of 64, and beyond the vocabulary; ragged
# blocks, blocks of one token, and beyond all 15 tokens.
@pytest.mark.parametrize(
    ("tile", "block", "top_k"),
    [
        (2, 4, 3),
        *(pytest.param(*how, marks=pytest.mark.long) for how in ((64, 20, 1), (110, 1, 2))),
    ],
)
def test_tile_and_block_do_not_change_the_readout(tile, block, top_k):
    check_few(tile, block, top_k)


# Interpreted, and each a compilation of seconds.
@pytest.mark.long
@pytest.mark.parametrize(("tile", "block"), [(2, 4), (64, 20), (110, 1)])
def test_tile_and_block_do_not_change_what_the_kernel_reads(tile, block):
    check_few(tile, block, 1, KERNEL)


# Parts of padding alone, of fewer columns than best tokens, and blocks that divide nothing.
@pytest.mark.parametrize(
    ("lens", "tile", "top_k"),
    [
        ("over-4", 97, 3),
        *(
            pytest.param(*how, marks=pytest.mark.long)
            for how in (("over-4", 2, 97), ("over-2", 13, 1), ("over-2", 110, 2))
        ),
    ],
)
def test_no_division_of_the_vocabulary_changes_the_readout(lens, tile, top_k):
    check_few(tile, 4, top_k, lens)


# Sums of the parts are added in another order: nats, measured 1.9e-6 and 4.8e-6.
LOGP, OTHERS = 4e-6, 8e-5


@pytest.mark.long
@pytest.mark.parametrize("parts", [2, 4])
def test_devices_that_share_the_vocabulary_of_gpt2_read_what_one_reads(parts):
    case = make_case(50257, seed=4)
    names = tuple(name for name in TILED if name != "norm" and "retention" not in name)
    options = Options(names, None, 3, tile=4096 if parts == 2 else 2048, block=8)
    one, shared = (
        _compiled(function)(case.residuals, case.unembed, case.references, options).present()
        for function in (tiled.read, read_over(parts))
    )
    assert set(one) == set(shared) == set(names)
    for name, value in one.items():
        if name.startswith("rank") or name == "top_id":
            np.testing.assert_array_equal(shared[name], value, name)
        else:
            bound = LOGP if "logp" in name else OTHERS
            np.testing.assert_allclose(shared[name], value, rtol=0, atol=bound, err_msg=name)


@pytest.mark.parametrize("lens", ["as-on-gpu", LONG_TPU])
def test_the_single_best_token_of_an_accelerator_is_the_oracles(lens):
    check_few(64, 20, 1, lens)


@pytest.mark.long
@hypothesis.given(tile=st.integers(1, 110), block=st.integers(1, 20), top_k=st.integers(1, 3))
@hypothesis.settings(max_examples=25)
def test_no_tile_and_no_block_changes_the_readout(tile, block, top_k):
    check_few(tile, block, top_k)


def test_top_k_is_clipped_to_the_vocabulary():
    got = read("tiled", make_case(97), top_k=1000, tile=32, quantities=("top_id",))
    assert got["top_id"].shape[-1] == 97
    assert (np.sort(got["top_id"][:, 0]) == np.arange(97)).all()


def test_the_tiled_lens_never_holds_more_logits_than_one_tile_and_the_ends_of_a_block():
    vocab, tile, block = 1009, 64, 5
    case = make_case(vocab)
    options = Options(
        tuple(n for n in TILED if n not in ("retention", "norm")), None, 1, "float32", tile, block
    )
    run = functools.partial(tiled.read, options=options)
    largest = _largest(jax.make_jaxpr(run)(case.residuals, case.unembed, case.references).jaxpr)
    kept = 2 * block * -(-vocab // tile) * tile
    table = -(-vocab // tile) * tile * EMBED
    assert largest <= max(kept, table)
    assert largest < LAYERS * BATCH * POSITION * vocab


def _largest(jaxpr):
    sizes = [0]
    for equation in jaxpr.eqns:
        sizes += [v.aval.size for v in equation.outvars if hasattr(v.aval, "size")]
        sizes += [_largest(sub) for sub in jaxprs_in_params(equation.params)]
    return max(sizes)


@pytest.mark.parametrize("lens", ["reference", "tiled"])
def test_a_matched_divergence_without_temperatures_is_refused(lens):
    case = make_case(97)
    bare = dataclasses.replace(case, unembed=dataclasses.replace(case.unembed, temperature=None))
    with pytest.raises(errors.ConfigError, match="temperature"):
        read(lens, bare, quantities=("kl_final_matched",))


def test_the_tiled_lens_refuses_ties_by_name():
    with pytest.raises(errors.ConfigError, match="ties_input"):
        read("tiled", make_case(97), quantities=("ties_input",))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("surprisal", "no quantity of a layer"),
        ("token", "column"),
        ("rank_imput", "unknown quantity rank_imput"),
    ],
)
def test_a_quantity_that_cannot_be_read_is_refused_by_name(name, message):
    with pytest.raises(errors.ConfigError, match=message):
        resolve_quantities([name])


def test_an_unknown_name_brings_the_nearest():
    with pytest.raises(errors.ConfigError) as caught:
        resolve_quantities(["rank_imput"])
    assert "rank_input" in caught.value.hint


def test_a_layer_the_model_does_not_have_is_refused():
    with pytest.raises(errors.ConfigError, match="layer 9"):
        read("tiled", make_case(97), layers=(9,))


def test_the_configuration_names_the_decoders_that_there_are():
    assert set(typing.get_args(config.Decoder)) == set(decoders.DECODERS)
