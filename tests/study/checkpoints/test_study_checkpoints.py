"""The primaries over checkpoints: those of each study, the files, and what is refused."""

import csv
import dataclasses
import json
import math
import shutil

import pandas
import pytest
from study.test_ablation import variables, write
from sweeps import STEPS, STUDY, TEMPERATURES, configure, once, refused, run_cli, save_between

import jaxlens
from jaxlens import errors
from jaxlens.store import ablation_file, layout, reader
from jaxlens.study import study, table
from jaxlens.study.checkpoints import comparable, steps, study_checkpoints
from jaxlens.sweep import run
from jaxlens.sweep.probe import run as probes
from jaxlens.sweep.probe.spec import Settings

ARMS = tuple(ablation_file.ARMS)
SETTINGS = Settings(tokens=2_000, held_out_tokens=2_500)


def folders(root):
    return [root / str(step) for step in STEPS]


@pytest.fixture(scope="module")
def measured(checkpointed, tmp_path_factory):
    """The runs with probes, and with ablations of planted losses."""

    def make(root):
        for seed, folder in enumerate(folders(checkpointed)):
            copy = shutil.copytree(folder, root / folder.name)
            model = str(checkpointed / "models" / f"step{folder.name}")
            probes.of_run(copy, configure(model, checkpointed / "texts.jsonl", copy), SETTINGS)
            write(copy, ARMS, {"blocks": variables(ARMS, seed=seed)})

    return once(tmp_path_factory, "measured-checkpoints", make)


@pytest.fixture(scope="module")
def found(measured):
    return jaxlens.study_checkpoints(folders(measured))


def fields(line):
    """A line as values that equal themselves."""
    return table.plain([line])[0]


def test_each_primary_is_that_of_the_study_of_its_run(measured, found):
    names = {field.name for field in dataclasses.fields(table.Result)}
    assert len(found.lines) == 5 * len(STEPS)
    for i, folder in enumerate(folders(measured)):
        alone = [line for line in study.study(folder).results if line.primary]
        ours = found.lines[5 * i : 5 * i + 5]
        assert [line.question for line in ours] == ["Q1", "Q2", "Q2", "Q3", "Q3"]
        theirs = {line.estimator: fields(line) for line in alone}
        assert len(theirs) == 5
        for line in ours:
            mine = {name: value for name, value in fields(line).items() if name in names}
            assert mine == theirs[line.estimator]
            assert math.isfinite(line.low) and math.isfinite(line.estimate), line
    # Other weights give other numbers: no run stands for another.
    for lines in found.primaries.values():
        assert len({line.estimate for line in lines}) == len(STEPS)


def test_checkpoints_are_labelled_by_the_steps_in_the_paths_of_their_models(measured, found):
    assert found.labels.texts == ("0", "1000", "143000")
    assert set(found.labels.sources) == {"model path"}
    assert [line.step for line in found.lines[::5]] == list(STEPS)
    assert [line.path for line in found.lines[::5]] == [str(f) for f in folders(measured)]
    assert len(found.notes) == 1 and "overlap" in found.notes[0]


def test_the_files_hold_the_same_lines(found, tmp_path):
    study_checkpoints.write(found, tmp_path)
    document = json.loads((tmp_path / "checkpoints.json").read_bytes())
    assert document == json.loads(json.dumps(study_checkpoints.document(found)))
    with (tmp_path / "checkpoints.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    frame = pandas.read_parquet(tmp_path / "checkpoints.parquet")
    assert len(rows) == len(frame) == len(document["checkpoints"]) == len(found.lines)
    for line, row, record, kept in zip(
        found.lines, rows, document["checkpoints"], frame.to_dict("records"), strict=True
    ):
        assert line.label == row["label"] == record["label"] == kept["label"]
        assert line.estimate == float(row["estimate"]) == record["estimate"] == kept["estimate"]
        assert line.step == record["step"] == kept["step"]
    assert [one["label"] for one in document["runs"]] == ["0", "1000", "143000"]
    for one, folder in zip(document["runs"], STEPS, strict=True):
        assert one["path"].endswith(f"/{folder}")
    assert len({one["model_sha256"] for one in document["runs"]}) == len(STEPS)


def test_the_command_prints_a_table_for_each_primary(measured, found, tmp_path, capsys):
    out = tmp_path / "out"
    assert run_cli("study", "--over", *folders(measured), "--out", out) == 0
    printed = capsys.readouterr().out
    for name, lines in found.primaries.items():
        block = printed.partition(f" {name} ")[2].split("\n\n")[0]
        for line, row in zip(lines, block.splitlines()[2:], strict=False):
            label, estimate, low, high, n, clusters, *_ = row.split()
            assert (label, estimate) == (line.label, f"{line.estimate:.3g}")
            assert (low, high) == (f"[{line.low:.3g},", f"{line.high:.3g}]")
            assert (n, clusters) == (f"{line.n:,}", f"{line.clusters:,}")
    assert "whether two intervals overlap is no test" in " ".join(printed.split())
    names = {f"checkpoints.{kind}" for kind in ("parquet", "csv", "json", "html")}
    assert {path.name for path in out.iterdir()} == names


def test_the_command_prints_json_alone(measured, found, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ("--over", *folders(measured), "--labels", "a", "b", "c", "--json")
    assert run_cli("study", *words) == 0
    document = json.loads(capsys.readouterr().out)
    assert [line["label"] for line in document["checkpoints"][::5]] == ["a", "b", "c"]
    assert {line["step"] for line in document["checkpoints"]} == {None}
    assert [line["estimate"] for line in document["checkpoints"]] == [
        line.estimate for line in found.lines
    ]
    assert document["axis"] == "checkpoint" and (tmp_path / "study-over").is_dir()


def test_a_run_alone_prints_its_numbers_as_json(measured, tmp_path, capsys):
    assert run_cli("study", measured / "0", "--out", tmp_path, "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "results.json").read_bytes())


def test_labels_may_stand_before_runs_and_not_in_both_places(checkpointed, tmp_path, capsys):
    one, two, _ = folders(checkpointed)
    given = (f"early={one}", f"late={two}", "--out", tmp_path, "--json")
    assert run_cli("study", "--over", *given) == 0
    document = json.loads(capsys.readouterr().out)
    assert [run["label"] for run in document["runs"]] == ["early", "late"]
    told = refused(capsys, 2, "study", "--over", *given, "--labels", "1", "2")
    assert "--labels and as LABEL=RUN" in told


def sweep(checkpointed, out, share=0.2, **more):
    """A further checkpoint's run, which differs from the others in what is given."""
    model = out.parent / f"model-{out.name}"
    save_between(model, share)
    how = STUDY | {"lens.temperatures": TEMPERATURES, "corpus.limit": 6_000} | more
    run.run(configure(model, checkpointed / "texts.jsonl", out, **how))
    return out


@pytest.mark.long
@pytest.mark.parametrize("more", [{}, {"plan.step_sequences": 2}])
def test_batch_shards_and_seed_may_differ_and_the_seed_is_noted(checkpointed, tmp_path, more):
    how = {"store.shard_tokens": 1024, "seed": 7, **more}
    other = sweep(checkpointed, tmp_path / "step5", **how)
    found = jaxlens.study_checkpoints([checkpointed / "0", other])
    assert found.labels.texts == ("0", "5") and "seeds differ" in found.notes[-1]


CHANGES = {
    "another dtype": ("model", "dtype", "bfloat16"),
    "another decoder": ("lens", "decoder", "plain"),
    "another precision": ("lens", "precision", "highest"),
    "another residuals": ("lens", "residuals", "bfloat16"),
    "another context length": ("plan", "length", 16),
    "another overlap": ("plan", "overlap", 5),
    "another table of token counts": ("token_counts", "sha256", "00"),
    "of other tokens: kind of corpus": ("corpus", "kind", "prompts:curated"),
    "of other tokens: tokenizer": ("tokenizer", "sha256", "00"),
    "of other tokens: BOS token": ("corpus", "bos", "start"),
    "of other tokens: token file": ("corpus", "sha256", "00"),
    "of another architecture": ("model", "architecture", {"n_layer": 3}),
    "is itself a shuffled run": ("null", "kind", "shuffled"),
}


@pytest.mark.parametrize("why", CHANGES)
def test_a_run_whose_spec_differs_in_more_than_its_weights_is_refused(
    checkpointed, monkeypatch, why
):
    section, key, value = CHANGES[why]
    one, two, _ = folders(checkpointed)
    opened = reader.open_run

    def changed(folder):
        run = opened(folder)
        if folder == two:
            run.spec = dict(run.spec) | {section: dict(run.spec.get(section) or {}) | {key: value}}
        return run

    monkeypatch.setattr(reader, "open_run", changed)
    with pytest.raises(errors.ConfigError) as refusal:
        jaxlens.study_checkpoints([one, two])
    assert why in refusal.value.message and str(two) in refusal.value.message
    assert refusal.value.hint


def test_a_run_of_this_series_is_opened_unchanged(checkpointed):
    """Without a change the same two runs are no error, so each refusal above is of its change."""
    labels = steps.labelled(folders(checkpointed)[:2])
    infos = comparable.require(folders(checkpointed)[:2], labels)
    assert [info.path for info in infos] == folders(checkpointed)[:2]


DIFFERENCES = {
    "are of other tokens: number of tokens": {"corpus.limit": 500},
    "is itself a random-init run": {"corpus.limit": 500, "null": "random-init", "seed": 1},
    "has no rows of": {"store.tallies": "basic"},
    "another decoder": {"lens.decoder": "plain"},
}


@pytest.mark.parametrize(
    "why",
    [
        pytest.param(why, marks=[pytest.mark.long] * (place > 1))
        for place, why in enumerate(DIFFERENCES)
    ],
)
def test_the_command_refuses_a_run_that_is_not_of_the_series(checkpointed, tmp_path, capsys, why):
    other = sweep(checkpointed, tmp_path / "step5", **DIFFERENCES[why])
    told = refused(capsys, 2, "study", "--over", checkpointed / "0", other)
    assert why in told and str(other) in told


def test_two_runs_of_the_same_weights_are_refused_by_name(checkpointed, tmp_path, capsys):
    same = sweep(checkpointed, tmp_path / "step5", share=STEPS[1000], **{"corpus.limit": 500})
    told = refused(capsys, 2, "study", "--over", *folders(checkpointed), same)
    digest = layout.read_spec(same).document["model"]["sha256"]
    assert f"{same} (labelled 5) has the same weights" in told and digest[:12] in told
    assert f"{checkpointed / '1000'} (labelled 1000)" in told and "branches" in told
    copy = shutil.copytree(checkpointed / "0", tmp_path / "copy")
    told = refused(capsys, 2, "study", "--over", checkpointed / "0", copy)
    assert f"{copy} is the same run as {checkpointed / '0'}" in told


def test_runs_that_cannot_make_a_series_are_refused(checkpointed, tmp_path, capsys):
    one, two, _ = folders(checkpointed)
    told = refused(capsys, 2, "study", "--over", one)
    assert "1 run: a series needs at least two" in told
    told = refused(capsys, 2, "study", "--over", one, two, "--labels", "1", "1.0")
    assert f"{one} and {two} are both labelled" in told
    assert "1 label for 2 runs" in refused(capsys, 2, "study", "--over", one, two, "--labels", "1")
    told = refused(capsys, 2, "study", one, "--over", two)
    assert f"jaxlens study --over {one} {two}" in told
    assert "--null with --over" in refused(capsys, 2, "study", "--over", one, two, "--null", one)
    assert "--by with --over" in refused(capsys, 2, "study", "--over", one, two, "--by", "x")
    assert "--labels without --over" in refused(capsys, 2, "study", "--labels", "1", "2")
    assert "no run directory" in refused(capsys, 2, "study")
    refused(capsys, 66, "study", "--over", one, tmp_path / "none")
    unfinished = shutil.copytree(two, tmp_path / "unfinished")
    for path in (unfinished / "shards").glob("*0.*"):
        path.unlink()
    refused(capsys, 66, "study", "--over", one, unfinished)
    with pytest.raises(errors.ConfigError, match="one path"):
        jaxlens.study_checkpoints(str(one))


@pytest.mark.long
def test_another_architecture_is_refused(checkpointed, swept_small, capsys):
    told = refused(capsys, 2, "study", "--over", checkpointed / "0", swept_small)
    assert f"{swept_small} is of another architecture" in told and "n_embd is 4, not 8" in told


@pytest.fixture
def swept_small(checkpointed, tmp_path):
    """A run of a narrower model over the same text."""
    from random_model import random_params
    from sweeps import PACKAGED, TINY

    from jaxlens import models
    from jaxlens.models.checkpoints import checkpoint

    narrow = TINY | {"n_embd": 4}
    model, out = tmp_path / "model", tmp_path / "narrow"
    parsed = models.parse(narrow)
    params = random_params(narrow, 0)
    checkpoint.save(model, parsed, params, "safetensors", tokenizer_from=PACKAGED)
    how = {"lens.temperatures": TEMPERATURES, "corpus.limit": 6_000}
    run.run(configure(model, checkpointed / "texts.jsonl", out, **STUDY, **how))
    return out


def test_probes_and_ablations_with_other_options_are_refused(measured, checkpointed, tmp_path):
    one = measured / "0"
    other = shutil.copytree(checkpointed / "1000", tmp_path / "step5")
    model = str(checkpointed / "models" / "step1000")
    few = dataclasses.replace(SETTINGS, tokens=1_500)
    probes.of_run(other, configure(model, checkpointed / "texts.jsonl", other), few)
    with pytest.raises(errors.ConfigError, match=f"the probe of {other} differs"):
        study_checkpoints.study_checkpoints([one, other])
    plain = shutil.copytree(checkpointed / "1000", tmp_path / "step6")
    write(plain, ARMS, {"blocks": variables(ARMS)})
    spec = ablation_file.read(plain / ablation_file.FOLDER).spec["ablation"]
    assert spec == ablation_file.read(one / ablation_file.FOLDER).spec["ablation"]
    found = study_checkpoints.study_checkpoints([one, plain])
    probed = found.primaries["probe_minus_lens_recall_1_own"]
    assert math.isfinite(probed[0].estimate) and "no probe was made" in probed[1].note
