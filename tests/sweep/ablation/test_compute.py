"""The computation against a float64 forward, and against a model whose copies are planted."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import random_model
from sweep.ablation import planted_copies

from jaxlens import models
from jaxlens.store import ablation_file
from jaxlens.sweep.ablation import arms, compute, design, directions, mean, passages, sequences

CONFIG = {
    "model_type": "gpt2",
    "n_layer": 3,
    "n_head": 2,
    "n_embd": 12,
    "vocab_size": 50,
    "n_positions": 16,
}
VECTORS = np.random.default_rng(5).normal(0, 1, (4, 25, 2, 12))
ATOL = 2e-4
"""Of losses in nat: differences of two float32 log-probabilities of order ten."""


def engine_of(architecture, params, step_tokens=64):
    weights = jax.tree.map(jnp.asarray, params)
    head = models.unembed(weights, architecture)
    program = compute.Program(architecture, "float32", "float32")
    return compute.Engine(program, ((weights, head),), step_tokens)


def sequences_of(tokens, source, target):
    tokens, source, target = (np.asarray(x, np.int64) for x in (tokens, source, target))
    n = len(tokens)
    zeros = np.zeros(n, np.int64)
    copied = np.take_along_axis(tokens, source, 1)
    return sequences.Sequences(
        tokens, target, source - 1, source, copied, zeros, zeros + 1, np.arange(n)
    )


def design_of(embedding, vocab, layers, probe=None, names=None):
    usable = np.ones(vocab, bool)
    foreign = directions.foreign_tokens(np.zeros(vocab), usable, 0)
    of_probe = None
    if probe is not None:
        of_probe = directions.foreign_tokens(np.zeros(vocab), probe.has(np.arange(vocab)), 0)
    made = arms.Arms(arms.centred(embedding), foreign, 0, probe, of_probe)
    chosen = names or arms.choose(None, probe is not None)
    return design.Design(tuple(chosen), tuple(range(layers)), {}, made)


@pytest.fixture(scope="module")
def model():
    return models.parse(CONFIG), random_model.random_params(CONFIG, 3)


@pytest.fixture(scope="module")
def material():
    random = np.random.default_rng(0)
    source = np.sort(random.permuted(np.tile(np.arange(1, 8), (5, 1)), axis=1)[:, :3], axis=1)
    return sequences_of(random.integers(0, 50, (5, 16)), source, source + 7)


@pytest.fixture(scope="module")
def probe():
    return directions.Directions.of_probe(np.arange(0, 50, 2), VECTORS, "0" * 64)


@pytest.fixture(scope="module")
def stream_mean():
    return np.random.default_rng(6).normal(0, 0.3, (4, 12)).astype(np.float32)


def log_probabilities(model, tokens, patch=lambda layer, h: h):
    architecture, params = model
    head = models.unembed(params, architecture)
    streams = oracle.residuals(params, architecture, tokens, patch=patch)
    return oracle.log_softmax(oracle.logits(streams, head)[-1])


def span_of(arm, made, layer, token):
    """Projection on what an arm replaces, from the definitions."""
    embed, signs = 12, directions.random_signs(50, 12, 0)[token]
    centred = made.arms.embedding.astype(np.float64)

    def on(vectors):
        x = np.asarray(vectors, np.float64).T
        return x @ np.linalg.pinv(x)

    if arm == "whole":
        return np.eye(embed)
    if arm == "rest":
        own = "probe" if made.arms.probe is not None else "embedding"
        return np.eye(embed) - span_of(own, made, layer, token)
    if arm in ("probe", "foreign_probe"):
        token = made.arms.foreign_probe[token] if arm == "foreign_probe" else token
        place = int(np.flatnonzero(made.arms.probe.token == token)[0])
        return on(VECTORS[layer, place])
    token = made.arms.foreign[token] if arm == "foreign" else token
    rows = {"embedding": centred[[token]], "foreign": centred[[token]]}
    rows |= {"random": signs[:1], "random_plane": signs}
    return on(rows[arm])


def expected_losses(model, material, made, stream_mean, arm, layer):
    """Losses by the definition, one target at a time; NaN where the arm is not defined."""
    has = made.arms.probe is None or arm not in (*ablation_file.OF_PROBE, "rest")
    ids = np.take_along_axis(material.tokens, material.source, 1)
    present = np.ones(ids.shape, bool) if has else np.isin(ids, made.arms.probe.token)

    def patch(number, h):
        h = h.copy()
        for line, j in np.argwhere(present) if number == layer else ():
            at = material.source[line, j]
            away, token = h[line, at] - stream_mean[layer], ids[line, j]
            if arm == "random_shift":
                sign = directions.random_signs(50, 12, 0)[token, 0]
                moved = np.linalg.norm(span_of("probe", made, layer, token) @ away)
                h[line, at] += moved * sign / np.linalg.norm(sign)
            else:
                h[line, at] -= span_of(arm, made, layer, token) @ away
        return h

    rows = np.arange(len(ids))[:, None]
    clean, patched = (
        log_probabilities(model, material.tokens, p)[rows, material.target, material.copied]
        for p in (lambda number, h: h, patch)
    )
    return np.where(present, clean - patched, np.nan), clean


@pytest.mark.parametrize("probed", [False, True])
def test_every_arm_at_every_layer_is_that_of_the_reference(
    model, material, probe, stream_mean, probed
):
    made = design_of(model[1]["wte"], 50, 3, probe if probed else None)
    assert len(made.names) == (9 if probed else 5)
    found = compute.part(engine_of(*model), material, made, stream_mean, lambda count: None)
    for i, arm in enumerate(made.names):
        for layer in made.layers:
            losses, clean = expected_losses(model, material, made, stream_mean, arm, layer)
            count = np.isfinite(losses).sum(1)
            assert (found["n_targets"][:, i] == count).all()
            some = count > 0
            np.testing.assert_allclose(
                found["loss"][some, i, layer], np.nanmean(losses[some], 1), atol=ATOL
            )
            assert np.isnan(found["loss"][~some, i, layer]).all()
            assert np.nanmax(np.abs(losses)) > 10 * ATOL
            kept = np.where(np.isfinite(losses), clean, np.nan)[some]
            np.testing.assert_allclose(found["clean"][some, i], np.nanmean(kept, 1), atol=ATOL)
    assert made.arms.probe is None or (found["n_targets"][:, 0] < 3).any()


def test_the_earlier_occurrence_is_read_before_the_source(model, material, stream_mean):
    made = design_of(model[1]["wte"], 50, 1, names=["whole"])
    found = compute.part(engine_of(*model), material, made, stream_mean, lambda count: None)
    rows = np.arange(len(material))[:, None]
    expected = log_probabilities(model, material.tokens)[rows, material.source - 1, material.copied]
    np.testing.assert_allclose(found["earlier"][:, 0], expected.mean(1), atol=ATOL)


@pytest.mark.long
def test_the_whole_stream_of_the_input_layer_is_another_token(model, stream_mean):
    """Equal to running, unpatched, with another row of the embedding at the source."""
    architecture, params = model
    tokens = np.random.default_rng(1).integers(0, 50, (4, 16))
    source = np.array([[1], [3], [5], [9]])
    material = sequences_of(tokens, source, np.full((4, 1), 12))
    made = design_of(params["wte"], 50, 1, names=["whole"])
    found = compute.part(engine_of(*model), material, made, stream_mean, lambda count: None)
    masked = tokens.copy()
    rows = [stream_mean[0] - params["wpe"][at] for at in source[:, 0]]
    masked[np.arange(4), source[:, 0]] = 50 + np.arange(4)
    other = params | {"wte": np.vstack([params["wte"], rows])}
    plain = log_probabilities(model, tokens)
    head = models.unembed(params, architecture)
    streams = oracle.residuals(other, architecture, masked)
    replaced = oracle.log_softmax(oracle.logits(streams, head)[-1])
    each = np.arange(4)
    expected = (plain - replaced)[each, 12, tokens[each, source[:, 0]]]
    np.testing.assert_allclose(found["loss"][:, 0, 0], expected, atol=ATOL)
    assert np.abs(expected).max() > 0.01


@pytest.mark.parametrize(
    "size", [3 * 16, *(pytest.param(size, marks=pytest.mark.long) for size in (1, 7 * 16))]
)
def test_batches_of_any_shape_and_number_of_devices_give_the_same(
    model, material, probe, stream_mean, size
):
    made = design_of(model[1]["wte"], 50, 3, probe)
    whole = compute.part(engine_of(*model, 10**6), material, made, stream_mean, lambda count: None)
    one = engine_of(*model, size)
    two = compute.Engine(one.program, one.weights * 2, size)
    for engine in (one, two):
        found = compute.part(engine, material, made, stream_mean, lambda count: None)
        for name, value in whole.items():
            np.testing.assert_allclose(found[name], value, atol=ATOL, equal_nan=True)


def test_one_program_serves_clean_runs_all_arms_and_all_layers(model, material, probe, stream_mean):
    made = design_of(model[1]["wte"], 50, 3, probe)
    seen = []
    before = compute._read._cache_size()
    compute.part(engine_of(*model, 5 * 16), material, made, stream_mean, seen.append)
    assert compute._read._cache_size() <= before + 1
    assert sum(seen) == material.tokens.size * (2 + 9 * 3)


def test_what_is_planted_is_found_at_its_layer_along_its_direction_and_nowhere_else():
    architecture, params = planted_copies.params()
    random = np.random.default_rng(0)
    lag, vocab = planted_copies.LAG, planted_copies.VOCAB
    # Each token as often as the next, so that nothing of one is left in the mean.
    blocks = np.concatenate([random.permutation(vocab) for _ in range(2)]).reshape(6, lag)
    source = np.tile(np.arange(1, lag), (6, 1))
    material = sequences_of(np.tile(blocks, 2), source, source + lag - 1)
    places = (planted_copies.A, planted_copies.B)
    vectors = np.array(
        [[[planted_copies.direction(at, t)] * 2 for t in range(vocab)] for at in places]
    )
    probe = directions.Directions.of_probe(np.arange(vocab), vectors, "0" * 64)
    made = design_of(params["wte"], vocab, 2, probe)
    stream_mean = oracle.residuals(params, architecture, material.tokens).mean((1, 2))
    found = compute.part(
        engine_of(architecture, params),
        material,
        made,
        stream_mean.astype(np.float32),
        lambda count: None,
    )
    gain = (found["clean"] - found["earlier"])[:, 0].mean()
    assert gain > 2
    loss = dict(zip(made.names, found["loss"].mean(0), strict=True))
    # At layer 0 along the embedding, which is also what the planted probe has there.
    assert loss["embedding"][0] > 0.5 * gain and loss["probe"][0] > 0.5 * gain
    # At layer 1 along the other direction alone: the lens' own loses nothing.
    assert loss["probe"][1] > 0.5 * gain and abs(loss["embedding"][1]) < 0.05 * gain
    for arm in ("foreign", "random"):
        assert (np.abs(loss[arm]) < 0.15 * gain).all(), arm
    assert (loss["whole"] > 0.5 * gain).all()
    # Disjoint arms need not add up: at layer 0 the rest holds the position, by which keys match.
    together = loss["probe"] + loss["rest"]
    assert abs(together[0] - loss["whole"][0]) > 0.1 * gain


@pytest.mark.long
def test_the_mean_leaves_out_the_start_of_a_context_and_stops_at_its_limit(model):
    architecture, params = model
    random = np.random.default_rng(2)
    sizes = (16, 5, 1, 9, 16)
    windows = [passages.Window(0, 0, 0, random.integers(0, 50, size)) for size in sizes]
    for step_tokens in (16, 48, 1000):
        found, count = mean.mean_stream(engine_of(*model, step_tokens), windows, 16, 25)
        assert count == 15 + 4 + 0 + 8
        kept = [
            oracle.residuals(params, architecture, window.tokens[None])[:, 0, 1:]
            for window in windows[:4]
        ]
        np.testing.assert_allclose(found, np.concatenate(kept, 1).mean(1), atol=1e-5)


def test_the_arms_of_the_file_are_those_that_are_tested():
    assert set(ablation_file.ARMS) == {
        *("probe", "embedding", "foreign", "random", "random_plane", "foreign_probe"),
        *("random_shift", "whole", "rest"),
    }
