import shutil

import pytest
from store.merged import parts
from sweeps import once

import jaxlens


@pytest.fixture(scope="session")
def parted(tiny, texts, tmp_path_factory):
    """Runs over a corpus and its parts; who changes them copies them first."""
    return once(tmp_path_factory, "parted", lambda folder: parts.make(tiny, texts, folder))


@pytest.fixture(scope="session")
def merged(parted, tmp_path_factory):
    """Merged beside copies: three parts, ``all``, two with study tallies, and without rows."""

    def make(folder):
        folder.mkdir()
        for name in (*parts.NAMES, *(f"{k}-{n}" for k in ("study", "none") for n in ("a", "rest"))):
            shutil.copytree(parted / name, folder / name)
        jaxlens.merge_runs(folder / "all", [folder / name for name in parts.NAMES])
        for kind in ("study", "none"):
            runs = [folder / f"{kind}-{name}" for name in ("rest", "a")]
            jaxlens.merge_runs(folder / kind, runs)

    return once(tmp_path_factory, "merged", make)


@pytest.fixture
def copied(merged, tmp_path):
    """A copy of three runs and of what they were merged to."""
    for name in ("all", *parts.NAMES):
        shutil.copytree(merged / name, tmp_path / "copied" / name)
    return tmp_path / "copied"
