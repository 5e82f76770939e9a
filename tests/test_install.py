"""An installation is what the lock says, whatever an index holds today."""

import ast
import base64
import ensurepip
import hashlib
import importlib.metadata
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest
from packaging import requirements

from jaxlens.cli import main
from jaxlens.models.checkpoints import packages

ROOT = pathlib.Path(__file__).parents[1]
OLD_PIP = "23.2.1"
"""What Python 3.11.7 and 3.12.1 bring: it takes an extra for another requirement without a pin."""

# Extras need not be imported by us where one of ours needs them to do what we promise.
ENGINES = {"h5netcdf": "xarray opens the files with it"}
IMPORTERS = ("require_package", "arrow", "import_module")
# The import names that differ from those of the distribution.
IMPORTED_AS = {
    "pyyaml": "yaml",
    "orbax-checkpoint": "orbax",
    "huggingface-hub": "huggingface_hub",
}


def wheel(folder, name, version, *needs, extra=None):
    """Writes a wheel that holds one empty module and returns its line of a lock."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    metadata = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}"]
    metadata += [f"Requires-Dist: {need}" for need in needs]
    metadata += [f"Provides-Extra: {extra}"] * (extra is not None)
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": "",
        f"{info}/METADATA": "\n".join(metadata) + "\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    for file, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest())
        record += f"{file},sha256={digest.decode().rstrip('=')},{len(text)}\n"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
        archive.writestr(f"{info}/RECORD", f"{record}{info}/RECORD,,\n")
    return f"{name}=={version} --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


@pytest.fixture
def project(tmp_path):
    """Our Makefile, a lock of its own, and an index with newer releases of what is locked."""
    index = tmp_path / "index"
    index.mkdir()
    lock = wheel(index, "outer", "1.0", "inner[more]>=1.0")
    lock += wheel(index, "inner", "1.0", "deep>=1.0; extra == 'more'", extra="more")
    lock += wheel(index, "deep", "1.0")
    for name in ("outer", "inner", "deep"):
        wheel(index, name, "2.0", *(["deep>=2.0; extra == 'more'"] * (name == "inner")))
    folder = tmp_path / "project"
    folder.mkdir()
    shutil.copy(ROOT / "Makefile", folder)
    (folder / "requirements.lock").write_text(lock)
    return folder, index


@pytest.fixture(params=["bundled", OLD_PIP, "newest"])
def pip(request, tmp_path):
    """A wheel of pip, which Python imports as it is."""
    if request.param == "bundled":
        folder = pathlib.Path(ensurepip.__file__).parent / "_bundled"
    else:
        folder = tmp_path / "pip"
        wanted = "pip" if request.param == "newest" else f"pip=={request.param}"
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--timeout", "5", "--retries", "0", "--dest", str(folder), wanted]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no index to take {wanted} from")
    wheels = list(folder.glob("pip-*.whl"))
    if not wheels:
        pytest.skip("this Python brings no pip of its own")
    return wheels[0]


@pytest.mark.long
def test_newer_releases_of_what_is_locked_change_nothing(project, pip):
    folder, index = project
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "MAKE"))}
    environment |= {
        "PYTHONPATH": str(pip),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(index),
        "PIP_NO_CACHE_DIR": "1",
    }
    command = ["make", f"PYTHON={sys.executable}", ".venv/locked"]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr.lower()
    (packages,) = folder.glob(".venv/lib/python3*/site-packages")
    found = {(d.name, d.version) for d in importlib.metadata.distributions(path=[str(packages)])}
    found -= {(name, v) for name, v in found if name in ("pip", "setuptools")}
    assert found == {("outer", "1.0"), ("inner", "1.0"), ("deep", "1.0")}


def locked():
    """Name and version of every package that the lock holds for this interpreter."""
    lines = re.findall(r"^[a-z0-9].*?(?= \\)", (ROOT / "requirements.lock").read_text(), re.M)
    for requirement in map(requirements.Requirement, lines):
        if requirement.marker is None or requirement.marker.evaluate():
            (pin,) = requirement.specifier
            yield requirement.name, pin.version


def test_every_package_of_the_lock_is_installed_as_it_says():
    pins = dict(locked())
    assert len(pins) > 100
    assert {name: importlib.metadata.version(name) for name in pins} == pins


def test_no_requirement_of_what_is_installed_is_broken():
    done = subprocess.run(
        [sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_dependencies_and_extras_are_imported_somewhere():
    imported = set()
    for path in ROOT.glob("jaxlens/**/*.py"):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.partition(".")[0])
            elif isinstance(node, ast.Call) and _called(node) in (
                "require_package",
                "arrow",
                "import_module",
            ):
                imported |= {a.value.partition(".")[0] for a in node.args[:1] if _is_text(a)}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    listed = [*project["dependencies"], *(line for lines in extras.values() for line in lines)]
    names = {requirements.Requirement(line).name for line in listed} - {"jaxlens-logitlens"}
    unused = {name for name in names if IMPORTED_AS.get(name, name) not in imported}
    assert unused - set(ENGINES) == set()


def _called(node):
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def _is_text(node):
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def test_every_page_names_the_same_way_to_install():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = "|".join(extras["optional-dependencies"])
    pages = [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("jaxlens/**/*.py")]
    models = [package.install for package in packages.PACKAGES.values()] + ["{package.install}"]
    seen = 0
    for path in pages:
        for line in re.findall(r"pip install [^\n]*", path.read_text()):
            if any(command in line for command in models):
                continue
            seen += 1
            assert re.match(rf"pip install '\./?(jaxlens)?\[({names}|{{extra}})\]'", line), path
    assert seen >= 6


WITHOUT = {
    "scipy": (["study", "x"], ["report", "x"], ["compare", "x", "y"]),
    "jinja2": (["show", "x", "--html", "x.html"],),
    "matplotlib": (["show", "x", "--png", "x.png"], ["prompts", "x.csv", "--figure", "x.png"]),
    "pyarrow": (["prompts", "x.csv", "--out", "x.parquet"],),
}


@pytest.mark.parametrize(
    ("package", "words"), [(name, words) for name, several in WITHOUT.items() for words in several]
)
def test_commands_without_an_optional_package_name_the_extra(package, words, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SystemExit) as ended:
        main.main(words)
    said = capsys.readouterr().err
    assert ended.value.code == 66, said
    assert f"the package {package}, which is not installed" in said
    assert "pip install '.[" in said
