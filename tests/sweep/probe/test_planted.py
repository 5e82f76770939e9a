"""Probes of made streams, of which it is known what can be read where."""

import numpy as np
import probes
import pytest

from jaxlens.store.probe_file import READOUTS, STATISTICS, TARGETS
from jaxlens.sweep.probe import discriminant, moments

N_CLASSES, EMBED, N_TRAINING, N_HELD_OUT = 20, 32, 6_000, 4_000
OWN, PERMUTED = TARGETS.index("own"), TARGETS.index("permuted")
PROBE, LENS = READOUTS.index("probe"), READOUTS.index("lens")

LAYERS = ("aligned", "rotated", "erased", "first half")
"""The token in the basis of the head; rotated; not at all; and that of classes below 10 alone."""


def orthogonal(random, size):
    return np.linalg.qr(random.standard_normal((size, size)))[0]


def make(seed, n):
    """Streams ``[layer, row, embed]``, tokens, and the head."""
    random = np.random.default_rng(99)  # of the world, the same for all rows
    head = 4.0 * random.standard_normal((N_CLASSES, EMBED))
    rotation, mixing = orthogonal(random, EMBED), random.standard_normal((EMBED, EMBED))
    random = np.random.default_rng(seed)
    token = random.integers(0, N_CLASSES, n)
    noise = 0.3 * random.standard_normal((len(LAYERS), n, EMBED)) @ mixing
    half = np.where((token < 10)[:, None], head[token], 0.0)
    signal = np.stack([head[token], head[token] @ rotation, 0 * head[token], half @ rotation])
    # As a model's are, float32.
    return np.float64(np.float32(signal + noise + 50.0)), token, head


@pytest.fixture(scope="module")
def world():
    streams, token, head = make(0, N_TRAINING)
    random = np.random.default_rng(2)
    previous = np.roll(token, 1)
    labels = np.stack([token, previous, previous, random.permutation(token)])
    totals, scale = probes.learn(streams, labels, N_CLASSES)
    counts = np.stack([np.bincount(one, minlength=N_CLASSES) for one in labels])
    fitted, readers = probes.fit(totals, scale, counts, head)
    held, tokens, _ = make(1, N_HELD_OUT)
    before = np.roll(tokens, 1)
    judged = probes.judge(held, np.stack([tokens, before, before, tokens]), readers)
    return {"streams": streams, "labels": labels, "held": held, "tokens": tokens} | {
        "fitted": fitted,
        "scale": scale,
        "judged": judged,
        "counts": counts,
    }


def recall(world, target, readout, layer, statistic="hits_1"):
    values = world["judged"][target, readout, :, LAYERS.index(layer)].sum((1, 2))
    return values[STATISTICS.index(statistic)] / values[STATISTICS.index("positions")]


def holds(share, truth, n=N_HELD_OUT):
    """Whether a share of independent positions is within four standard errors of the truth."""
    return abs(share - truth) < 4 * np.sqrt(truth * (1 - truth) / n)


def test_a_rotation_hides_the_token_from_the_lens_and_not_from_the_probe(world):
    assert recall(world, OWN, LENS, "aligned") > 0.99
    assert recall(world, OWN, PROBE, "aligned") > 0.99
    assert recall(world, OWN, PROBE, "rotated") > 0.99
    # Of one rotation the lens may be off chance, since 20 directions are few; far from reading it.
    assert recall(world, OWN, LENS, "rotated") < 3 / N_CLASSES


@pytest.mark.parametrize("seed", range(6))
def test_what_does_not_vary_within_a_class_is_read_by_its_mean(seed):
    """As a token at the input of a model without position embeddings; rounding has no inverse."""
    random, n = np.random.default_rng(seed), 1_500
    classes, label = random.normal(size=(100, 64)), random.integers(0, 100, n)
    rows = np.rint(classes[label] * 2.0**24) / 2.0**24
    sums = np.zeros((100, 64))
    np.add.at(sums, label, rows)
    blocks = [rows[first : first + 512] for first in range(0, n, 512)]
    products = sum(np.rint(block.T @ block * 2.0**24) / 2.0**24 for block in blocks)
    counts = np.bincount(label, minlength=100)
    one = discriminant.fit(moments.Layer(sums, products), counts, counts > 1)
    assert ((rows @ one.weight.T + one.bias).argmax(1) == label).all()


def test_what_was_erased_is_read_at_chance(world):
    assert holds(recall(world, OWN, PROBE, "erased"), 1 / N_CLASSES)
    assert holds(recall(world, OWN, PROBE, "erased", "hits_10"), 10 / N_CLASSES)


def test_half_of_the_types_are_read_where_half_are_there(world):
    # The others all look alike: one of the ten is named, and is right one time in ten.
    assert holds(recall(world, OWN, PROBE, "first half"), 0.5 + 0.5 / 10)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("target", ["permuted", "previous"])
def test_labels_that_have_nothing_to_do_with_the_stream_are_read_at_chance(world, layer, target):
    # Noise in the class means makes these predictions depend on the token, and not on the label,
    # so the share varies as that of 20 types rather than of 4,000 positions.
    assert abs(recall(world, TARGETS.index(target), PROBE, layer) - 1 / N_CLASSES) < 0.05


def test_a_probability_is_that_of_the_classes(world):
    logp = recall(world, OWN, PROBE, "erased", "logp") / 2**16
    assert logp == pytest.approx(-np.log(N_CLASSES), abs=0.05)
    assert recall(world, OWN, PROBE, "rotated", "logp") / 2**16 > -0.05


def test_positions_are_counted_once_for_each_layer_and_readout(world):
    positions = world["judged"][:, :, STATISTICS.index("positions")].sum((3, 4))
    assert (positions == N_HELD_OUT).all()
    by_group = world["judged"][OWN, PROBE, 0, 0, 0]
    assert (by_group == np.bincount(np.arange(N_HELD_OUT) % 256, minlength=256)).all()


# Of the log-probabilities, some of which are -60,000 nat.
TOLERANCE = 1e-6


@pytest.mark.parametrize("target", [OWN, PERMUTED])
@pytest.mark.parametrize("layer", range(len(LAYERS)))
def test_discriminants_equal_those_of_the_definition(world, layer, target):
    one, scale = world["fitted"][layer][target], world["scale"]
    reference, unit = np.asarray(scale.reference[layer], np.float64), float(scale.unit[layer])
    at = world["held"][layer, :500]
    ours = (at - reference) / unit @ one.weight.T + one.bias
    theirs = probes.scores(world["streams"][layer], world["labels"][target], N_CLASSES, at)
    ours, theirs = probes.log_softmax(ours), probes.log_softmax(theirs)
    assert np.abs(ours - theirs).max() < TOLERANCE * max(1.0, np.abs(theirs).max())
    streams, labels = world["streams"][layer], world["labels"][target]
    means = [streams[labels == k].mean(0) for k in range(N_CLASSES)]
    np.testing.assert_allclose(reference + unit * one.mean, means, rtol=TOLERANCE)


def test_evaluation_equals_that_of_the_definition(world):
    for layer in range(len(LAYERS)):
        z = probes.scores(
            world["streams"][layer], world["labels"][OWN], N_CLASSES, world["held"][layer]
        )
        ranks = probes.rank(z, world["tokens"])
        ours = world["judged"][OWN, PROBE, :, layer].sum((1, 2))
        # A float32 score decides otherwise where two are equal to rounding.
        assert abs(ours[1] - (ranks == 1).sum()) <= 1
        assert abs(ours[2] - (ranks <= 10).sum()) <= 1
        logp = probes.log_softmax(z)[np.arange(len(z)), world["tokens"]]
        assert ours[3] / 2**16 / len(z) == pytest.approx(logp.mean(), abs=1e-4)


@pytest.mark.parametrize(
    "step", [257, *(pytest.param(step, marks=pytest.mark.long) for step in (64, 512, 4096))]
)
def test_the_shape_of_steps_changes_moments_by_rounding_alone(world, step):
    streams, labels = world["streams"][:, :4096], world["labels"][:, :4096]
    one, scale = probes.learn(streams, labels, N_CLASSES, step=1024)
    totals = moments.zeros(*streams.shape[:1], N_CLASSES, EMBED)
    for first in range(0, 4096, step):
        part = labels[:, first : first + step]
        here = probes.batched(streams[:, first : first + step])
        totals = moments.add(totals, here, scale, probes.rows(part), part.astype(np.int32))
    assert (np.asarray(totals.sums) == one.sums).all()  # not even by rounding
    for layer in range(len(LAYERS)):
        ours, theirs = (moments.of_layer(t, layer, OWN).products for t in (totals, one))
        np.testing.assert_allclose(np.asarray(ours), theirs, atol=1e-6 * np.abs(theirs).max())


def test_types_that_occur_once_are_no_candidates(world):
    streams, labels = world["streams"], world["labels"].copy()
    labels[labels == 3] = -1
    labels[:, 0] = 3
    counts = np.stack([np.bincount(one[one >= 0], minlength=N_CLASSES) for one in labels])
    assert counts[OWN, 3] == 1
    known = np.where(labels == 3, -1, labels)
    totals, scale = probes.learn(streams, known, N_CLASSES)
    fitted, _ = probes.fit(totals, scale, counts, np.eye(N_CLASSES, EMBED))
    one = fitted[0][OWN]
    assert np.isneginf(one.bias[3]) and np.isfinite(np.delete(one.bias, 3)).all()
    at = world["held"][0, :100]
    ours = (at - scale.reference[0]) / scale.unit[0] @ one.weight.T + one.bias
    theirs = probes.scores(streams[0], labels[OWN], N_CLASSES, at)
    assert (np.isneginf(ours) == np.isneginf(theirs)).all()
    known = np.delete(np.arange(N_CLASSES), 3)
    ours, theirs = probes.log_softmax(ours[:, known]), probes.log_softmax(theirs[:, known])
    assert np.abs(ours - theirs).max() < TOLERANCE * np.abs(theirs).max()


def test_streams_that_are_not_finite_are_counted(world):
    streams, labels = world["streams"][:, :600].copy(), world["labels"][:, :600]
    streams[1, 550, 3:5] = np.nan
    totals, _ = probes.learn(streams, labels, N_CLASSES, step=300)
    assert int(totals.missing) == 2
