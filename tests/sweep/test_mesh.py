"""Devices that share a model: chosen or forced, recorded, and of no account for the result."""

import json
import shutil

import jax
import numpy as np
import pytest
from sweeps import TILES, configure, digest, once, refused, run_cli

from jaxlens import config, errors, models, schema
from jaxlens.bench.compiled import hlo, traffic
from jaxlens.models import placement
from jaxlens.store import commit, layout, reader, verify
from jaxlens.sweep import batch_size, devices, mesh_size, prepare, repair, resolve, run
from jaxlens.sweep import step as steps

PAIR = {"mesh.model": 2, "devices": 2}


@pytest.fixture(scope="session")
def shared(tiny, texts, tmp_path_factory):
    """The run ``swept`` by two devices that share the model."""

    def make(folder):
        assert run.run(configure(tiny, texts, folder, **PAIR)).finished

    return once(tmp_path_factory, "shared-model", make)


def test_rows_are_those_of_one_device(shared, swept):
    assert "mesh" not in layout.read_spec(swept).document
    assert layout.read_spec(shared).document["mesh"] == {"model": 2}
    with reader.open_run(swept) as one, reader.open_run(shared) as two:
        rows = {name: (np.asarray(one[name][:]), np.asarray(two[name][:])) for name in one.names}
        # Two tokens almost equal at the last layer may change places, and with them what is said
        # of the best one.
        best, other_best = (
            ids.reshape(len(ids), ids.shape[1], -1)[:, -1, 0] for ids in rows["top_id"]
        )
        same_best = best == other_best
        for name, (expected, got) in rows.items():
            if schema.QUANTITIES[name].kind == "float":
                if name == "logp_final":
                    expected, got = expected[same_best], got[same_best]
                np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4, err_msg=name)
            else:
                assert (got != expected).mean() < 1e-3, name
        np.testing.assert_array_equal(two.tally["count"], one.tally["count"])
    assert verify.verify(shared).ok


@pytest.mark.long
def test_a_run_keeps_its_devices_whoever_resumes_or_repairs_it(shared, tiny, texts, tmp_path):
    begun = shutil.copytree(shared, tmp_path / "run")
    commit.discard(begun, 2)
    commit.discard(begun, 3)
    # Two workers of two devices, and no mesh in their settings.
    assert run.run(configure(tiny, texts, begun, devices=4)).computed == 2
    assert digest(begun) == digest(shared)


@pytest.mark.long
def test_a_repair_computes_as_the_run_did(shared, tiny, texts, tmp_path):
    begun = shutil.copytree(shared, tmp_path / "run")
    layout.shard_path(begun, 1).write_bytes(b"")
    done = repair.repair(begun, configure(tiny, texts, None, devices=2))
    assert done.recomputed == (1,) and not done.other_bits
    assert digest(begun) == digest(shared)


@pytest.mark.long
@pytest.mark.parametrize(
    "changes",
    [
        {"null": "random-init", "store.tallies": "study", "store.rows": "none"},
        {"lens.temperatures": None, "lens.precision": "bfloat16", "model.dtype": "bfloat16"},
        {"lens.implementation": "pallas", "store.quantities": ["norm", "retention"]},
        {"lens.implementation": "reference"},
    ],
)
def test_every_kind_of_run_takes_several_devices(changes, tiny, texts, tmp_path):
    assert run.run(configure(tiny, texts, tmp_path / "run", **PAIR, **changes)).finished
    assert verify.verify(tmp_path / "run").ok


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["mesh.model=3"], "mesh.model is 3, which does not divide the model's n_embd of 8"),
        (["mesh.model=8", "devices=4"], "mesh.model is 8, more than the 4 cpu devices"),
        (["mesh.model=2", "devices=1"], "mesh.model is 2, more than the 1 cpu device"),
        (["mesh.model=2", "devices=3"], "mesh.model is 2, which does not divide the 3 cpu devices"),
        (["mesh.model=0"], "mesh.model is 0"),
        (["mesh.model=two"], "mesh.model is 'two'"),
    ],
)
def test_devices_that_cannot_share_are_refused(settings, said, tiny, texts, tmp_path, capsys):
    assignments = [word for setting in settings for word in ("--set", setting)]
    command = ("run", "--model", tiny, "--corpus", texts, "--out", tmp_path / "out", *TILES)
    assert said in refused(capsys, 2, *command, *assignments)
    assert not (tmp_path / "out").exists()


def test_another_mesh_is_another_run(swept, tiny, texts, capsys):
    with pytest.raises(errors.ConfigError, match="mesh"):
        run.run(configure(tiny, texts, swept, **PAIR))


@pytest.mark.parametrize("command", ["probe", "ablate"])
def test_what_needs_one_device_refuses_a_shared_model(command, shared, tiny, capsys):
    assert "2 devices share the model" in refused(capsys, 2, command, shared, "--model", tiny)


@pytest.mark.long
def test_a_dry_run_says_how_many_devices_share_the_model(tiny, texts, tmp_path, capsys):
    command = ("run", "--model", tiny, "--corpus", texts, "--out", tmp_path / "out", *TILES)
    pair = ("--set", "mesh.model=2", "--set", "devices=2")
    assert run_cli(*command, *pair, "--dry-run") == 0
    assert "2 devices share one copy of the model" in capsys.readouterr().out


def parsed(**sizes):
    small = {"n_layer": 3, "n_head": 4, "n_embd": 96, "n_positions": 64, "vocab_size": 50257}
    return models.parse({"model_type": "gpt2", "bos_token_id": None} | small | sizes)


def compile_step(count):
    """The step of GPT-2's vocabulary on so many devices, and its configuration."""
    settings = {"mesh.model": count, "devices": count, "plan.step_sequences": 4}
    resolved = resolve.resolve(config.load([], {}, settings), parsed())
    params = placement.shapes(parsed(), "float32", count)
    (group,) = devices.groups(resolved.config)
    return resolved, batch_size.compile_step(resolved, params, group)


def whole_tables(compiled, resolved):
    """Arrays in a program that hold all entries of the vocabulary, padded or not."""
    embed, vocab = resolved.architecture.n_embd, resolved.architecture.vocab_size
    padded = vocab + resolved.model_devices * resolved.config.lens.tile
    shapes = {
        shape.dims
        for computation in hlo.parse(compiled.as_text()).computations.values()
        for instruction in computation.values()
        for shape in instruction.shapes
        if embed in shape.dims
    }
    return [dims for dims in shapes if vocab <= np.prod(dims) // embed < padded]


EXCHANGES = ("all-reduce", "all-gather", "all-to-all", "reduce-scatter", "collective-permute")


@pytest.mark.long
def test_no_device_holds_a_table_of_the_vocabulary_or_waits_within_its_tiles():
    resolved, one = compile_step(1)
    assert whole_tables(one, resolved)
    resolved, shared = compile_step(4)
    assert not whole_tables(shared, resolved)
    # Tables, end logits and tiles; norms and what every device has of the rest are small.
    for what in ("argument_size_in_bytes", "temp_size_in_bytes"):
        sizes = [getattr(compiled.memory_analysis(), what) for compiled in (one, shared)]
        assert sizes[1] < 0.27 * sizes[0], what
    works = traffic.count(hlo.parse(shared.as_text()))
    waits = [work for work in works if work.instruction.operation.startswith(EXCHANGES)]
    deepest = max(len(work.path) for work in works)
    assert all(len(work.path) < deepest for work in waits)
    # Two sums in each block of the model; of the lens ten exchanges for each block of tokens.
    in_loops = [work for work in waits if work.path]
    in_lens = [work for work in in_loops if "shard_map" in work.instruction.source]
    in_model = [work for work in in_loops if work not in in_lens]
    assert [work.instruction.operation for work in in_model] == ["all-reduce"] * 2
    assert 0 < len(in_lens) <= 11
    assert resolved.step_tokens // resolved.config.lens.block == in_lens[0].times


def chosen(monkeypatch, tiny, texts, tmp_path, room, **how):
    """The job of a run on four devices that have so much room each."""
    monkeypatch.setattr(devices, "unused_bytes", lambda targets: room)
    given = configure(tiny, texts, None, devices=4, **how)
    return prepare.prepare(given, tmp_path, read_only=True)


def needed(tiny, count):
    """Bytes that the run needs on each device, beside what is left for others."""
    given = configure(tiny, "", None, **{"mesh.model": count, "devices": count})
    with open(tiny / "config.json") as file:
        architecture = models.parse(json.load(file))
    resolved = resolve.resolve(given, architecture)
    params = placement.shapes(architecture, "float32", count)
    (group,) = devices.groups(resolved.config)
    scratch = steps.scratch_bytes(batch_size.compile_step(resolved, params, group))
    return mesh_size.weights_bytes(resolved, params) + scratch / 0.9


def test_as_few_devices_share_a_model_as_hold_it(monkeypatch, tiny, texts, tmp_path):
    one, two = (needed(tiny, count) for count in (1, 2))
    assert two < one
    before = len(jax.live_arrays())
    with pytest.raises(batch_size.TooLarge, match="on each device"):
        chosen(monkeypatch, tiny, texts, tmp_path, 1000)
    assert len(jax.live_arrays()) == before
    job = chosen(monkeypatch, tiny, texts, tmp_path, int(0.5 * (one + two)))
    assert job.spec["mesh"] == {"model": 2}
    assert {len(leaf.devices()) for leaf in jax.tree.leaves((job.model.params, job.tiles))} == {2}


@pytest.mark.long
def test_a_model_that_fits_is_not_shared(monkeypatch, tiny, texts, tmp_path):
    assert "mesh" not in chosen(monkeypatch, tiny, texts, tmp_path, 2**40).spec
