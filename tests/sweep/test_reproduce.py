"""The canary: an environment that adds to a run must first reproduce what is committed there."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from sweeps import configure, digest, flags, refused

from jaxlens import errors, schema
from jaxlens.store import commit, layout, records, shard_contents, shards
from jaxlens.store.hdf5 import images, reading
from jaxlens.sweep import environment, reproduce, run


@pytest.fixture
def out(tmp_path, swept):
    """A run that lacks its last shards."""
    made = shutil.copytree(swept, tmp_path / "run")
    for name in ("MANIFEST", "summary.h5", "index.h5"):
        (made / name).unlink()
    for shard in (5, 6):
        commit.discard(made, shard)
    return made


def notes(out):
    return {path: json.loads(path.read_bytes()) for path in (out / "environment").glob("*.json")}


def come_from_elsewhere(out):
    """Makes the run one that another machine has begun."""
    for path, note in notes(out).items():
        note["environment"]["packages"]["jaxlib"] = "0.0.1"
        path.with_name("elsewhere.json").write_bytes(records.encode_note(note))
        if path.name != "elsewhere.json":
            path.unlink()
    for path in (out / "environment").glob("*.passed"):
        path.unlink()


def verdicts(out):
    found = [note["measured"].get("canary") for note in notes(out).values()]
    return [verdict for verdict in found if verdict is not None]


def alter(out, shard, changes):
    """Commits a shard again with some of its arrays changed."""
    spec = layout.read_spec(out)
    entry = shards.check(out, shard, spec.hash)
    with shards.open_shard(out, entry) as found:
        rows = {n: found.datasets[n][()] for n in schema.QUANTITIES if n in found.datasets}
        totals = {n: item[()] for n, item in shard_contents.tallies(found, spec.document).items()}
        names = reading.labels(found.datasets["layer_name"])
        skipped = shard_contents.skipped(found)
    for name, change in changes.items():
        arrays = totals if name in totals else rows
        arrays[name] = change(arrays[name])
    commit.discard(out, shard)
    made = images.shard_image(entry.shard_range(), rows, totals, names, skipped=skipped)
    commit.publish_shard(out, entry.shard_range(), made, entry.rows)


def off_by(amount):
    return lambda values: (values + amount).astype(values.dtype)


def test_the_environment_that_began_a_run_resumes_it_without_a_canary(out, tiny, texts, swept):
    assert run.run(configure(tiny, texts, out)).computed == 2
    assert verdicts(out) == []
    assert digest(out) == digest(swept)


def test_another_environment_that_computes_equal_bits_goes_on_and_is_asked_once(
    out, tiny, texts, swept
):
    come_from_elsewhere(out)
    assert run.run(configure(tiny, texts, out)).computed == 2
    assert verdicts(out) == [{"shard": 0, "equal": True}]
    assert digest(out) == digest(swept)
    commit.discard(out, 2)
    alter(out, 0, {"kl_final": off_by(1.0)})  # would not pass again
    assert run.run(configure(tiny, texts, out)).computed == 1


def test_a_run_that_has_lost_its_notes_is_asked(out, tiny, texts):
    shutil.rmtree(out / "environment")
    run.run(configure(tiny, texts, out))
    assert verdicts(out) == [{"shard": 0, "equal": True}]


def test_differences_within_the_tolerance_are_recorded(out, tiny, texts):
    come_from_elsewhere(out)
    amount = reproduce.TOLERANCE["float32"] / 4
    alter(out, 0, {"kl_final": off_by(amount), "entropy": off_by(-amount / 2)})
    assert run.run(configure(tiny, texts, out)).computed == 2
    (verdict,) = verdicts(out)
    assert verdict["equal"] is False and verdict["share"] == 0
    assert amount / 10 < verdict["largest"] < 2 * amount


BEYOND = {
    "floats": ("kl_final", off_by(0.1)),
    "ranks": ("rank_final", lambda ranks: np.where(ranks > 1, ranks * 2, ranks)),
    "ids": ("top_id", lambda ids: np.roll(ids, 3, axis=0)),
    "tokens": ("token", lambda tokens: np.roll(tokens, 1)),
    "missing values": ("logp_next", lambda values: np.where(values == values[0], np.nan, values)),
    "missing ranks": ("rank_copy", lambda ranks: np.zeros_like(ranks)),
    "counts": ("count", off_by(1)),
    "averages": ("sum", lambda sums: sums + 2**16 * 10**4),
}


@pytest.mark.parametrize("case", BEYOND)
def test_differences_beyond_the_tolerance_are_refused_by_name(out, tiny, texts, case):
    come_from_elsewhere(out)
    name, change = BEYOND[case]
    alter(out, 0, {name: lambda values: change(values).astype(values.dtype)})
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(errors.NumericalError, match=f"{name} of shard 0") as caught:
        run.run(configure(tiny, texts, out))
    assert caught.value.exit_code == 69
    assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_a_damaged_witness_is_passed_over_for_a_sound_one(out, tiny, texts, swept):
    come_from_elsewhere(out)
    os.truncate(layout.shard_path(out, 0), 1000)
    assert run.run(configure(tiny, texts, out)).computed == 3
    assert [verdict["shard"] for verdict in verdicts(out)] == [1]
    assert digest(out) == digest(swept)


def test_without_rows_the_totals_are_compared(tiny, texts, tmp_path):
    how = configure(tiny, texts, tmp_path, **{"store.rows": "none"})
    run.run(how)
    come_from_elsewhere(tmp_path)
    commit.discard(tmp_path, 3)
    run.run(how)
    assert verdicts(tmp_path) == [{"shard": 0, "equal": True}]
    for path in (tmp_path / "environment").iterdir():
        path.unlink()
    alter(tmp_path, 0, {"sum": lambda sums: sums + 2**16 * 10**4})
    commit.discard(tmp_path, 3)
    with pytest.raises(errors.NumericalError, match="sum of shard 0"):
        run.run(how)


@pytest.mark.long
def test_other_instructions_of_the_processor_are_another_environment(out, tiny, texts, swept):
    """A real one: the compiler may use no more than SSE4.2, so sums are formed otherwise."""
    code = "from jaxlens.cli.main import main; main()"
    command = [str(word) for word in flags(tiny, texts, out)]
    variables = os.environ | {
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_max_isa=SSE4_2"
    }
    done = subprocess.run(
        [sys.executable, "-c", code, *command],
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "another environment: recomputing shard 0" in done.stderr
    (verdict,) = verdicts(out)
    assert verdict["equal"] or verdict["largest"] < reproduce.TOLERANCE["float32"]


def test_the_refusal_is_one_error_line_and_one_hint(out, tiny, texts, capsys):
    come_from_elsewhere(out)
    alter(out, 0, {"kl_final": off_by(0.1)})
    said = refused(capsys, 69, *flags(tiny, texts, out))
    assert "kl_final of shard 0" in said and "environment" in said


def test_what_decides_the_bits_is_noted(out):
    (note,) = notes(out).values()
    decisive = environment.decisive(note["environment"])
    for name in ("backend", "devices", "processor", "cores", "jax", "jaxlib", "XLA_FLAGS"):
        assert name in decisive
    assert decisive["backend"] == "cpu" and decisive["devices"]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="not Linux")
def test_cores_are_those_that_the_process_may_use():
    """JAX compiles for as many threads, and the last digits depend on it."""
    code = """
import os
from jaxlens.sweep import environment
before = environment.describe()
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
after = environment.describe()
print(before["cores"], after["cores"], *(environment.decisive(d)["cores"] for d in (before, after)))
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    here = len(os.sched_getaffinity(0))
    assert told.stdout.split() == [str(here), "1", str(here), "1"]


def test_an_environment_that_was_let_in_is_known_without_the_notes_of_others(out, tiny, texts):
    """A thousand workers would read a million notes."""
    run.run(configure(tiny, texts, out))
    (passed,) = (out / "environment").glob("*.passed")
    for path in notes(out):
        path.write_bytes(b"damaged")
    commit.discard(out, 3)
    run.run(configure(tiny, texts, out))
    assert not any("canary" in json.loads(path.read_bytes())["measured"] for path in sound(out))
    passed.write_bytes(b"damaged")
    for path in sound(out):
        path.write_bytes(b"damaged")
    commit.discard(out, 3)
    run.run(configure(tiny, texts, out))
    assert [
        json.loads(path.read_bytes())["measured"]["canary"]["equal"] for path in sound(out)
    ] == [True]


def sound(out):
    return [
        path for path in (out / "environment").glob("*.json") if path.read_bytes() != b"damaged"
    ]
