"""An ablation of a run: begun, killed, resumed, finished, refused."""

import dataclasses
import hashlib
import json
import os
import pydoc_data.topics
import shutil
import subprocess
import sys

import numpy as np
import pytest
from sweeps import PACKAGED, configure, refused, run_cli

from jaxlens import config, errors
from jaxlens.models.checkpoints import checkpoint
from jaxlens.store import ablation_file, ablation_parts, layout, verify
from jaxlens.sweep import run as sweep
from jaxlens.sweep.ablation import design, directions, run

SETTINGS = design.Settings(layers=(0, 1), blocks=40, copies=24)
PARTS = 3
ATOL = 2e-4


@pytest.fixture(scope="module")
def prose(tmp_path_factory):
    """A corpus with enough kinds of tokens for blocks."""
    path = tmp_path_factory.mktemp("prose") / "texts.jsonl"
    topics = sorted(pydoc_data.topics.topics.items())[:12]
    lines = [json.dumps({"id": name, "text": text[:1500]}) for name, text in topics]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def begun(tiny, prose, tmp_path_factory):
    """A run of the tiny model over it; who ablates it copies it first."""
    out = tmp_path_factory.mktemp("run") / "out"
    settings = configure(tiny, prose, out, **{"store.rows": "none", "store.shard_tokens": 4096})
    assert sweep.run(settings).finished
    return out


def where(tiny):
    return config.load([], {}, {"model.path": str(tiny), "devices": 1})


@pytest.fixture(scope="module")
def ablated(begun, tiny, tmp_path_factory):
    """The run with its ablation."""
    out = shutil.copytree(begun, tmp_path_factory.mktemp("ablated") / "out")
    result = run.of_run(out, where(tiny), SETTINGS)
    assert result.computed == PARTS
    return out


def digest(folder):
    names = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(n): hashlib.sha256((folder / n).read_bytes()).hexdigest() for n in names}


def test_the_folder_holds_the_spec_and_the_result(ablated, begun):
    folder = ablated / ablation_file.FOLDER
    assert sorted(os.listdir(folder)) == [ablation_file.SPEC, ablation_file.RESULT]
    found = ablation_file.read(folder)
    assert found.arms == ("embedding", "foreign", "random", "whole", "rest")
    assert found.layers == (0, 1) and set(found.materials) == {"blocks", "copies"}
    assert {name: len(part) for name, part in found.materials.items()} == {
        "blocks": 40,
        "copies": 24,
    }
    spec = layout.read_spec(begun).document
    assert found.spec["model"] == spec["model"] and found.spec["corpus"] == spec["corpus"]
    for part in found.materials.values():
        assert np.isfinite(part.mean_loss()).all()
        assert (part.loss[:, 3] != 0).all()
    # The run itself is as it was.
    ours, theirs = digest(ablated), digest(begun)
    assert {k: v for k, v in ours.items() if not k.startswith("ablation/")} == theirs
    assert run_cli("verify", ablated) == 0


def test_a_finished_ablation_says_so_at_once(ablated, tiny, capsys):
    before = digest(ablated)
    result = run.of_run(ablated, where(tiny), SETTINGS)
    assert result.computed == 0 and result.tokens_per_second is None
    assert digest(ablated) == before


def test_other_settings_are_refused_by_name(ablated, tiny):
    before = digest(ablated)
    for change, name in (
        ({"blocks": 41}, "ablation.blocks is 40 there, 41 here"),
        ({"seed": 1}, "ablation.seed is 0 there, 1 here"),
        ({"layers": (0,)}, "ablation.layers is"),
        ({"arms": ("whole",)}, "ablation.arms is"),
    ):
        with pytest.raises(errors.ConfigError, match="of another ablation") as caught:
            run.of_run(ablated, where(tiny), dataclasses.replace(SETTINGS, **change))
        assert name in caught.value.message and "begin anew" in caught.value.hint
    assert digest(ablated) == before


def test_what_began_with_fewer_arms_is_resumed_with_these(begun, tiny, tmp_path):
    """As an ablation from before an arm was added: no arms are asked for, and it goes on."""
    out, few = shutil.copytree(begun, tmp_path / "out"), ("embedding", "whole")
    first = dataclasses.replace(SETTINGS, arms=few, copies=0, blocks=8, layers=(0,))
    run.of_run(out, where(tiny), first)
    (out / ablation_file.FOLDER / ablation_file.RESULT).unlink()
    again = run.of_run(out, where(tiny), dataclasses.replace(first, arms=None))
    assert again.computed > 0 and again.ablation.arms == few


def test_settings_without_sense_are_refused(begun, tiny, tmp_path):
    out = shutil.copytree(begun, tmp_path / "out")
    for settings, what in (
        (design.Settings(blocks=0, copies=0), "neither blocks nor copies"),
        (design.Settings(blocks=-1), "blocks is -1"),
        (design.Settings(layers=(2,)), "no layer 2"),
        (design.Settings(layers=("h.9",)), "no layer 'h.9'"),
        (design.Settings(arms=("probe",)), "the arm probe needs"),
    ):
        with pytest.raises(errors.ConfigError, match=what):
            run.of_run(out, where(tiny), settings)
    assert not (out / ablation_file.FOLDER).exists()


def test_another_model_is_refused_with_the_command_that_names_the_runs(begun, tmp_path, tiny):
    out = shutil.copytree(begun, tmp_path / "out")
    with pytest.raises(errors.ConfigError) as caught:
        run.of_run(out, where("packaged"), SETTINGS)
    assert caught.value.hint.endswith(
        f"name model as for the run: jaxlens ablate {out} --model {tiny}"
    )
    assert not (out / ablation_file.FOLDER).exists()


def test_a_damaged_part_is_computed_again(ablated, begun, tiny, tmp_path):
    out = shutil.copytree(ablated, tmp_path / "out")
    folder = out / ablation_file.FOLDER
    wanted = (folder / ablation_file.RESULT).read_bytes()
    (folder / ablation_file.RESULT).write_bytes(wanted[:-100])
    (folder / ablation_parts.part_name(0)).write_bytes(wanted)
    assert run.of_run(out, where(tiny), SETTINGS).computed == PARTS
    assert (folder / ablation_file.RESULT).read_bytes() == wanted


@pytest.mark.parametrize("name", [ablation_file.SPEC, ablation_file.RESULT])
@pytest.mark.parametrize(
    "at", [0.6, *(pytest.param(at, marks=pytest.mark.long) for at in (0.0, 0.3, 1.0))]
)
def test_verify_finds_a_flipped_bit(ablated, tmp_path, name, at, capsys):
    out = shutil.copytree(ablated, tmp_path / "out")
    path = out / ablation_file.FOLDER / name
    raw = bytearray(path.read_bytes())
    raw[int(at * (len(raw) - 1))] ^= 4
    path.write_bytes(raw)
    assert [found for found, _ in verify.verify(out).damaged] == [f"ablation/{name}"]
    what = "ablation" if name == ablation_file.SPEC else "what is named in ablation"
    told = refused(capsys, 65, "verify", out)
    assert told.endswith(f"hint: remove {what}, then run the same jaxlens ablate {out} again")


def test_verify_follows_no_link_out_of_the_run(ablated, tmp_path):
    out = shutil.copytree(ablated, tmp_path / "out")
    (out / ablation_file.FOLDER).rename(tmp_path / "elsewhere")
    (out / ablation_file.FOLDER).symlink_to(tmp_path / "elsewhere")
    found = dict(verify.verify(out).damaged)
    assert sorted(found) == [f"ablation/{n}" for n in (ablation_file.SPEC, ablation_file.RESULT)]
    assert all("leads out of" in problem for problem in found.values())


def test_a_spec_without_arms_is_damage(ablated, tiny, tmp_path):
    out = shutil.copytree(ablated, tmp_path / "out")
    folder = out / ablation_file.FOLDER
    (folder / ablation_file.SPEC).write_bytes(b'{"ablation":{}}')
    for arms in (None, ("whole",)):
        with pytest.raises(errors.DataError, match="names no arms") as caught:
            run.of_run(out, where(tiny), dataclasses.replace(SETTINGS, arms=arms))
        assert f"remove {folder}, then run" in caught.value.hint
    shutil.rmtree(folder)
    run.of_run(out, where(tiny), SETTINGS)
    assert digest(out) == digest(ablated)


# Dies right before or after its nth file gets its name, as by `kill -9`.
KILLED = """
import os, signal, sys
from jaxlens.files import publish
from jaxlens.cli import main
which, after, calls = int(sys.argv[1]), sys.argv[2] == "after", 0
plain = publish.publish
def dying(path, data, *args, **kwargs):
    global calls
    if "ablation" in str(path):
        calls += 1
        if calls == which and not after:
            os.kill(os.getpid(), signal.SIGKILL)
    done = plain(path, data, *args, **kwargs)
    if "ablation" in str(path) and calls == which and after:
        os.kill(os.getpid(), signal.SIGKILL)
    return done
publish.publish = dying
main.main(sys.argv[3:])
"""


FILES = (ablation_file.SPEC, ablation_parts.MEAN, *map(ablation_parts.part_name, range(PARTS)))
# What dies where, one after the other, and how many of these files there are each time.
KILLS = [
    ([(3, "after")], [3]),
    pytest.param(
        [(1, "after"), (2, "after"), (2, "before"), (1, "after"), (1, "before")],
        [1, 3, 4, 5, 5],
        marks=pytest.mark.long,
    ),
]


@pytest.mark.parametrize(("kills", "left"), KILLS, ids=["once", "at each"])
def test_killed_at_any_file_and_resumed_it_ends_with_the_same_bytes(
    ablated, begun, tiny, tmp_path, kills, left
):
    out = shutil.copytree(begun, tmp_path / "out")
    options = ("--layers", "0", "1", "--blocks", "40", "--copies", "24", "--quiet")
    command = ["ablate", str(out), "--model", str(tiny), *options]
    ends, names = [], []
    for which, when in kills:
        done = subprocess.run(
            [sys.executable, "-c", KILLED, str(which), when, *command],
            env=dict(os.environ) | {"JAXLENS_DEVICES": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        ends.append(done.returncode)
        names.append(sorted(n for n in os.listdir(out / "ablation") if not n.startswith(".")))
    assert ends == [-9] * len(kills), done.stderr
    # The spec; mean and a part; a second one; a third, the last; and no result yet.
    assert names == [list(FILES[:count]) for count in left]
    assert run_cli(*command) == 0
    assert digest(out / "ablation") == digest(ablated / "ablation")


@pytest.mark.long  # test_compute does it without a run
def test_batches_of_another_shape_give_the_same(ablated, begun, tiny, prose, tmp_path):
    """The same corpus and model, in steps of other sizes, into a folder of their own."""
    settings = configure(tiny, prose, tmp_path / "out", **{"plan.step_sequences": 3})
    result = run.of_model(settings, SETTINGS)
    ours = ablation_file.read(ablated / ablation_file.FOLDER)
    assert (tmp_path / "out" / layout.TOKENS).is_dir()
    for name, part in result.ablation.materials.items():
        for field, value in vars(part).items():
            np.testing.assert_allclose(
                value, getattr(ours.materials[name], field), atol=ATOL, equal_nan=True
            )
    assert run.of_model(settings, SETTINGS).computed == 0


def test_a_folder_of_another_corpus_keeps_its_tokens(tiny, prose, texts, tmp_path):
    few = design.Settings(arms=("whole",), layers=(0,), blocks=0, copies=4)
    run.of_model(configure(tiny, prose, tmp_path / "out"), few)
    before = digest(tmp_path / "out")
    with pytest.raises(errors.ConfigError, match="its corpus has"):
        run.of_model(configure(tiny, texts, tmp_path / "out"), few)
    assert digest(tmp_path / "out") == before


def test_a_folder_of_another_run_is_refused(begun, tiny, prose):
    before = digest(begun)
    with pytest.raises(errors.ConfigError, match="another run"):
        run.of_model(configure(tiny, prose, begun), SETTINGS)
    assert digest(begun) == before


def test_directions_of_a_probe_bring_their_arms_and_are_counted(begun, tiny, tmp_path):
    """Half of the types have directions: blocks are drawn of them, copies are as they come."""
    found = checkpoint.load(tiny)
    vectors = np.random.default_rng(0).normal(0, 1, (3, 2048, 2, found.architecture.n_embd))
    probe = directions.Directions.of_probe(np.arange(0, 4096, 2), vectors, "1" * 64)
    out = shutil.copytree(begun, tmp_path / "out")
    result = run.of_run(out, where(tiny), SETTINGS, probe=probe).ablation
    assert result.arms == ablation_file.ARMS
    assert result.spec["ablation"]["probe_sha256"] == "1" * 64
    blocks, copies = (result.materials[name] for name in ("blocks", "copies"))
    assert (blocks.n_targets == blocks.n_targets[:, :1]).all()
    without = int((copies.n_targets[:, 0] == 0).sum())
    assert 0 < without < 24
    assert result.notes.left_out["copies"][design.NOT_PROBED] == without
    assert np.isnan(copies.loss[copies.n_targets[:, 0] == 0, 0]).all()
    with pytest.raises(errors.ConfigError, match=r"ablation\.arms is"):
        run.of_run(out, where(tiny), SETTINGS)


def test_a_null_of_fresh_weights_is_a_run_like_any_other(tiny, prose, tmp_path):
    settings = configure(
        tiny, prose, tmp_path / "out", **{"store.rows": "none", "null": "random-init", "seed": 1}
    )
    sweep.run(settings)
    few = design.Settings(arms=("whole",), layers=(1,), blocks=0, copies=8)
    result = run.of_run(tmp_path / "out", where(tiny), few).ablation
    assert result.spec["null"] == {"kind": "random-init", "seed": 1}
    assert np.abs(result.materials["copies"].mean_loss()).max() < 0.05


def test_progress_counts_every_token_that_is_computed(begun, tiny, tmp_path):
    out, seen = shutil.copytree(begun, tmp_path / "out"), []

    class Watch:
        def begin(self, total, done):
            seen.append((total, done))

        def advance(self, count):
            seen.append(count)

    few = design.Settings(arms=("whole", "rest"), layers=(0,), blocks=4, copies=4)
    run.of_run(out, where(tiny), few, Watch())
    (total, done), *counts = seen
    assert done == 0 and sum(counts) == total == 8 * 32 * (2 + 2)


@pytest.mark.long
def test_the_packaged_model_reads_copies_of_blocks(tmp_path, prose):
    """What the pilot of the study saw: the embedding at layer 0, the whole stream beyond."""
    settings = configure(PACKAGED, prose, tmp_path / "out", **{"plan.step_sequences": 8})
    wanted = design.Settings(arms=("embedding", "whole"), layers=(0, 1, 7), blocks=16, copies=0)
    found = run.of_model(settings, wanted).ablation.materials["blocks"]
    gain, loss = found.gain(), found.mean_loss()
    assert gain > 2
    assert loss[0, 0] > 0.5 * gain and abs(loss[0, 1]) < 0.1 * gain
    assert loss[1, 1] > 0.5 * gain and loss[1, 2] < 0.25 * gain
