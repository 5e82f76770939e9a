"""What tests of the report share: one study, its figures and its page."""

import pytest
from report.pages import made
from sweeps import configure

from jaxlens import sweep
from jaxlens.report import copying, discarding, preserving, primaries, resolving, series
from jaxlens.study import answers

NULLS = ("random-1", "random-2", "shuffled")


@pytest.fixture(scope="session")
def study(studied):
    return answers.study(studied / "trained", [studied / name for name in NULLS])


@pytest.fixture(scope="session")
def source(study):
    return series.Source(study)


@pytest.fixture(scope="session")
def everything(source, study):
    rooms = (resolving, discarding, preserving, copying)
    return [*primaries.figures(study), *(plot for room in rooms for plot in room.figures(source))]


@pytest.fixture(scope="session")
def text(studied):
    folders = [studied / name for name in NULLS]
    return made(studied / "trained", folders)


@pytest.fixture(scope="session")
def bare(tiny, texts, tmp_path_factory):
    """A run that cannot be studied, whose page takes a second."""
    out = tmp_path_factory.mktemp("report") / "bare"
    sweep.run(configure(tiny, texts, out, **{"store.rows": "none"}))
    return out
