"""A readout knows what it is of, and its labels are never part of the tree."""

import pickle
import subprocess
import sys

import jax
import numpy as np
import pytest

import jaxlens
from jaxlens import errors
from jaxlens.api.readout import Readout
from jaxlens.models import gpt2

PLASMA = "Other times, when people say plasma, they mean a part of blood"


@pytest.fixture(scope="module")
def model():
    return jaxlens.load_model("packaged")


@pytest.fixture(scope="module")
def ids(model):
    return model.tokenizer.encode(PLASMA).ids


@pytest.fixture(scope="module")
def two(model, ids):
    """Readouts of one shape of two prompts."""
    return tuple(jaxlens.read_lens(model, [some]) for some in (ids, ids[::-1]))


def tokens_of(readout):
    return readout.labels.references.input[0].tolist()


@pytest.mark.long
def test_labels_are_no_part_of_the_tree(two, ids):
    one, other = two
    assert "labels" not in one.present() and set(one.present()) == set(other.present())
    assert jax.tree.structure(one) == jax.tree.structure(other)
    bare = Readout(**one.present())
    assert jax.tree.structure(bare) == jax.tree.structure(one)
    assert hash(jax.tree.structure(bare)) == hash(jax.tree.structure(one))
    assert len(jax.tree.leaves(one)) == len(one.present())


def test_labels_outlive_a_map_over_two_readouts(two, ids):
    gap = jax.tree.map(lambda a, b: a - b, *two)
    assert tokens_of(gap) == ids
    np.testing.assert_array_equal(gap.entropy, two[0].entropy - two[1].entropy)


def test_another_prompt_compiles_nothing_and_never_gets_the_labels_of_the_first(two):
    traced = []

    @jax.jit
    def doubled(readout):
        traced.append(readout.labels)
        return jax.tree.map(lambda x: 2 * x, readout)

    one, other = (doubled(readout) for readout in two)
    assert len(traced) == 1
    assert one.labels.references is None and other.labels.references is None
    again = other.replace(labels=two[1].labels)
    assert tokens_of(again) == tokens_of(two[1])
    assert again.to_pandas()["entropy"].tolist() == np.ravel(other.entropy).tolist()


def test_transformed_functions_have_no_labels_either(two):
    moved = jax.vmap(lambda r: r, in_axes=1, out_axes=1)(two[0])
    assert moved.labels.references is None
    slope = jax.grad(lambda r: r.entropy.sum(), allow_int=True)(two[0])
    assert slope.entropy.shape == two[0].entropy.shape


def test_a_pickled_readout_still_spells_its_tokens(two):
    again = pickle.loads(pickle.dumps(two[0]))
    assert "".join(again.to_pandas().query("layer == 0")["token"]) == PLASMA


def test_reading_spells_nothing(model, ids):
    class Mute:
        def __getattr__(self, name):
            raise AssertionError(f"asked for {name}")

        def to_str(self):
            raise AssertionError("asked for the tokenizer")

    readout = jaxlens.read_residuals(
        jaxlens.residuals(model, [ids]),
        gpt2.unembed(model.params, model.config),
        [ids],
        tokenizer=Mute(),
    )
    assert "17 positions" in repr(readout)


def test_residuals_are_labelled_with_ids_and_with_a_tokenizer_with_texts(model, ids):
    streams, unembed = jaxlens.residuals(model, [ids]), gpt2.unembed(model.params, model.config)
    without = jaxlens.read_residuals(streams, unembed, [ids]).to_pandas()
    assert without["token_id"].tolist()[: len(ids)] == ids
    assert without["token"].isna().all() and without["top_token"].isna().all()
    known = jaxlens.read_residuals(streams, unembed, [ids], tokenizer=model.tokenizer)
    assert "".join(known.to_pandas()["token"][: len(ids)]) == PLASMA


def test_labels_are_not_written_on_by_their_caller(model, ids):
    tokens, mask = np.array([ids]), np.ones((1, len(ids)), bool)
    readout = jaxlens.read_lens(model, tokens, mask)
    tokens[:] = 0
    mask[:] = False
    assert tokens_of(readout) == ids and readout.labels.references.mask.all()


# Each is compiled for two tests: the ends, upside down; one of them; others, one of them twice.
ENDS, LAST, OTHERS = [-1, 0], [8], [0, 7, 0]


@pytest.mark.parametrize(
    "chosen", [*(pytest.param(one, marks=pytest.mark.long) for one in (ENDS, LAST)), OTHERS]
)
def test_some_layers_have_their_own_names(model, ids, chosen):
    readout = jaxlens.read_lens(model, [ids], layers=chosen)
    whole = jaxlens.read_lens(model, [ids]).to_pandas().set_index(["layer", "position"])
    numbers = [layer % 9 for layer in chosen]
    frame = readout.to_pandas()
    assert frame["layer"].tolist() == np.repeat(numbers, len(ids)).tolist()
    names = [model.config.layer_names[layer] for layer in numbers]
    assert frame["layer_name"].tolist() == np.repeat(names, len(ids)).tolist()
    assert [t.get_text() for t in readout.plot().axes[0].get_yticklabels()] == names
    same = whole.loc[list(zip(frame["layer"], frame["position"], strict=True))]
    np.testing.assert_array_equal(frame["rank_input"], same["rank_input"])


def test_stars_stand_where_the_model_is_right_and_nowhere_where_its_end_was_not_read(model, ids):
    best = np.asarray(jaxlens.read_lens(model, [ids]).top_id)[-1, 0, :-1, 0]
    right = [i for i in range(len(ids) - 1) if best[i] == ids[i + 1]]
    assert right
    for chosen, expected in ((ENDS, right), (LAST, right), (OTHERS, [])):
        readout = jaxlens.read_lens(model, [ids], layers=chosen)
        figure = readout.plot("kl_final")
        above = figure.axes[0].child_axes[0].get_xticklabels()
        starred = [i for i, text in enumerate(above) if text.get_text().startswith("★")]
        assert starred == expected
        assert ("★" in figure.get_supxlabel()) == bool(expected)
        assert readout._repr_html_().count("★") == len(expected)


def test_the_text_of_a_readout_is_a_line_of_sizes(model, ids, two):
    assert repr(two[0]) == (
        "<Readout: 9 layers × 1 line × 17 positions, 17 tokens, decoder final_norm; rank_input, "
        "rank_next, rank_final, logp_input, kl_final, kl_input, entropy, top_id, top_logp>"
    )
    assert repr(Readout()) == "<Readout: no quantities>"
    halves = jax.tree.map(lambda x: x.mean((0, 1)), two[0])
    assert repr(halves).startswith("<Readout: rank_input [17], ")
    assert "entropy" in repr(jax.eval_shape(lambda r: r, two[0]))
    assert len(repr(jax.tree.structure(two[0]))) < 2_000


def test_a_model_says_its_sizes(model):
    text = repr(model)
    assert "blocks 8" in text and "vocabulary 4,096" in text and len(text) < 200
    page = model._repr_html_()
    leaves = jax.tree.leaves(model.params)
    assert f"{sum(leaf.size for leaf in leaves):,}" in page and "float32" in page
    assert "bfloat16" in repr(jaxlens.load_model("packaged", dtype="bfloat16"))


@pytest.mark.parametrize("kind", ["model", "numbers"])
def test_bfloat16_can_be_looked_at(model, ids, two, kind):
    if kind == "model":
        readout = jaxlens.read_lens(jaxlens.load_model("packaged", "bfloat16"), [ids, ids[::-1]])
    else:
        readout = two[0].replace(entropy=two[0].entropy.astype("bfloat16"))
    frame = readout.to_pandas()
    assert frame["entropy"].dtype == np.float32
    expected = np.ravel(readout.entropy).astype(np.float32)
    np.testing.assert_array_equal(frame["entropy"], expected)
    assert readout._repr_html_() and readout.plot("entropy")


@pytest.mark.parametrize(
    "look", [lambda r: r.plot(), lambda r: r.to_pandas()], ids=["plot", "to_pandas"]
)
def test_without_labels_or_with_those_of_others_it_is_said_what_to_do(two, look):
    bare = Readout(**two[0].present())
    assert bare._repr_html_() is None and "9 layers × 1 line × 17 positions;" in repr(bare)
    with pytest.raises(errors.ConfigError, match="no labels") as refusal:
        look(bare)
    assert "replace(labels=" in refusal.value.hint
    look(bare.replace(labels=two[0].labels))
    part = jax.tree.map(lambda x: x[:, :, :5], two[0])
    assert part._repr_html_() is None
    with pytest.raises(errors.ConfigError, match="has shape"):
        look(part)


def test_reading_loads_neither_pandas_nor_matplotlib():
    code = (
        "import sys, jaxlens; assert 'jax' not in sys.modules; import jaxlens.api;"
        "sys.exit(not {'pandas', 'matplotlib', 'jinja2'}.isdisjoint(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
