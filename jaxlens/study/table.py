"""Results as one tidy table: a line for each number, with its interval and what it is of."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxlens import errors
from jaxlens.export import text
from jaxlens.files import outputs
from jaxlens.study import estimators
from jaxlens.study.inputs import RunInfo
from jaxlens.study.stats import bootstrap, multiplicity

FORMATS = ("parquet", "csv", "json")


@dataclass(frozen=True)
class Result:
    """One line of the table.

    Attributes:
        question: ``Q0`` to ``Q3``.
        estimator: Name of what was estimated, see ``estimators``.
        meaning: What it is, in a sentence.
        run: Label of the run that it is of, see ``inputs.Inputs``.
        null: Label of what was subtracted from it; empty where nothing was.
        layer: Layer; None where it is of the whole depth.
        layer_name: Its name.
        depth: Layer over number of blocks, so that models of any size compare.
        stratum: What it is restricted to; ``all``.
        unit: Unit of the estimate.
        estimate: The number; NaN where there is none.
        low: Lower end of the 95 % interval.
        high: Upper end.
        se: Standard error.
        n: Observations.
        clusters: Groups of documents that hold any; 0 where observations count as independent.
        p: Two-sided p-value of no effect; NaN where that is no question.
        p_adjusted: By Holm among the primaries, by Benjamini and Hochberg elsewhere.
        primary: Whether it is one of the primaries.
        smallest: Smallest effect of interest; NaN where none is set.
        judgement: See ``multiplicity.judge``; empty where no smallest effect is set.
        note: Why there is no number or no interval, or what it rests on.
    """

    question: str
    estimator: str
    meaning: str
    run: str
    null: str
    layer: int | None
    layer_name: str
    depth: float
    stratum: str
    unit: str
    estimate: float
    low: float
    high: float
    se: float
    n: int
    clusters: int
    p: float = math.nan
    p_adjusted: float = math.nan
    primary: bool = False
    smallest: float = math.nan
    judgement: str = ""
    note: str = ""


def result(
    run: RunInfo,
    estimator: str,
    estimate: bootstrap.Estimate,
    *,
    layer: int | None = None,
    stratum: str = "all",
    null: str = "",
    smallest: float = math.nan,
    primary: bool = False,
    note: str = "",
    meaning: str = "",
) -> Result:
    """A line from an estimate.

    Args:
        run: Run that it is of.
        estimator: Name, one of ``estimators.ESTIMATORS``.
        estimate: The number.
        layer: See `Result`.
        stratum: See `Result`.
        null: See `Result`.
        smallest: Smallest effect of interest, where there is one.
        primary: Whether it is a primary, which is tested and judged.
        note: Beside the estimate's own.
        meaning: In the place of the estimator's, where it depends on the stratum.
    """
    defined = estimators.ESTIMATORS[estimator]
    tested = defined.tested or bool(null) or primary
    judged = primary or not math.isnan(smallest)
    return Result(
        question=defined.question,
        estimator=estimator,
        meaning=meaning or (defined.contrast if null else defined.meaning),
        run=run.label,
        null=null,
        layer=layer,
        layer_name="" if layer is None else run.layer_names[layer],
        depth=math.nan if layer is None else float(run.depths[layer]),
        stratum=stratum,
        unit=defined.unit,
        **numbers(estimate),
        p=bootstrap.p_value(estimate) if tested else math.nan,
        primary=primary,
        smallest=smallest,
        judgement=multiplicity.judge(estimate.value, estimate.low, estimate.high, smallest)
        if judged
        else "",
        note="; ".join(filter(None, (estimate.note, note))),
    )


def numbers(estimate: bootstrap.Estimate) -> dict[str, Any]:
    """The columns of an estimate, without its note."""
    return {
        "estimate": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "se": estimate.se,
        "n": estimate.n,
        "clusters": estimate.clusters,
    }


def by_layer(
    run: RunInfo, estimator: str, estimates: Iterable[bootstrap.Estimate], **columns: Any
) -> list[Result]:
    """A line for each layer, from the input on; ``columns`` are further arguments of `result`."""
    return [
        result(run, estimator, estimate, layer=layer, **columns)
        for layer, estimate in enumerate(estimates)
    ]


def adjusted(results: Sequence[Result]) -> list[Result]:
    """The same lines with p-values adjusted: Holm for the primaries, BH for all others at once."""
    lines = list(results)
    for primary, adjust in ((True, multiplicity.holm), (False, multiplicity.benjamini_hochberg)):
        members = [i for i, line in enumerate(lines) if line.primary == primary]
        values = adjust(np.array([lines[i].p for i in members]))
        for i, value in zip(members, values, strict=True):
            lines[i] = dataclasses.replace(lines[i], p_adjusted=float(value))
    return lines


def write(
    results: Iterable[Any],
    folder: Path,
    about: dict[str, Any],
    kind: type = Result,
    stem: str = "results",
) -> list[Path]:
    """Writes ``results.parquet``, ``results.csv`` and ``results.json``.

    Args:
        results: Lines.
        folder: Where; created if absent.
        about: What the JSON says beside the lines, such as the verdicts.
        kind: The dataclass of the lines, whose fields are the columns.
        stem: Name of the files, and of the lines in the JSON.

    Raises:
        MissingError: pyarrow is not installed.
        ConfigError: A link, or anything else but a regular file, has one of the names.
        StorageError: The disk refuses.
    """
    lines = plain(results)
    document = {**about, stem: lines}
    named = {
        f"{stem}.parquet": _parquet(lines, kind),
        f"{stem}.csv": _csv(lines, kind),
        f"{stem}.json": (json.dumps(document, indent=1, allow_nan=False) + "\n").encode(),
    }
    return outputs.write_all(folder, named)


def plain(lines: Iterable[Any]) -> list[dict[str, Any]]:
    """Lines as values that JSON knows: numbers that do not exist are null."""
    return [
        {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in dataclasses.asdict(line).items()
        }
        for line in lines
    ]


def _csv(lines: Sequence[dict[str, Any]], kind: type) -> bytes:
    sink = io.StringIO()
    names = [field.name for field in dataclasses.fields(kind)]
    writer = csv.DictWriter(sink, names, lineterminator="\r\n")
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in line.items()} for line in lines)
    return sink.getvalue().encode()


def _cell(value: Any) -> Any:
    """A cell of CSV: numbers as they are, text as in exports, so that no spreadsheet runs it."""
    if isinstance(value, str):
        return text.escape(value.encode(), spreadsheet=True)
    return "" if value is None else value


def _parquet(lines: Sequence[dict[str, Any]], kind: type) -> bytes:
    pa = errors.require_package("pyarrow", "study", "tables of results")
    pq = errors.require_package("pyarrow.parquet", "study", "tables of results")
    kinds = {"int": pa.int64(), "int | None": pa.int64(), "float": pa.float64(), "bool": pa.bool_()}
    fields = [
        (field.name, kinds.get(str(field.type), pa.string())) for field in dataclasses.fields(kind)
    ]
    stored = pa.Table.from_pylist(list(lines), pa.schema(fields))
    sink = io.BytesIO()
    pq.write_table(stored, sink, compression="zstd")
    return sink.getvalue()
