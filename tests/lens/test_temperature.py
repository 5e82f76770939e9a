"""Temperatures of the layers: the minimum of a mean divergence, found twice."""

import dataclasses

import jax
import numpy as np
import oracle
import pytest
import scipy.optimize
from cases import capped, make_case

from jaxlens.lens import temperature, tuning


def mean_divergences(case, tau):
    """Mean over real positions of ``kl_final_matched`` of every layer, in float64."""
    z = oracle.logits(case.residuals, case.unembed)
    log_p = oracle.log_softmax(z)
    tempered = oracle.log_softmax(z / np.asarray(tau)[:, None, None, None])
    return oracle.kl(log_p[-1][None], tempered)[:, case.references.mask].mean(-1)


@pytest.mark.parametrize("kind", ["final_norm", "plain", "capped"])
@pytest.mark.parametrize("seed", range(3))
def test_the_temperatures_minimise_the_mean_divergence(kind, seed):
    # Enough positions that blocks of 64 are ragged, and a third of them masked.
    if kind == "capped":  # temperatures divide what the cap leaves
        case = capped(make_case(97, seed=seed, position=30))
    else:
        case = make_case(97, kind=kind, seed=seed, position=30)
    found = temperature.of_batch(case.residuals, case.references.mask, case.unembed, "float32")
    assert found[-1] == 1.0
    for layer in range(len(found) - 1):

        def loss(log_tau, layer=layer):
            tau = np.ones(len(found))
            tau[layer] = np.exp(log_tau)
            return mean_divergences(case, tau)[layer]

        bounds = np.log(temperature.LIMITS)
        best = scipy.optimize.minimize_scalar(loss, bounds=bounds, method="bounded")
        # The digits that are kept, and the flatness of the minimum.
        assert loss(np.log(found[layer])) <= best.fun + 1e-6 + 1e-5 * abs(best.fun)


def test_a_scaled_copy_of_the_last_layer_is_matched_exactly():
    case = make_case(97, position=20)
    last = case.unembed.scale * oracle.normalise(case.residuals[-1], 1e-5) + case.unembed.bias
    # Without a bias of the head, logits that are three times as large need a temperature of 3.
    head = dataclasses.replace(case.unembed, output_bias=None, kind="plain")

    def slopes_at(cold):
        z = 3.0 * last[case.references.mask] @ head.weight.T
        p = oracle.softmax(z / 3.0)
        tempered = oracle.softmax(cold[0][:, None, None] * z)
        slope = ((tempered - p) * z).sum(-1).mean(-1)
        return np.stack([slope, slope])

    assert temperature.search(slopes_at, 2) == (3.0, 1.0)


def test_padding_does_not_move_the_temperatures():
    case = make_case(97, position=12)
    mask = case.references.mask
    garbled = np.where(mask[None, ..., None], case.residuals, 1e3).astype(np.float32)
    one, other = (
        temperature.of_batch(streams, mask, case.unembed, "float32")
        for streams in (case.residuals, garbled)
    )
    assert one == other


def test_temperatures_stay_within_their_limits():
    found = temperature.search(lambda cold: np.ones_like(cold), 3)
    assert found == (temperature.LIMITS[1], temperature.LIMITS[1], 1.0)
    found = temperature.search(lambda cold: -np.ones_like(cold), 3)
    assert found[0] == pytest.approx(temperature.LIMITS[0], abs=5e-4)


def traced_slopes():
    """``slopes``, to be traced anew."""
    return jax.jit(lambda *given: temperature.slopes.__wrapped__(*given), static_argnums=4)


@pytest.mark.parametrize("platform", ["GPU", "TPU"])
def test_slopes_of_an_accelerator_are_those_of_a_cpu(platform, monkeypatch):
    case = make_case(97, position=30)
    points = np.geomspace(0.5, 4.0, temperature.POINTS, dtype=np.float32)
    points = np.tile(points, (len(case.residuals), 1))
    given = (case.residuals, case.references.mask, case.unembed, points, "float32")
    here = traced_slopes()(*given)
    # Smaller blocks than its own, of which these positions would be one.
    chosen = dataclasses.replace(getattr(tuning, platform), slopes_block=64)
    monkeypatch.setattr(tuning, "CPU", chosen)
    np.testing.assert_allclose(traced_slopes()(*given), here, rtol=1e-4, atol=1e-4)
