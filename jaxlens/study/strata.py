"""The primaries within strata of documents, by a field that the run keeps.

The rows of a stratum's documents are folded by the rules of the whole, and estimated as the whole
is. Strata are secondary: their lines are no primaries, and their p-values are adjusted with those
of all other secondary lines.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from jaxlens import errors
from jaxlens.store import document_fields, reader
from jaxlens.study import fold, inputs, table
from jaxlens.study.questions import context, copying, discarding, rarity
from jaxlens.study.stats import bootstrap, multiplicity
from jaxlens.study.table import Result

MAX_STRATA = 24
"""Values of a field that strata are made of; each takes a pass over the rows."""

TOO_FEW = f"fewer than {bootstrap.MIN_CLUSTERS} documents"


def primaries(
    run_dir: str | Path,
    null_dirs: Sequence[str | Path],
    name: str,
    whole: Sequence[Result],
) -> list[Result]:
    """The primaries of each stratum; strata of too few documents have lines without a number.

    Args:
        run_dir: Run with full rows that keeps the field.
        null_dirs: Its nulls, with full rows too.
        name: Field.
        whole: Lines of the whole run, which say what the primaries are.

    Raises:
        ConfigError: The field is not kept or has too many values, or a run lacks rows.
    """
    lines: list[Result] = []
    for value, documents in masks(run_dir, name).items():
        stratum = f"{name} = {value}"
        if int(documents.sum()) < bootstrap.MIN_CLUSTERS:
            estimated = [_without(line) for line in whole if _is_reported(line)]
        else:
            run = inputs.load(run_dir, documents)
            nulls = [inputs.load(folder, documents) for folder in null_dirs]
            estimated = [line for line in _estimates(run, nulls) if _is_reported(line)]
        lines += [dataclasses.replace(one, stratum=stratum, primary=False) for one in estimated]
    return lines


def require(folders: Sequence[str | Path], name: str) -> None:
    """Refuses what strata cannot be made of, before any rows are folded.

    Args:
        folders: The run and its nulls.
        name: Field.

    Raises:
        ConfigError: The field is not kept or has too many values, or a run lacks rows.
    """
    masks(folders[0], name)
    for folder in folders:
        with reader.open_run(folder) as run:
            fold.require_rows(run)


def masks(run_dir: str | Path, name: str) -> dict[str, Bool[np.ndarray, " document"]]:
    """Documents of each value of a field, the most frequent value first; null is a value too.

    Raises:
        ConfigError: The run does not keep the field, or it has too many values.
    """
    with reader.open_run(run_dir) as run:
        fields = run.corpus.documents.kept
        if name not in fields.names:
            raise errors.ConfigError(
                f"{run_dir} does not keep the field {name!r} of its documents",
                f"it keeps {', '.join(fields.names)}"
                if fields.names
                else f"sweep with --set corpus.keep=[{name}]",
            )
    column = fields.names.index(name)
    of_document = fields.codes[:, column]
    codes, counts = np.unique(of_document, return_counts=True)
    if len(codes) > MAX_STRATA:
        raise errors.ConfigError(
            f"{name} has {len(codes):,} values", f"choose a field of at most {MAX_STRATA}"
        )
    values = (*fields.values[column], None)
    order = np.argsort(-counts, kind="stable")
    labels = {int(code): document_fields.as_text(values[code]) for code in codes}
    if len(set(labels.values())) < len(labels):  # the text 1 beside the number 1
        labels = {code: repr(values[code]) for code in labels}
    return {labels[int(codes[i])]: of_document == codes[i] for i in order}


REPORTED = (
    "jump_share_kl_final_matched",
    "excess_slope_same_type",
    "within_type_surprisal",
    "retrieval_depth_adjusted_10",
)
"""What strata have: the primaries that need no probe or ablation, and what is judged beside them.
Probes and ablations are of the whole run."""


def _is_reported(line: Result) -> bool:
    """Whether strata have a line of the whole: at mid depth, of its judged curves."""
    if line.estimator not in REPORTED or line.stratum != "all" or line.run != inputs.TRAINED:
        return False
    if line.estimator == REPORTED[0]:
        return line.null.startswith(inputs.RANDOM_INIT)
    return line.primary or line.layer is None


def _estimates(run: inputs.Inputs, nulls: Sequence[inputs.Inputs]) -> list[Result]:
    """The questions that have such lines."""
    return [
        *discarding.contrasts(run, nulls),
        *rarity.estimate(run),
        *context.estimate(run),
        *copying.estimate(run),
    ]


def _without(line: Result) -> Result:
    """A line without its number."""
    absent = bootstrap.missing(TOO_FEW)
    return dataclasses.replace(
        line,
        **table.numbers(absent),
        p=math.nan,
        judgement=multiplicity.NOT_ESTIMABLE,
        note=absent.note,
    )
