"""Names of folders may hold anything; what is printed of them cannot forge a terminal."""

import shutil
import unicodedata

import pytest
from sweeps import flags, run_cli

from jaxlens.store import layout
from jaxlens.view.figures import svg

NAME = "run\x1b[31m\x07\u202e\x9b1A\rerror"


@pytest.fixture(scope="module")
def out(swept, tmp_path_factory):
    return shutil.copytree(swept, tmp_path_factory.mktemp("names") / NAME)


@pytest.mark.parametrize(
    ("code", "command"),
    [
        (0, ("verify",)),
        (0, ("verify", "--untrusted")),
        (0, ("finalize",)),
        (0, ("repair",)),
        (0, ("export", "--to", "hdf5")),
        (0, ("report", "--out", f"page{NAME}.html")),
        (66, ("study", "--null", f"/none{NAME}")),
        (2, ("report", "--out", "/tmp")),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else None,
)
def test_commands_on_a_run(out, capfd, monkeypatch, tmp_path, code, command):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(svg, "svg", lambda plot, *ends: "<svg/>")  # nothing of it is printed
    assert run_cli(command[0], out, *command[1:]) == code
    assert_harmless(capfd.readouterr())


def test_a_sweep_and_its_findings(out, tiny, texts, capfd, tmp_path):
    assert run_cli(*flags(tiny, texts, out)) == 0
    assert_harmless(capfd.readouterr())
    assert run_cli(*flags(tiny, texts, tmp_path / "other" / NAME), "--dry-run") == 0
    assert_harmless(capfd.readouterr())
    damaged = shutil.copytree(out, tmp_path / NAME)
    layout.shard_path(damaged, 0).write_bytes(b"")
    (damaged / "shards" / NAME).touch()
    assert run_cli("verify", damaged) == 65
    assert_harmless(capfd.readouterr())
    assert run_cli("repair", damaged, "--model", tiny) == 65  # of the file that is no shard
    assert_harmless(capfd.readouterr())


def assert_harmless(printed):
    assert printed.out + printed.err
    for character in set(printed.out + printed.err) - {"\n"}:
        assert unicodedata.category(character) not in ("Cc", "Cf", "Cs"), repr(character)
