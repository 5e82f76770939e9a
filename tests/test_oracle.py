"""The oracle against values worked out by hand; its forward pass has the goldens."""

from types import SimpleNamespace

import numpy as np
import oracle
import pytest


def test_rank_counts_only_greater_logits():
    z = np.array([2.0, 5.0, 2.0, -1.0, 7.0])
    assert [int(oracle.rank(z, np.array(token))) for token in range(5)] == [3, 2, 3, 5, 1]


def test_ties_count_the_other_equal_logits():
    z = np.array([2.0, 5.0, 2.0, 2.0])
    assert [int(oracle.ties(z, np.array(token))) for token in range(4)] == [2, 0, 2, 2]


def test_rank_interval_spans_exactly_the_near_ties():
    z = np.array([1.0, 1.0 + 1e-6, 1.0 - 1e-6, 3.0, -3.0])
    low, high = oracle.rank_interval(z, np.array(0), 1e-5)
    assert (int(low), int(high)) == (2, 4)
    low, high = oracle.rank_interval(z, np.array(0), 1e-7)
    assert (int(low), int(high)) == (3, 3)


def test_divergences_of_two_coins_are_the_textbook_values():
    p, q = np.log([0.5, 0.5]), np.log([0.9, 0.1])
    assert oracle.kl(p, q) == pytest.approx(0.5 * np.log(0.5 / 0.9) + 0.5 * np.log(0.5 / 0.1))
    assert oracle.kl(p, p) == 0.0
    assert oracle.js(p, q) == pytest.approx(oracle.js(q, p))
    assert oracle.js(np.log([1 - 1e-12, 1e-12]), np.log([1e-12, 1 - 1e-12])) == pytest.approx(
        np.log(2)
    )


def test_layer_norm_has_zero_mean_and_unit_variance():
    x = oracle.normalise(np.array([[1.0, 2.0, 3.0, 6.0]]), 0.0)
    assert x.mean() == pytest.approx(0.0)
    assert (x**2).mean() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("gelu", 0.8413447460685429),  # 1 * Phi(1)
        ("gelu_new", 0.8411919906082768),
        ("relu", 1.0),
        ("silu", 0.7310585786300049),
        ("tanh", 0.7615941559557649),
        ("quick_gelu", 0.8457957659328212),
    ],
)
def test_activation_of_one_is_its_known_value(name, value):
    assert float(oracle.ACTIVATIONS[name](np.array(1.0))) == pytest.approx(value, rel=1e-12)


@pytest.fixture
def small():
    """Three layers, one line of two positions, width 3, vocabulary 5; position 1 is padding."""
    random = np.random.default_rng(0)
    unembed = SimpleNamespace(
        kind="final_norm",
        scale=random.normal(size=3),
        bias=random.normal(size=3),
        eps=1e-5,
        weight=random.normal(size=(5, 3)),
        output_bias=None,
        embedding=None,
    )
    references = SimpleNamespace(
        input=np.array([[3, 0]]),
        next=np.array([[-1, 0]]),
        foreign=np.array([[2, 0]]),
        copy=np.array([[-1, 0]]),
        follow=np.array([[[4, -1], [0, 0]]]),
        mask=np.array([[True, False]]),
    )
    return random.normal(size=(3, 1, 2, 3)), unembed, references


def test_lens_of_the_ends_is_zero_and_one_by_construction(small):
    out = oracle.lens(*small)
    assert out["kl_final"][-1, 0, 0] == out["kl_input"][0, 0, 0] == 0.0
    assert out["rank_final"][-1, 0, 0] == 1
    assert out["kl_to_final"][0, 0, 0] > 0
    assert 0 < out["js_input"][1, 0, 0] <= np.log(2)


def test_lens_masks_padding_and_absent_references(small):
    out = oracle.lens(*small, top_k=2)
    assert (out["rank_input"][:, 0, 1] == 0).all()
    assert (out["rank_next"] == 0).all()
    assert np.isnan(out["logp_next"]).all()
    assert np.isnan(out["entropy"][:, 0, 1]).all()
    assert (out["top_id"][:, 0, 1] == -1).all()
    assert (out["rank_follow"][:, 0, 0, 0] > 0).all()
    assert (out["rank_follow"][:, 0, 0, 1] == 0).all()


def test_every_decoder_uses_the_own_final_norm_at_the_last_layer(small):
    streams, unembed, _ = small
    decoded = {}
    for kind in ("final_norm", "plain", "final_norm_nobias"):
        unembed.kind = kind
        decoded[kind] = oracle.decode(streams, unembed)
    np.testing.assert_array_equal(decoded["plain"][-1], decoded["final_norm"][-1])
    np.testing.assert_array_equal(decoded["final_norm_nobias"][-1], decoded["final_norm"][-1])
    np.testing.assert_allclose(
        decoded["plain"][0] * unembed.scale + unembed.bias, decoded["final_norm"][0]
    )
    np.testing.assert_allclose(
        decoded["final_norm_nobias"][0] + unembed.bias, decoded["final_norm"][0]
    )


def test_top_tokens_break_ties_to_the_lowest_id(small):
    streams, unembed, references = small
    unembed.embedding = unembed.weight.copy()
    unembed.weight[:] = unembed.weight[0]
    out = oracle.lens(streams, unembed, references, top_k=9)
    np.testing.assert_array_equal(out["top_id"][:, 0, 0], [[0, 1, 2, 3, 4]] * 3)
    assert (out["top_gap"][:, 0, 0] == 0).all()
    assert (out["ties_input"][:, 0, 0] == 4).all()
    assert (out["rank_input"][:, 0, 0] == 1).all()


def test_retention_of_the_centred_embedding_is_one(small):
    streams, unembed, references = small
    streams[0, 0, 0] = unembed.weight[3] - unembed.weight.mean(0)
    streams[1, 0, 0] = -2 * streams[0, 0, 0]
    retention = oracle.lens(streams, unembed, references)["retention"][:, 0, 0]
    assert retention[0] == pytest.approx(1.0)
    assert retention[1] == pytest.approx(-2.0)


def test_unit_temperature_matches_the_plain_divergence(small):
    out = oracle.lens(*small, tau=np.ones(3))
    np.testing.assert_allclose(out["kl_final_matched"], out["kl_final"], rtol=1e-9, atol=1e-15)
