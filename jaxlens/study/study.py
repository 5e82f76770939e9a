"""The whole study of a run: all questions, its null runs beside it, the table and the verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxlens import designs, errors
from jaxlens.files import contained
from jaxlens.store import layout, probe_file, reader
from jaxlens.study import inputs, strata, table, verdicts
from jaxlens.study.questions import (
    ablation,
    ablation_verdict,
    context,
    copying,
    crossed,
    discarding,
    induction,
    lifetimes,
    probing,
    rarity,
    sources,
    uncertainty,
)

FOLDER = "study"
"""Where the table goes in a run's folder."""


@dataclass(frozen=True)
class Study:
    """Results of a study.

    Attributes:
        run: The run.
        nulls: Its null runs.
        results: All numbers, p-values adjusted.
        verdicts: A paragraph for each question.
        strata: Those of the results that are primaries within strata of documents.
    """

    run: inputs.RunInfo
    nulls: tuple[inputs.RunInfo, ...]
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
        first = inputs.run_info(run)
    inputs.require_trained(first)
    for folder in null_dirs:  # before any rows are folded, which may take minutes
        with reader.open_run(folder) as null:
            inputs.require_comparable(first, inputs.run_info(null))
    if first.corpus not in designs.BINNED:
        return _of_text(run_dir, null_dirs, by)
    if by is not None:
        raise errors.ConfigError(f"documents of {first.corpus} have no fields", "leave out --by")
    return _of_repeats(run_dir, null_dirs)


def primaries(run_dir: str | Path) -> tuple[table.Result, ...]:
    """The primaries of a run over text: those of its `study`, without all other lines.

    Args:
        run_dir: Finished run of a trained model, with ``--tallies study`` or full rows.

    Returns:
        Its lines by question, p-values adjusted.

    Raises:
        MissingError: The run is not there or not finished.
        ConfigError: It lacks what is needed.
        DataError: It is damaged.
    """
    run = inputs.load(run_dir)
    inputs.require_trained(run)
    lines = [*_probed(run, ()), *rarity.estimate(run), *context.estimate(run)]
    lines += ablation.estimate(run)
    lines += ablation.absent(run, lines)
    adjusted = table.adjusted([line for line in lines if line.primary])
    return tuple(sorted(adjusted, key=lambda line: line.question))


def _of_text(run_dir: str | Path, null_dirs: Sequence[str | Path], by: str | None = None) -> Study:
    if by is not None:
        strata.require([run_dir, *null_dirs], by)
    run = inputs.load(run_dir)
    nulls = [inputs.load(folder) for folder in null_dirs]
    lines = [line for one in (run, *nulls) for line in _of_one(one)]
    lines += discarding.contrasts(run, nulls)
    lines += rarity.contrasts(run, nulls)
    lines += crossed.contrasts(run, nulls)
    lines += _probed(run, nulls)
    lines += ablation.absent(run, lines)
    whole = len(lines)
    if by is not None:
        lines += strata.primaries(run_dir, null_dirs, by, lines)
    results = tuple(table.adjusted(lines))
    paragraphs = verdicts.verdicts(results[:whole], run, nulls)
    paragraphs = _with_ablation(paragraphs, results[:whole], run)
    return Study(run, tuple(nulls), results, paragraphs, results[whole:])


def _of_repeats(run_dir: str | Path, null_dirs: Sequence[str | Path]) -> Study:
    """Of a corpus of repeated tokens, which needs no tallies."""
    infos: list[inputs.RunInfo] = []
    lines: list[table.Result] = []
    for folder in (run_dir, *null_dirs):
        with reader.open_run(folder) as run:
            infos.append(inputs.run_info(run))
            lines += induction.estimate(infos[-1], induction.load(run))
            lines += ablation.estimate(infos[-1])
    results = tuple(table.adjusted(lines))
    trained, *nulls = infos
    ours = [line for line in results if line.run == trained.label]
    paragraphs = _with_ablation({"Q3": induction.verdict(ours)}, results, trained)
    return Study(trained, tuple(nulls), results, paragraphs)


def _with_ablation(
    paragraphs: Mapping[str, str], results: Sequence[table.Result], run: inputs.RunInfo
) -> dict[str, str]:
    """The paragraph of Q3, with what the run's ablation says where it has one."""
    of_run = [line for line in results if line.run == run.label]
    said = ablation_verdict.verdict(of_run)
    return {**paragraphs, "Q3": " ".join(filter(None, (paragraphs.get("Q3", ""), said)))}


def write(studied: Study, folder: Path | None = None) -> list[Path]:
    """Writes the table and the verdicts; see ``table.write``.

    Args:
        studied: The study.
        folder: Where; ``study`` in the run's folder by default.
    """
    if folder is None:
        # The path of a file in it is checked: the folder may be a link that leads out of the run.
        folder = contained.contained(studied.run.path, FOLDER, "results").parent
    return table.write(studied.results, Path(folder), _about(studied))


def document(studied: Study) -> dict[str, Any]:
    """Everything as plain values; what does not exist is null."""
    return _about(studied) | {"results": table.plain(studied.results)}


def _of_one(run: inputs.Inputs) -> list[table.Result]:
    return [
        *uncertainty.estimate(run),
        *discarding.estimate(run),
        *rarity.estimate(run),
        *crossed.estimate(run),
        *context.estimate(run),
        *lifetimes.estimate(run),
        *copying.estimate(run),
        *sources.estimate(run),
        *ablation.estimate(run),
    ]


def _probed(run: inputs.Inputs, nulls: Sequence[inputs.Inputs]) -> list[table.Result]:
    """Of the probes of those runs that have one."""
    ours, *theirs = [probe_file.read_of_run(one.path) for one in (run, *nulls)]
    pairs = list(zip(nulls, theirs, strict=True))
    lines = [
        line
        for one, probe in ((run, ours), *pairs)
        if probe is not None
        for line in probing.estimate(one, probe)
    ]
    lines += probing.contrasts(run, ours, pairs)
    return lines if ours is not None else [*lines, probing.absent(run)]


def _require_distinct(folders: Sequence[str | Path]) -> None:
    seen: dict[str, str | Path] = {}
    for folder in folders:
        digest = layout.read_spec(folder).hash
        if digest in seen:
            raise errors.ConfigError(
                f"{folder} is the same run as {seen[digest]}", "name each run once"
            )
        seen[digest] = folder


def _about(studied: Study) -> dict[str, Any]:
    """What the numbers are of: enough to find the runs again."""
    return {
        "run": identity(studied.run),
        "nulls": [identity(null) for null in studied.nulls],
        "verdicts": studied.verdicts,
    }


def identity(run: inputs.RunInfo) -> dict[str, Any]:
    """What a run is of, as plain values: enough to find it again."""
    lens, corpus = run.spec["lens"], run.spec["corpus"]
    counted = (
        {"positions_counted": int(run.group_rows.sum())} if isinstance(run, inputs.Inputs) else {}
    )
    return counted | {
        "label": run.label,
        "model_sha256": run.spec["model"]["sha256"],
        "corpus_sha256": corpus["sha256"],
        "tokens": corpus["n_tokens"],
        "documents": corpus["n_documents"],
        "decoder": lens["decoder"],
        "precision": lens["precision"],
        "temperatures": lens["temperatures"],
        "layers": list(run.layer_names),
    }
