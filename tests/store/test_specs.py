"""A spec with a field of another kind is damage, whoever reads it, and no failure of ours."""

import dataclasses
import json
import shutil

import pytest
from sweeps import run_cli

from jaxlens import config, errors
from jaxlens.store import layout, specs

WRONG = (5, [], None, "x", {})


def leaves(document, path=()):
    """Paths to all fields, sections among them."""
    if path:
        yield path
    if isinstance(document, (dict, list)):
        pairs = document.items() if isinstance(document, dict) else enumerate(document)
        for key, value in pairs:
            yield from leaves(value, (*path, key))


def altered(document, path, value):
    made = json.loads(json.dumps(document))
    at = made
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return made


@pytest.fixture(scope="module")
def spec(swept):
    return json.loads((swept / "RUN.json").read_bytes())


@pytest.fixture
def forged(swept, tmp_path, monkeypatch):
    """A copy of a run whose spec can be replaced without a change of its hash."""
    target = tmp_path / "run"
    shutil.copytree(swept, target)
    sound, read = layout.read_spec(swept).hash, layout.read_spec
    monkeypatch.setattr(
        layout, "read_spec", lambda *given: dataclasses.replace(read(*given), hash=sound)
    )
    return target


def test_every_sound_spec_is_sound(spec, studied):
    assert specs.odd(spec) == ""
    for run in studied.iterdir():
        assert specs.odd(json.loads((run / "RUN.json").read_bytes())) == ""


def test_fields_of_another_kind_are_damage(spec, tmp_path):
    """Also the reading of what is only a little wrong must not end in a defect."""
    refused = 0
    for path in leaves(spec):
        for value in WRONG:
            made = altered(spec, path, value)
            (tmp_path / "RUN.json").write_bytes(config.canonical(made))
            try:
                layout.read_spec(tmp_path)
            except errors.DataError as error:
                assert "RUN.json" in error.message and error.hint
                refused += 1
    assert refused > 3 * len(list(leaves(spec)))


# What is of the right kind and not what it was must be met by whoever uses it.
ODD = {
    "corpus": {"sha256": "x"},
    "model": {"sha256": "x"},
    "lens.decoder": "x",
    "quantities": [],
    "model.sha256": "x",
    "model.architecture.vocab_size": 5,
    "model.architecture.n_layer": 0,
    "corpus.sha256": "",
    "corpus.n_tokens": 5,
    "corpus.kind": "x",
    "corpus.skipped": {"x": 5},
    "plan.length": 0,
    "store.tallies": "x",
    "store.rows": "x",
    "null.kind": "x",
    "lens.temperatures": [],
    "format_version": 99,
}


WRONG_KINDS = {"model.sha256": 5, "corpus.skipped": 5, "corpus": None, "lens": [], "seed": None}
# A spec takes these a third of a second; what they alone read of it is among the short.
SLOW = ("study", "repair", "report")
SHORT = ("model.sha256", "lens.decoder")


@pytest.mark.parametrize(
    ("command", "names"),
    [
        *((name, (*ODD, *WRONG_KINDS)) for name in ("verify", "export", "finalize")),
        *((name, (*SHORT, *WRONG_KINDS)) for name in ("study", "repair")),
        ("report", tuple(WRONG_KINDS)),
        *(pytest.param(name, tuple(ODD), marks=pytest.mark.long) for name in SLOW),
    ],
    ids=lambda value: value if isinstance(value, str) else str(len(value)),
)
def test_reading_commands_never_fail_by_a_defect_of_ours(
    command, names, forged, spec, tmp_path, capsys
):
    more = {
        "study": ["--out", tmp_path / "study"],
        "report": ["--out", tmp_path / "report.html"],
        "export": ["--to", "csv", "--tallies", "--out", tmp_path / "totals"],
    }.get(command, [])
    wrong = WRONG_KINDS if "seed" in names else {}
    for name, value in {name: (ODD | wrong)[name] for name in names}.items():
        made = altered(spec, name.split("."), value)
        (forged / "RUN.json").write_bytes(config.canonical(made))
        shutil.rmtree(tmp_path / "totals", ignore_errors=True)
        code = run_cli(command, str(forged), *map(str, more), "--quiet")
        said = capsys.readouterr().err
        assert code != 1, (name, said)
        assert "internal:" not in said
        if name in wrong and command == "repair":  # it writes the spec again, from a copy
            assert json.loads((forged / "RUN.json").read_bytes()) == spec
        elif name in wrong:
            assert code == 65, name
