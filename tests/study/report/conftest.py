"""What tests of the report share: one study, its figures and its page, which is drawn once."""

import contextlib
import io
import shutil

import pytest
from study.report.pages import made
from sweeps import configure, run_cli

from jaxlens.study import study as answers
from jaxlens.study.report import copying, discarding, primaries, rarity, series, uncertainty
from jaxlens.sweep import run
from jaxlens.view.figures import svg

NULLS = ("random-1", "random-2", "shuffled")


@pytest.fixture(scope="session")
def study(studied):
    return answers.study(studied / "trained", [studied / name for name in NULLS])


@pytest.fixture(scope="session")
def source(study):
    return series.Source(study)


@pytest.fixture(scope="session")
def everything(source, study):
    rooms = (uncertainty, discarding, rarity, copying)
    return [*primaries.figures(study), *(plot for room in rooms for plot in room.figures(source))]


@pytest.fixture(scope="session")
def reported(studied, tmp_path_factory):
    """A copy of the run in which the command left its page, and what it printed."""
    copy = tmp_path_factory.mktemp("reported") / "run"
    shutil.copytree(studied / "trained", copy)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert run_cli("report", copy, "--null", *(studied / name for name in NULLS)) == 0
    return copy, printed.getvalue()


@pytest.fixture(scope="session")
def text(reported):
    return (reported[0] / "report.html").read_text()


@pytest.fixture
def undrawn(monkeypatch):
    """Every figure is the same empty picture: for what is said on a page, and not drawn."""
    monkeypatch.setattr(svg, "svg", lambda plot, *ends: "<svg/>")


@pytest.fixture(scope="session")
def bare(tiny, texts, tmp_path_factory):
    """A run that cannot be studied, whose page takes a second."""
    out = tmp_path_factory.mktemp("report") / "bare"
    run.run(configure(tiny, texts, out, **{"store.rows": "none"}))
    return out


@pytest.fixture(scope="session")
def plain(bare):
    """Its page."""
    return made(bare)
