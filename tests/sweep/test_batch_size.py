"""Steps fill a device and fit its memory, which is known before anything runs."""

import dataclasses
import shutil

import jax
import pytest
from families import CASES, weights
from sweeps import TILES, configure, digest, refused

from jaxlens import errors, models
from jaxlens.lens import tuning
from jaxlens.models import placement
from jaxlens.store import commit, layout
from jaxlens.sweep import batch_size, devices, prepare, resolve, run, workers
from jaxlens.sweep import step as steps

DEFAULT = {"plan.step_sequences": None}


@pytest.fixture
def room(monkeypatch):
    """Sets what every device has."""

    def give(size):
        monkeypatch.setattr(devices, "free_bytes", lambda chosen: size)

    return give


def default_step(monkeypatch, tokens):
    """Sets the positions of a step by default."""
    monkeypatch.setattr(tuning, "CPU", dataclasses.replace(tuning.CPU, step_tokens=tokens))


def needed(tiny, texts, tmp_path, sequences, **more):
    """What the compiler says of a step."""
    how = configure(tiny, texts, None, **{"plan.step_sequences": sequences} | more)
    made = prepare.prepare(how, tmp_path, read_only=True)
    return steps.scratch_bytes(workers.compile_workers(made)[0].step)


@pytest.mark.parametrize(("length", "sequences"), [(1024, 2), (256, 8), (32, 64), (4096, 1)])
def test_a_step_has_as_many_sequences_as_fill_a_core(length, sequences):
    assert resolve.default_step_sequences(length) == sequences


def test_a_step_needs_at_least_the_logits_of_the_end_layers(tiny, texts, tmp_path):
    block, vocab = 50, 4096
    assert needed(tiny, texts, tmp_path, 4) > 2 * 4 * block * vocab


@pytest.mark.long
def test_residuals_in_bfloat16_take_half(tiny, texts, tmp_path):
    wide = needed(tiny, texts, tmp_path, 256)
    narrow = needed(tiny, texts, tmp_path, 256, **{"lens.residuals": "bfloat16"})
    # Of both blocks' inputs; the last stream is read where it is made.
    assert wide - narrow > 0.9 * 2 * 256 * 32 * 8 * 2


def test_the_default_is_halved_until_it_fits(tiny, texts, tmp_path, room, caplog, monkeypatch):
    default_step(monkeypatch, 16 * 32)
    room(needed(tiny, texts, tmp_path, 4))
    with caplog.at_level("INFO", "jaxlens"):
        result = run.run(configure(tiny, texts, tmp_path / "out", **DEFAULT))
    assert result.finished
    assert layout.read_spec(tmp_path / "out").document["plan"]["step_sequences"] == 4
    halved = [record.getMessage() for record in caplog.records if "halved" in record.msg]
    assert [line.split()[3] for line in halved] == ["16", "8"]


def test_what_cannot_fit_is_refused_before_anything_runs(
    tiny, texts, tmp_path, room, capsys, monkeypatch
):
    room(1000)
    with pytest.raises(errors.ConfigError, match=r"a step needs .* on each device"):
        run.run(configure(tiny, texts, tmp_path / "out", **{"plan.step_sequences": 4}))
    assert not list(tmp_path.glob("out/shards/*.h5"))
    default_step(monkeypatch, 32)  # a single sequence
    command = ("run", "--model", tiny, "--corpus", texts, "--out", tmp_path / "other", *TILES)
    assert "plan.step_sequences" in refused(capsys, 2, *command)


@pytest.mark.parametrize("name", CASES)
def test_what_weights_take_is_known_without_them(name, texts):
    architecture = models.parse(CASES[name][1])
    resolved = resolve.resolve(configure("any", texts, None), architecture)
    known = batch_size.weight_shapes(resolved, placement.shapes(architecture, "float32", 1))
    made = batch_size.weight_shapes(resolved, weights.random_weights(architecture))
    assert jax.tree.structure(known) == jax.tree.structure(made)
    of = [[(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree)] for tree in (known, made)]
    assert of[0] == of[1] and len(of[0]) > 9


def test_a_run_keeps_the_step_it_began_with(swept, tiny, texts, tmp_path, room):
    begun = shutil.copytree(swept, tmp_path / "run")
    commit.discard(begun, 2)
    assert run.run(configure(tiny, texts, begun, **DEFAULT)).computed == 1
    assert digest(begun) == digest(swept)
    commit.discard(begun, 2)
    room(1000)
    with pytest.raises(errors.ConfigError, match="a step needs"):
        run.run(configure(tiny, texts, begun, **DEFAULT))


@pytest.mark.long
def test_looking_compiles_nothing_twice(tiny, texts, tmp_path):
    made = prepare.prepare(configure(tiny, texts, tmp_path / "out"), tmp_path)
    weights = devices.put((made.model.params, made.unembed, made.tiles), devices.choose(1)[0])
    batch = steps.batch_shape(made.plan.length, made.plan.step_sequences)
    one, two = (steps.lower(made.step_config, *weights, batch).compile() for _ in range(2))
    assert one.runtime_executable() is two.runtime_executable()


def test_the_shape_of_a_batch_is_that_of_the_plan(tiny, texts, tmp_path):
    made = prepare.prepare(configure(tiny, texts, tmp_path / "out"), tmp_path)
    with made.ingested.open() as tokens:
        batch, _ = made.batch(1, tokens)
    shape = steps.batch_shape(made.plan.length, made.plan.step_sequences)
    found = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), batch)
    assert found == shape
