"""The whole study of a run: all questions, its null runs beside it, the table and the verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxlens import designs, errors
from jaxlens.files import contained
from jaxlens.store import layout, reader
from jaxlens.study import inputs, strata, table, verdicts
from jaxlens.study.questions import (
    context,
    copying,
    discarding,
    induction,
    lifetimes,
    rarity,
    sources,
    uncertainty,
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
        strata: Those of the results that are primaries within strata of documents.
    """

    run: inputs.Made
    nulls: tuple[inputs.Made, ...]
    results: tuple[table.Result, ...]
    verdicts: dict[str, str]
    strata: tuple[table.Result, ...] = ()


def study(
    run_dir: str | Path, null_dirs: Sequence[str | Path] = (), by: str | None = None
) -> Study:
    """Answers the four questions.

    Args:
        run_dir: Finished run of a trained model, with ``--tallies study`` or full rows.
        null_dirs: Null runs of the same text: ``--null random-init``, of several seeds, and
            ``--null shuffled``.
        by: Field of the documents that the run keeps, by whose values the primaries are estimated
            too; the run and its nulls then need full rows.

    Raises:
        MissingError: A run is not there or not finished.
        ConfigError: A run lacks what is needed, or is not comparable.
        DataError: A run is damaged.
    """
    _require_distinct([run_dir, *null_dirs])
    with reader.open_run(run_dir) as run:
        first = inputs.made(run)
    inputs.require_trained(first)
    for folder in null_dirs:  # before any rows are folded, which may take minutes
        with reader.open_run(folder) as null:
            inputs.require_comparable(first, inputs.made(null))
    if first.corpus not in designs.BINNED:
        return _of_text(run_dir, null_dirs, by)
    if by is not None:
        raise errors.ConfigError(f"documents of {first.corpus} have no fields", "leave out --by")
    return _of_twins(run_dir, null_dirs)


def _of_text(run_dir: str | Path, null_dirs: Sequence[str | Path], by: str | None = None) -> Study:
    if by is not None:
        strata.require([run_dir, *null_dirs], by)
    run = inputs.load(run_dir)
    nulls = [inputs.load(folder) for folder in null_dirs]
    lines = [line for one in (run, *nulls) for line in _of_one(one)]
    lines += discarding.contrasts(run, nulls)
    lines += rarity.contrasts(run, nulls)
    whole = len(lines)
    if by is not None:
        lines += strata.primaries(run_dir, null_dirs, by, lines)
    found = tuple(table.adjusted(lines))
    said = verdicts.verdicts(found[:whole], run, nulls)
    return Study(run, tuple(nulls), found, said, found[whole:])


def _of_twins(run_dir: str | Path, null_dirs: Sequence[str | Path]) -> Study:
    made: list[inputs.Made] = []
    lines: list[table.Result] = []
    for folder in (run_dir, *null_dirs):
        with reader.open_run(folder) as run:
            made.append(inputs.made(run))
            lines += induction.answer(made[-1], induction.load(run))
    found = tuple(table.adjusted(lines))
    ours = [line for line in found if line.run == made[0].label]
    return Study(made[0], tuple(made[1:]), found, {"Q3": induction.verdict(ours)})


def write(found: Study, folder: Path | None = None) -> list[Path]:
    """Writes the table and the verdicts; see ``table.write``.

    Args:
        found: The study.
        folder: Where; ``study`` in the run's folder by default.
    """
    if folder is None:
        # Asked of a file in it: the folder itself could be a link that leads out of the run.
        folder = contained.contained(found.run.path, FOLDER, "results").parent
    return table.write(found.results, Path(folder), _about(found))


def _of_one(of: inputs.Inputs) -> list[table.Result]:
    return [
        *uncertainty.answer(of),
        *discarding.answer(of),
        *rarity.answer(of),
        *context.answer(of),
        *lifetimes.answer(of),
        *copying.answer(of),
        *sources.answer(of),
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


def _identity(of: inputs.Made) -> dict[str, Any]:
    lens, corpus = of.spec["lens"], of.spec["corpus"]
    counted = (
        {"positions_counted": int(of.group_rows.sum())} if isinstance(of, inputs.Inputs) else {}
    )
    return counted | {
        "label": of.label,
        "model_sha256": of.spec["model"]["sha256"],
        "corpus_sha256": corpus["sha256"],
        "tokens": corpus["n_tokens"],
        "documents": corpus["n_documents"],
        "decoder": lens["decoder"],
        "precision": lens["precision"],
        "temperatures": lens["temperatures"],
        "layers": list(of.layer_names),
    }
