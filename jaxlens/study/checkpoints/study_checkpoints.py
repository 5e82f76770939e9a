"""The primaries of the study over the checkpoints of a training run.

Each number is that of the study of its run alone, and so is its interval: a bootstrap, or what
stands for one, over the documents of that run. The runs read the same documents, so two
checkpoints are not independent, and no difference between them is tested here.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxlens import arguments, errors
from jaxlens.files import fetching
from jaxlens.study import inputs, readings, study, table
from jaxlens.study.checkpoints import comparable, steps

STEM = "checkpoints"
"""Name of the files of a series, and of its lines in JSON."""

MARGINAL = (
    "Each interval is that of its run alone. The runs read the same documents, so their estimates "
    "are not independent: whether two intervals overlap is no test of a difference between two "
    "checkpoints, and no such difference is tested here."
)
"""What the intervals of a series do not say."""

logger = logging.getLogger("jaxlens")


@dataclass(frozen=True, kw_only=True)
class Line(table.Result):
    """A primary of one checkpoint.

    Attributes:
        label: Of the checkpoint.
        step: Its training step; NaN where labels are no steps.
        path: Run directory.
    """

    label: str
    step: float
    path: str


@dataclass(frozen=True)
class Checkpoints:
    """The primaries of several checkpoints.

    Attributes:
        runs: The runs, in the order given.
        labels: Of the runs.
        lines: A line for each run and primary: runs in the order given, primaries by question.
        notes: What holds of all lines, in words.
    """

    runs: tuple[inputs.RunInfo, ...]
    labels: steps.Labels
    lines: tuple[Line, ...]
    notes: tuple[str, ...]

    @property
    def primaries(self) -> dict[str, tuple[Line, ...]]:
        """Name of each primary to its lines, in the order of the runs."""
        names = dict.fromkeys(line.estimator for line in self.lines)
        return {
            name: tuple(line for line in self.lines if line.estimator == name) for name in names
        }


def study_checkpoints(
    run_dirs: Sequence[str | Path], labels: Sequence[str | None] = ()
) -> Checkpoints:
    """Estimates the primaries of the study for each checkpoint of a training run.

    The runs are of one architecture, one corpus and the same settings of the lens; they may differ
    in weights and in how they were computed. Every number equals that of the study of its run.

    Args:
        run_dirs: Two or more finished runs with ``--tallies study`` or full rows, in the order in
            which they are to be shown.
        labels: A step or name for each; None, or no labels, for the step that a run records in its
            hub revision, the path of its model or its own name. Where a run records none, runs are
            numbered by their position, and a note says so.

    Raises:
        MissingError: A run is not there or not finished.
        ConfigError: Two runs have the same weights or the same label, a run is not comparable with
            the first, or it cannot be studied.
        DataError: A run is damaged.
    """
    if isinstance(run_dirs, (str, Path)):
        raise errors.ConfigError(f"run_dirs is one path, {run_dirs}", "give a list of runs")
    if not isinstance(run_dirs, Sequence) or not all(
        isinstance(one, (str, Path)) for one in run_dirs
    ):
        raise errors.ConfigError(
            f"run_dirs is {arguments.described(run_dirs)}", "give a list of folders of runs"
        )
    named = steps.labelled(run_dirs, labels)
    infos = comparable.require(run_dirs, named)
    lines: list[Line] = []
    for i, info in enumerate(infos):
        logger.info("checkpoint %s (%d of %d)", named.texts[i], i + 1, len(infos))
        step = math.nan if named.steps is None else named.steps[i]
        lines += _lines(info, named.texts[i], step)
    notes = (MARGINAL, named.note, *comparable.differing(infos))
    return Checkpoints(tuple(infos), named, tuple(lines), tuple(filter(None, notes)))


def _lines(info: inputs.RunInfo, label: str, step: float) -> Iterator[Line]:
    path = fetching.name_of(info.path)
    for line in study.primaries(info.path):
        yield Line(**vars(line), label=label, step=step, path=path)


def write(studied: Checkpoints, folder: Path) -> list[Path]:
    """Writes ``checkpoints.parquet``, ``checkpoints.csv`` and ``checkpoints.json``.

    Raises:
        MissingError: pyarrow is not installed.
        ConfigError: A link, or anything else but a regular file, has one of the names.
        StorageError: The disk refuses.
    """
    return table.write(studied.lines, folder, about(studied), kind=Line, stem=STEM)


def about(studied: Checkpoints) -> dict[str, Any]:
    """What the numbers are of, as plain values."""
    labels = studied.labels
    return {
        "axis": steps.axis(labels).name,
        "notes": list(studied.notes),
        "runs": [
            {
                **study.identity(run),
                "path": fetching.name_of(run.path),
                "label": labels.texts[i],
                "step": None if labels.steps is None else labels.steps[i],
                "label_from": labels.sources[i],
            }
            for i, run in enumerate(studied.runs)
        ],
    }


def document(studied: Checkpoints) -> dict[str, Any]:
    """Everything as plain values; what does not exist is null."""
    return about(studied) | {STEM: table.plain(studied.lines)}


def reasons(lines: Sequence[Line]) -> dict[str, list[str]]:
    """Why checkpoints have no interval: reason to their labels."""
    found: dict[str, list[str]] = {}
    for line in lines:
        if math.isnan(line.low):
            found.setdefault(readings.reason(line), []).append(line.label)
    return found
