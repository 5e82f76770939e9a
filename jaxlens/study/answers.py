"""The whole study of a run: all questions, its null runs beside it, the table and the verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxlens import errors
from jaxlens.store import access, layout
from jaxlens.study import (
    contextual,
    copying,
    discarding,
    inputs,
    lifetimes,
    preserving,
    resolving,
    table,
    verdicts,
)

FOLDER = "study"
"""Where the table goes in a run's folder."""


@dataclass(frozen=True)
class Study:
    """What a study found.

    Attributes:
        run: The run.
        nulls: Its null runs.
        results: All numbers, p-values adjusted.
        verdicts: A paragraph for each question.
    """

    run: inputs.Inputs
    nulls: tuple[inputs.Inputs, ...]
    results: tuple[table.Result, ...]
    verdicts: dict[str, str]


def study(run_dir: str | Path, null_dirs: Sequence[str | Path] = ()) -> Study:
    """Answers the four questions.

    Args:
        run_dir: Finished run of a trained model, with ``--tallies study`` or full rows.
        null_dirs: Null runs of the same text: ``--null random-init``, of several seeds, and
            ``--null shuffled``.

    Raises:
        MissingError: A run is not there or not finished.
        ConfigError: A run lacks what is needed, or is not comparable.
        DataError: A run is damaged.
    """
    _require_distinct([run_dir, *null_dirs])
    run = inputs.load(run_dir)
    nulls = []
    for folder in null_dirs:
        null = inputs.load(folder)
        inputs.require_comparable(run, null)
        nulls.append(null)
    lines = [line for one in (run, *nulls) for line in _of_one(one)]
    lines += discarding.contrasts(run, nulls)
    lines += preserving.contrasts(run, nulls)
    found = tuple(table.adjusted(lines))
    return Study(run, tuple(nulls), found, verdicts.verdicts(found, run, nulls))


def write(found: Study, folder: Path | None = None) -> list[Path]:
    """Writes the table and the verdicts; see ``table.write``.

    Args:
        found: The study.
        folder: Where; ``study`` in the run's folder by default.
    """
    target = folder if folder is not None else access.contained(found.run.path, FOLDER)
    return table.write(found.results, Path(target), _about(found))


def _of_one(of: inputs.Inputs) -> list[table.Result]:
    return [
        *resolving.answer(of),
        *discarding.answer(of),
        *preserving.answer(of),
        *contextual.answer(of),
        *lifetimes.answer(of),
        *copying.answer(of),
    ]


def _require_distinct(folders: Sequence[str | Path]) -> None:
    seen: dict[str, str | Path] = {}
    for folder in folders:
        digest = layout.read_spec(folder).hash
        if digest in seen:
            raise errors.ConfigError(
                f"{folder} is the same run as {seen[digest]}", "name each run once"
            )
        seen[digest] = folder


def _about(found: Study) -> dict[str, Any]:
    """What the numbers are of: enough to find the runs again."""
    return {
        "run": _identity(found.run),
        "nulls": [_identity(null) for null in found.nulls],
        "verdicts": found.verdicts,
    }


def _identity(of: inputs.Inputs) -> dict[str, Any]:
    lens, corpus = of.spec["lens"], of.spec["corpus"]
    return {
        "label": of.label,
        "model_sha256": of.spec["model"]["sha256"],
        "corpus_sha256": corpus["sha256"],
        "tokens": corpus["n_tokens"],
        "documents": corpus["n_documents"],
        "positions_counted": int(of.group_rows.sum()),
        "decoder": lens["decoder"],
        "precision": lens["precision"],
        "temperatures": lens["temperatures"],
        "layers": list(of.layer_names),
    }
