"""`jaxlens repair`: damage of every kind is undone bit for bit, and nothing else is touched."""

import json
import os
import random
import shlex
import shutil
import time
import tracemalloc

import pytest
from sweeps import configure, flags, refused, run_cli, start

import jaxlens
from jaxlens import config, errors
from jaxlens.store import layout, verify, worker_notes
from jaxlens.sweep import repair, run, spec, temperatures


def tree(folder):
    """Every file but what workers note of themselves."""
    files = (path for path in folder.rglob("*") if path.is_file())
    named = {str(path.relative_to(folder)): path for path in files}
    return {n: p.read_bytes() for n, p in named.items() if not n.startswith("environment/")}


def flip(path, at=0.5):
    raw = bytearray(path.read_bytes())
    raw[int(len(raw) * at)] ^= 4
    path.write_bytes(raw)


@pytest.fixture
def out(tmp_path, swept):
    return shutil.copytree(swept, tmp_path / "run")


def mend(out, tiny, texts=None):
    overrides = {"model.path": str(tiny), "devices": 1} | (
        {"corpus.paths": [str(texts)]} if texts else {}
    )
    return repair.repair(out, config.load([], {}, overrides))


def test_shards_damaged_in_every_way_are_recomputed_and_no_others(out, tiny):
    before = tree(out)
    parts = [layout.shard_path(out, n) for n in range(8)]
    untouched = {p: p.stat().st_mtime_ns for p in (parts[7], layout.sidecar_path(out, 7))}
    flip(parts[0])
    os.truncate(parts[1], 4096)
    parts[2].unlink()
    layout.sidecar_path(out, 3).unlink()
    flip(layout.sidecar_path(out, 4))
    shutil.copy(parts[7], parts[5])  # a duplicate, with a record that fits it
    shutil.copy(layout.sidecar_path(out, 7), layout.sidecar_path(out, 5))
    parts[6].write_bytes(b"")
    done = mend(out, tiny)
    assert done.recomputed == (0, 1, 2, 3, 4, 5, 6)
    assert done.other_bits == done.left == ()
    assert {name for name, _ in done.found} >= {"shards/part-00000.h5", "shards/part-00004.json"}
    assert tree(out) == before
    assert all(path.stat().st_mtime_ns == time for path, time in untouched.items())


def test_swapped_and_foreign_shards_are_recomputed(out, tiny, texts, tmp_path):
    from jaxlens.sweep import run

    before = tree(out)
    other = tmp_path / "other"
    run.run(configure(tiny, texts, other, seed=1))
    for kind in ("h5", "json"):
        shutil.copy(other / f"shards/part-00000.{kind}", out / f"shards/part-00000.{kind}")
        one, two = (out / f"shards/part-0000{n}.{kind}" for n in (1, 2))
        one.rename(out / "aside")
        two.rename(one)
        (out / "aside").rename(two)
    assert mend(out, tiny).recomputed == (0, 1, 2)
    assert tree(out) == before


# At every fourth of these places, or at all.
@pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.long)])
def test_truncation_at_every_4_kib_is_repaired(out, tiny, every):
    before = tree(out)
    paths = [layout.shard_path(out, n) for n in range(8)]
    sizes = list(range(0, paths[0].stat().st_size, every * 4096))
    while sizes:  # several shards a repair, each cut at another place
        chosen, sizes = sizes[: len(paths)], sizes[len(paths) :]
        for path, size in zip(paths, chosen, strict=False):
            os.truncate(path, min(size, path.stat().st_size - 1))
        assert mend(out, tiny).recomputed == tuple(range(len(chosen)))
        assert tree(out) == before


def test_derived_files_are_rebuilt_without_a_model(out, tmp_path):
    before = tree(out)
    (out / "MANIFEST").unlink()
    flip(out / "summary.h5")
    os.truncate(out / "index.h5", 100)
    done = mend(out, tmp_path / "there is no model here")
    assert done.recomputed == () and not done.left
    assert tree(out) == before


@pytest.mark.parametrize("how", ["flipped", "emptied", "deleted", "of another run"])
def test_a_damaged_spec_is_restored_from_its_copy(out, tmp_path, how):
    before = tree(out)
    path = out / "RUN.json"
    if how == "flipped":
        flip(path)
    elif how == "emptied":
        path.write_bytes(b"")
    elif how == "deleted":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes().replace(b'"seed":0', b'"seed":1'))
    mend(out, tmp_path / "no model needed")
    assert tree(out) == before


def test_a_damaged_spec_without_a_copy_is_refused_with_a_way_out(out, tiny, texts):
    from jaxlens.sweep import run

    before = tree(out)
    shutil.rmtree(out / "environment")
    flip(out / "RUN.json")
    with pytest.raises(errors.DataError, match="no copy") as caught:
        mend(out, tiny)
    assert "remove RUN.json" in caught.value.hint
    (out / "RUN.json").unlink()
    assert run.run(configure(tiny, texts, out)).computed == 0
    assert tree(out) == before


@pytest.mark.parametrize("name", ["tokens.bin", "index.h5", "TOKENS.json"])
def test_a_damaged_token_file_is_made_again_from_the_corpus(out, tiny, texts, name):
    before = tree(out)
    flip(out / "tokens" / name)
    done = mend(out, tiny, texts)
    assert done.recomputed == () and done.left == ()
    assert tree(out) == before


def test_another_corpus_is_refused_and_nothing_is_written(out, tiny, tmp_path):
    flip(out / "tokens" / "tokens.bin")
    flip(layout.shard_path(out, 0))
    before = tree(out)
    other = tmp_path / "other.txt"
    other.write_text("another text")
    with pytest.raises(errors.ConfigError, match="corpus"):
        mend(out, tiny, other)
    assert tree(out) == before


def test_another_model_is_refused_and_the_hint_says_which_the_run_had(out, tiny, monkeypatch):
    flip(layout.shard_path(out, 0))
    before = tree(out)
    monkeypatch.setattr(
        temperatures, "fit_temperatures", None
    )  # which would read the corpus with that model
    with pytest.raises(errors.ConfigError, match=r"model\.") as caught:
        repair.repair(out, config.load([], {}, {"devices": 1}))
    assert f"--model {tiny}" in caught.value.hint
    assert tree(out) == before


def remembered(hint):
    """The command that a hint names."""
    return shlex.split(hint[hint.index("jaxlens repair ") :])[1:]


def test_the_command_that_is_remembered_is_whole_and_works(tiny, texts, tmp_path, capsys):
    """With its limit and its fields: without them it would be refused, and named again."""
    renamed = tmp_path / "some texts.jsonl"
    renamed.write_text(texts.read_text().replace('"text":', '"body":'))
    out = tmp_path / "run"
    how = {"corpus.limit": 700, "corpus.text_field": "body"}
    run.run(configure(tiny, renamed, out, **how))
    before = tree(out)
    flip(out / "tokens" / "tokens.bin")
    said = refused(capsys, 2, "repair", out, "--model", tiny, "--corpus", texts)
    command = remembered(said)
    assert command[command.index("--limit") + 1] == "700"
    assert command[command.index("--corpus") + 1] == str(renamed)
    assert "corpus.text_field=body" in command
    assert run_cli(*command) == 0
    assert tree(out) == before
    # What the run was made from has changed: the same command again would not help.
    flip(out / "tokens" / "tokens.bin")
    renamed.write_text(renamed.read_text().replace("fox", "wolf"))
    said = refused(capsys, 2, *command)
    assert "has changed since" in said and "jaxlens repair" not in said


@pytest.mark.parametrize(
    "name",
    [
        "shards/part-00002.h5",
        pytest.param("shards/part-00002.json", marks=pytest.mark.long),
        pytest.param("MANIFEST", marks=pytest.mark.long),
        "tokens/tokens.bin",
    ],
)
def test_a_directory_in_the_place_of_a_file_is_the_users_to_remove(out, tiny, texts, capsys, name):
    before = tree(out)
    (out / name).unlink()
    (out / name / "thesis").mkdir(parents=True)
    flip(layout.shard_path(out, 1))
    assert {n: what for n, what in verify.verify(out).damaged}[name] == "is a directory: remove it"
    said = refused(capsys, 65, "repair", out, "--model", tiny, "--corpus", texts)
    assert f"{out / name} is a directory" in said and "hint: remove it" in said
    assert layout.shard_path(out, 1).exists() and (out / name / "thesis").is_dir()
    (out / name / "thesis").rmdir()
    (out / name).rmdir()
    assert run_cli("repair", out, "--model", tiny, "--corpus", texts) == 0
    assert tree(out) == before


def test_a_run_that_goes_on_names_a_directory_in_the_place_of_a_shard(out, tiny, texts, capsys):
    for name in ("MANIFEST", "summary.h5", "index.h5", "shards/part-00002.h5"):
        (out / name).unlink()
    layout.shard_path(out, 2).mkdir()
    assert "remove that directory" in refused(capsys, 74, *flags(tiny, texts, out))


@pytest.mark.parametrize("kind", ["h5", "json"])
def test_half_of_a_pair_is_named_as_such(out, tiny, kind):
    before = tree(out)
    lost = f"part-00003.{kind}"
    (out / "shards" / lost).unlink()
    assert (f"shards/{lost}", "is missing, the other half of its pair exists") in verify.verify(
        out
    ).damaged
    with pytest.raises(errors.MissingError, match=f"half there: without {lost}"):
        jaxlens.open_run(out)
    assert mend(out, tiny).recomputed == (3,)
    assert tree(out) == before


@pytest.mark.parametrize("flips", [100, pytest.param(1000, marks=pytest.mark.long)])
def test_any_flip_in_a_note_is_found_and_said_to_decide_nothing(out, tiny, capsys, flips):
    (note,) = (out / "environment").glob("*.json")
    whole = note.read_bytes()
    assert worker_notes.read(out) != []
    chosen = random.Random(0)
    for _ in range(flips):
        raw = bytearray(whole)
        raw[chosen.randrange(len(raw))] ^= 1 << chosen.randrange(8)
        note.write_bytes(raw)
        assert worker_notes.read(out) == []
    ((name, what),) = verify.verify(out).damaged
    assert name == f"environment/{note.name}" and "no result depends on it" in what
    said = refused(capsys, 65, "verify", out)
    assert "repair" not in said and "remove" in said
    assert mend(out, tiny).left[0][0] == f"environment/{note.name}"
    note.unlink()
    assert verify.verify(out).ok


def test_shards_that_were_never_computed_are_left_to_run(out, tiny):
    for name in ("MANIFEST", "summary.h5", "index.h5"):
        (out / name).unlink()
    for number in (4, 6):
        layout.shard_path(out, number).unlink()
        layout.sidecar_path(out, number).unlink()
    flip(layout.shard_path(out, 2))
    done = mend(out, tiny)
    assert done.recomputed == (2,)
    assert done.left == () and not done.finished and verify.verify(out).missing == 2
    assert not layout.shard_path(out, 4).exists()


def test_files_that_belong_to_no_run_are_left_and_reported(out, tiny):
    (out / "shards" / "notes.txt").write_text("mine")
    (out / "figures").mkdir()
    flip(layout.shard_path(out, 1))
    done = mend(out, tiny)
    assert done.recomputed == (1,)
    assert [name for name, _ in done.left] == ["shards/notes.txt"]
    assert (out / "shards" / "notes.txt").read_text() == "mine"


def test_a_killed_repair_is_finished_by_the_next(out, tiny):
    before = tree(out)
    for number in range(6):
        flip(layout.shard_path(out, number))
    process = start("repair", out, "--model", tiny)
    for there in (False, True):  # removed to be computed again; then the first is back
        while process.poll() is None and layout.shard_path(out, 0).exists() != there:
            time.sleep(0.001)
    process.kill()
    process.wait()
    assert 0 < len(mend(out, tiny).recomputed) < 6
    assert tree(out) == before


def test_the_command_line_repairs_and_says_what_it_did(out, tiny, capsys):
    before = tree(out)
    assert run_cli("repair", out) == 0
    assert "nothing to repair" in capsys.readouterr().out
    flip(layout.shard_path(out, 3))
    said = refused(capsys, 65, "verify", out)
    assert f"jaxlens repair {out}" in said and "part-00003.h5" in said
    assert f"--model {tiny}" in refused(capsys, 2, "repair", out)
    assert run_cli("repair", out, "--model", tiny) == 0
    printed = capsys.readouterr().out
    assert "shards/part-00003.h5" in printed and "1 shard recomputed" in printed
    assert tree(out) == before
    (out / "shards" / "notes.txt").write_text("mine")
    assert "notes.txt" in refused(capsys, 65, "repair", out, "--model", tiny)


def test_a_run_of_another_version_is_refused(out, tiny):
    flip(layout.shard_path(out, 0))
    spec = json.loads((out / "RUN.json").read_bytes())
    spec["lens"]["shoe_size"] = 43
    (out / "RUN.json").write_bytes(config.canonical(spec))
    for part in (out / "shards").iterdir():
        part.unlink()
    (out / "MANIFEST").unlink()
    flip(out / "tokens" / "tokens.bin")
    with pytest.raises(errors.DataError, match="shoe_size"):
        mend(out, tiny)


def test_a_repair_needs_a_run(tmp_path, capsys):
    refused(capsys, 66, "repair", tmp_path / "nowhere")
    refused(capsys, 66, "repair", tmp_path)


def test_a_repair_keeps_to_the_devices_and_the_cache_that_it_was_given(swept):
    given = config.load([], {}, {"devices": 1, "cache": "none"})
    made = spec.restore_config(layout.read_spec(swept).document, given, swept)
    assert (made.devices, made.cache) == (1, "none")


WRONG = {
    "lens.top_k": ["1", -1, None, [], {}, 1.5, True, 10**400],
    "lens.tile": ["512", -1, [], 0],
    "lens.decoder": ["no such", 3, None, []],
    "lens.temperatures": ["x", 3, [[1.0]], ["a"], [None, 1.0, 1.0], {}],
    "plan.length": ["32", -5, [], None, 2**80],
    "plan.step_sequences": ["4", 0, {}],
    "store.rows": [3, "some", []],
    "store.quantities": ["norm", [3], {}, None],
    "model.dtype": [3, None, "float8"],
    "model.architecture": [3, None, []],
    "corpus.bos": [3, "both", None],
    "seed": ["0", None, [], 1.5],
    "null": [{"kind": []}, {"kind": "no"}, 3, {}],
}


@pytest.mark.parametrize("key", WRONG)
def test_a_spec_of_the_wrong_types_is_damage(out, tiny, texts, key):
    sound = json.loads((out / "RUN.json").read_bytes())
    shutil.rmtree(out / "environment")
    shutil.rmtree(out / "shards")
    (out / "MANIFEST").unlink()
    flip(out / "tokens" / "tokens.bin")
    for value in WRONG[key]:
        spec = json.loads(json.dumps(sound))
        section, _, name = key.rpartition(".")
        (spec[section] if section else spec)[name] = value
        (out / "RUN.json").write_bytes(config.canonical(spec))
        with pytest.raises(errors.JaxlensError) as caught:
            mend(out, tiny, texts)
        # These are compared with what the model at hand gives.
        if key in ("model.architecture", "lens.temperatures", "plan.length"):
            assert caught.value.exit_code in (2, 65)
        else:
            assert caught.value.exit_code == 65, caught.value.message


def test_a_spec_that_promises_a_hundred_million_shards_takes_no_memory(out, tmp_path):
    spec = json.loads((out / "RUN.json").read_bytes())
    spec["plan"]["n_shards"] = 10**8
    (out / "RUN.json").write_bytes(config.canonical(spec))
    for name in ("environment", "shards"):
        shutil.rmtree(out / name)
    (out / "MANIFEST").unlink()
    tracemalloc.start()
    done = mend(out, tmp_path / "no model needed")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert done.recomputed == () and done.left
    assert peak < 50 * 2**20
