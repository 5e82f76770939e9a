"""Arms: what each of them spans, where it is defined, and what decides it."""

import numpy as np
import pytest

from jaxlens import errors
from jaxlens.cli import ablate as command
from jaxlens.store import ablation_file
from jaxlens.sweep.ablation import arms, directions

VOCAB, EMBED, LAYERS = 40, 12, 3
VECTORS = np.random.default_rng(1).normal(0, 1, (LAYERS, 10, 2, EMBED))


@pytest.fixture(scope="module")
def embedding():
    return np.random.default_rng(0).normal(2, 1, (VOCAB, EMBED))


@pytest.fixture(scope="module")
def probe():
    return directions.Directions.of_probe(np.arange(0, 20, 2), VECTORS, "0" * 64)


@pytest.fixture(scope="module")
def made(embedding, probe):
    foreign = directions.foreign_tokens(np.zeros(VOCAB), np.arange(VOCAB) < 30, 0)
    probed = np.isin(np.arange(VOCAB), probe.token)
    of_probe = directions.foreign_tokens(np.zeros(VOCAB), probed, 0)
    return arms.Arms(arms.centred(embedding), foreign, 0, probe, of_probe)


def span(basis):
    """The projection on the rows of a basis."""
    return np.einsum("nde,ndf->nef", basis.astype(np.float64), basis.astype(np.float64))


def projection(vectors):
    """The same from vectors of any length, by the normal equations."""
    x = np.asarray(vectors, np.float64).T
    return x @ np.linalg.pinv(x)


TOKENS = np.array([0, 4, 18])


def test_the_probe_spans_both_of_its_vectors(made):
    for layer in range(LAYERS):
        replaced = made.replaced("probe", layer, TOKENS)
        expected = [projection(VECTORS[layer, place]) for place in (0, 2, 9)]
        np.testing.assert_allclose(span(replaced.basis), expected, atol=1e-6)
        assert replaced.present.all() and not replaced.complement
    assert not np.allclose(*(span(made.replaced("probe", at, TOKENS).basis) for at in (0, 1)))


def test_the_embedding_is_centred_and_the_foreign_one_that_of_another_token(made, embedding):
    rows = embedding - embedding.mean(0)
    own = made.replaced("embedding", 0, TOKENS)
    np.testing.assert_allclose(
        span(own.basis), [projection(rows[t : t + 1]) for t in TOKENS], atol=1e-6
    )
    other = made.foreign[TOKENS]
    assert (other != TOKENS).all() and (other >= 0).all()
    found = made.replaced("foreign", 0, TOKENS)
    np.testing.assert_allclose(
        span(found.basis), [projection(rows[t : t + 1]) for t in other], atol=1e-6
    )
    assert made.replaced("foreign", 0, np.array([35])).present.tolist() == [False]


def test_random_directions_hang_on_token_and_seed_alone(made, embedding):
    found = made.replaced("random", 0, TOKENS)
    again = made.replaced("random", 2, TOKENS[::-1])
    np.testing.assert_array_equal(found.basis, again.basis[::-1])
    other = arms.Arms(made.embedding, made.foreign, 1, made.probe).replaced("random", 0, TOKENS)
    assert not np.allclose(span(found.basis), span(other.basis))
    plane = span(made.replaced("random_plane", 0, TOKENS).basis)
    np.testing.assert_allclose(np.trace(plane, axis1=1, axis2=2), 2, atol=1e-6)
    np.testing.assert_allclose(np.trace(span(found.basis), axis1=1, axis2=2), 1, atol=1e-6)


def test_signs_have_the_covariance_of_a_random_direction():
    signs = directions.random_signs(20_000, 6, 3).reshape(20_000, -1).astype(float)
    correlation = signs.T @ signs / len(signs)
    np.testing.assert_allclose(correlation, np.eye(12), atol=0.03)
    np.testing.assert_allclose(signs.mean(0), 0, atol=0.03)


def test_the_whole_and_the_rest_are_complements(made, probe):
    whole = made.replaced("whole", 0, TOKENS)
    assert whole.complement and not whole.basis.any()
    rest, own = (made.replaced(name, 1, TOKENS) for name in ("rest", "probe"))
    assert rest.complement and not own.complement
    np.testing.assert_array_equal(rest.basis, own.basis)
    without = arms.Arms(made.embedding, made.foreign, 0)
    assert without.rank == 1 and made.rank == 2
    np.testing.assert_array_equal(
        without.replaced("rest", 1, TOKENS).basis, without.replaced("embedding", 1, TOKENS).basis
    )


def test_types_without_directions_have_no_probe_and_nothing_to_compare_it_with(made):
    some = np.array([4, 5])
    for name in (*ablation_file.OF_PROBE, "rest"):
        assert made.replaced(name, 0, some).present.tolist() == [True, False]
    for name in ("embedding", "foreign", "random", "whole"):
        assert made.replaced(name, 0, some).present.all()
    assert not made.replaced("probe", 0, some).basis[1].any()


def test_the_foreign_probe_is_that_of_another_token_that_was_probed(made, probe):
    other = made.foreign_probe[TOKENS]
    assert (other != TOKENS).all() and np.isin(other, probe.token).all()
    found = made.replaced("foreign_probe", 1, TOKENS)
    np.testing.assert_array_equal(found.basis, made.replaced("probe", 1, other).basis)
    assert found.present.all() and not found.complement and found.shift is None


def test_the_random_shift_has_the_span_of_the_probe_and_a_direction_of_unit_length(made):
    found, own = (made.replaced(name, 1, TOKENS) for name in ("random_shift", "probe"))
    np.testing.assert_array_equal(found.basis, own.basis)
    np.testing.assert_allclose(np.linalg.norm(found.shift, axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(
        found.shift, made.replaced("random", 1, TOKENS).basis[:, 0].astype(np.float32)
    )


def test_parallel_vectors_span_one_direction():
    vectors = np.array([[[1.0, 2.0, 2.0], [-2.0, -4.0, -4.0]], [[0.0, 0, 0], [0, 0, 0]]])
    found = directions.orthonormal(vectors)
    np.testing.assert_allclose(found[0, 0], np.array([1, 2, 2]) / 3)
    assert not found[0, 1].any() and not found[1].any()


def test_foreign_tokens_are_of_the_same_bin_of_rarity():
    rarity = np.random.default_rng(2).uniform(3, 9, 500)
    usable = np.arange(500) % 3 > 0
    foreign = directions.foreign_tokens(rarity, usable, 5)
    assert (foreign[~usable] == -1).all()
    there = foreign >= 0
    assert (np.floor(rarity[there]) == np.floor(rarity[foreign[there]])).all()
    assert usable[foreign[there]].all() and (foreign[there] != np.flatnonzero(there)).all()
    assert len(np.unique(foreign[there])) > 150
    assert directions.foreign_tokens(np.array([1.0, 9.0]), np.ones(2, bool), 0).tolist() == [-1, -1]


def test_arms_of_a_probe_need_one():
    assert arms.choose(None, True) == ablation_file.ARMS
    assert set(ablation_file.ARMS) - set(arms.choose(None, False)) == ablation_file.OF_PROBE
    assert arms.choose(("whole", "embedding"), False) == ("embedding", "whole")
    with pytest.raises(errors.ConfigError, match="the arm probe needs the directions"):
        arms.choose(("probe",), False)
    with pytest.raises(errors.ConfigError, match="rst"):
        arms.choose(("rst",), True)


def test_the_command_line_knows_all_arms():
    assert command.Arm.__args__ == ablation_file.ARMS
