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
from jaxlens.study import fold, inputs
from jaxlens.study.questions import context, copying, discarding, rarity
from jaxlens.study.stats import bootstrap, multiplicity
from jaxlens.study.table import Result

MOST_STRATA = 24
"""Values of a field that strata are made of; each takes a pass over the rows."""

TOO_FEW = f"fewer than {bootstrap.FEWEST_CLUSTERS} documents"


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
    for value, chosen in masks(run_dir, name).items():
        stratum = f"{name} = {value}"
        if int(chosen.sum()) < bootstrap.FEWEST_CLUSTERS:
            found = [_without(line) for line in whole if line.primary]
        else:
            run = inputs.load(run_dir, chosen)
            nulls = [inputs.load(folder, chosen) for folder in null_dirs]
            found = [line for line in _answers(run, nulls) if line.primary]
        lines += [dataclasses.replace(one, stratum=stratum, primary=False) for one in found]
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
        kept = run.corpus.documents.kept
        if name not in kept.names:
            raise errors.ConfigError(
                f"{run_dir} does not keep the field {name!r} of its documents",
                f"it keeps {', '.join(kept.names)}"
                if kept.names
                else f"sweep with --set corpus.keep=[{name}]",
            )
    place = kept.names.index(name)
    codes, counts = np.unique(kept.codes[:, place], return_counts=True)
    if len(codes) > MOST_STRATA:
        raise errors.ConfigError(
            f"{name} has {len(codes):,} values", f"choose a field of at most {MOST_STRATA}"
        )
    known = (*kept.values[place], None)
    order = np.argsort(-counts, kind="stable")
    words = {int(code): document_fields.spelled(known[code]) for code in codes}
    if len(set(words.values())) < len(words):  # the text 1 beside the number 1
        words = {code: repr(known[code]) for code in words}
    return {words[int(codes[i])]: kept.codes[:, place] == codes[i] for i in order}


def _answers(run: inputs.Inputs, nulls: Sequence[inputs.Inputs]) -> list[Result]:
    """The questions that have a primary."""
    return [
        *discarding.contrasts(run, nulls),
        *rarity.answer(run),
        *context.answer(run),
        *copying.answer(run),
    ]


def _without(line: Result) -> Result:
    """A line of a primary without its number."""
    none = math.nan
    return dataclasses.replace(
        line,
        estimate=none,
        low=none,
        high=none,
        se=none,
        p=none,
        n=0,
        clusters=0,
        judgement=multiplicity.NOT_ESTIMABLE,
        note=TOO_FEW,
    )
