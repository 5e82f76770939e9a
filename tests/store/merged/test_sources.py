"""Records of merged runs that were made to harm, or are damaged."""

import json
import os
import shutil

import pytest
from store.merged import parts
from sweeps import refused, run_cli

import jaxlens
from jaxlens import config, errors
from jaxlens.store import records, verify
from jaxlens.store.merged import sources


def rewrite(out, change):
    """Rewrites the record under a checksum that fits."""
    path = out / sources.SOURCES
    document = json.loads(path.read_bytes())
    document.pop("checksum")
    change(document)
    path.write_bytes(records.encode_note(document))


def set_of_first(**values):
    return lambda document: document["runs"][0].update(values)


HOSTILE = {
    "absolute path": (set_of_first(path="/etc"), "makes no sense"),
    "empty path": (set_of_first(path=""), "makes no sense"),
    "NUL in a path": (set_of_first(path="a\0b"), "makes no sense"),
    "long path": (set_of_first(path="a/" * 4000), "makes no sense"),
    "path of another kind": (set_of_first(path=["a"]), "makes no sense"),
    "no hash": (set_of_first(manifest_sha256="0" * 63), "makes no sense"),
    "negative": (set_of_first(n_tokens=-5), "makes no sense"),
    "true": (set_of_first(n_rows=True), "makes no sense"),
    "huge": (set_of_first(n_rows=2**62), "makes no sense"),
    "other sizes": (set_of_first(n_documents=1), "does not fit"),
    "fewer rows": (set_of_first(n_rows=3), "rows of a run make no sense"),
    "other run": (set_of_first(spec_hash="0" * 64), "does not fit"),
    "more fields": (set_of_first(more=1), "other fields"),
    "one run": (lambda d: d["runs"].pop(), "does not fit"),
    "no runs": (lambda d: d.update(runs=[]), "names no runs"),
    "runs of another kind": (lambda d: d.update(runs={"a": 1}), "names no runs"),
    "runs that are no objects": (lambda d: d.update(runs=[1, 2, 3]), "other fields"),
    "of another spec": (lambda d: d.update(spec_hash="0" * 64), "of other merged runs"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_forged_records_are_one_line(copied, name):
    change, told = HOSTILE[name]
    rewrite(copied / "all", change)
    with pytest.raises(errors.DataError, match=told) as error:
        jaxlens.open_run(copied / "all")
    assert error.value.hint
    assert any("SOURCES.json" in file for file, _ in verify.verify(copied / "all").damaged)


@pytest.mark.parametrize(
    "raw",
    [b"", b"{}", b"[]", b"[" * 10**5, b'{"checksum": 1e999}', b"\xff", b"0" * (5 << 20)],
    ids=["empty", "object", "list", "deep", "infinite", "not UTF-8", "large"],
)
def test_what_is_no_record_is_one_line(copied, raw):
    (copied / "all" / sources.SOURCES).write_bytes(raw)
    with pytest.raises(errors.DataError, match=r"SOURCES\.json"):
        jaxlens.open_run(copied / "all")


def test_every_flipped_bit_of_the_record_and_of_the_spec_is_seen(copied):
    for name in (sources.SOURCES, "RUN.json"):
        path = copied / "all" / name
        raw = path.read_bytes()
        for at in range(0, 8 * len(raw), 97):
            flipped = bytearray(raw)
            flipped[at // 8] ^= 1 << at % 8
            path.write_bytes(flipped)
            with pytest.raises(errors.DataError):
                jaxlens.open_run(copied / "all")
        path.write_bytes(raw)
    assert jaxlens.open_run(copied / "all")["rank_input"][:].any()


@pytest.mark.parametrize("kind", ["folder", "fifo", "link", "record"])
def test_a_path_that_leads_to_no_run_is_one_line_and_reads_nothing(copied, kind):
    trap = copied / "trap"
    trap.mkdir()
    if kind == "fifo":
        os.mkfifo(trap / "RUN.json")
    elif kind == "link":
        (trap / "RUN.json").symlink_to("/etc/hostname")
    elif kind == "record":  # merged runs in the place of one of theirs
        shutil.copytree(copied / "all", trap, dirs_exist_ok=True)
    rewrite(copied / "all", set_of_first(path="../trap"))
    with (
        jaxlens.open_run(copied / "all") as run,
        pytest.raises((errors.DataError, errors.MissingError), match="trap"),
    ):
        run["rank_input"][:5]
    assert not verify.verify(copied / "all").sound


def test_a_spec_of_merged_runs_without_their_record_is_not_taken_for_a_run(copied):
    (copied / "all" / sources.SOURCES).unlink()
    with pytest.raises(errors.DataError, match=r"SOURCES\.json is missing"):
        jaxlens.open_run(copied / "all")
    assert [name for name, _ in verify.verify(copied / "all").damaged] == [sources.SOURCES]


def test_a_spec_that_is_hostile_is_one_line(copied):
    path = copied / "all" / "RUN.json"
    spec = json.loads(path.read_bytes())
    for change in (
        {"merged": []},
        {"merged": {"runs": 5}},
        {"merged": {}},
        {"corpus": {}},
        {"plan": {"n_shards": 10**12}},
        {"store": {"tallies": "study-2"}},
        {"model": {}},
    ):
        path.write_bytes(config.canonical(spec | change))
        spec_hash = config.spec_hash(path.read_bytes())
        rewrite(copied / "all", lambda document, h=spec_hash: document.update(spec_hash=h))
        with pytest.raises(errors.JaxlensError) as error:
            _ = jaxlens.open_run(copied / "all").tally
        assert error.value.hint and error.value.exit_code in (65, 66), change
        assert not verify.verify(copied / "all").sound


def test_findings_name_the_run_and_say_what_helps(copied, capsys):
    name = parts.canonical(copied)[0]
    part = next((copied / name / "shards").glob("*.h5"))
    part.write_bytes(part.read_bytes()[:-1] + b"?")
    told = refused(capsys, 65, "verify", copied / "all")
    assert f"../{name}/shards/{part.name}" in told and "jaxlens repair of a run" in told
    assert run_cli("verify", copied / "all", "--fast") == 0
    shutil.rmtree(copied / name)
    assert f"../{name}" in refused(capsys, 65, "verify", copied / "all", "--fast")
