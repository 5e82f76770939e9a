"""Commands of the study: study, compare, report; heavy imports inside each."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from jaxlens import errors
from jaxlens.cli import comparison_output, options, sources, study_output, terminal
from jaxlens.files import outputs


def study(
    run_dir: Path | None = None,
    /,
    *,
    null: Annotated[tuple[Path, ...], Parameter(consume_multiple=1)] = (),
    by: str | None = None,
    over: Annotated[tuple[str, ...], Parameter(consume_multiple=1)] = (),
    labels: Annotated[tuple[str, ...], Parameter(consume_multiple=1)] = (),
    out: Path | None = None,
    json: bool = False,
    output: options.Shown = options.Output(),
) -> None:
    """Answer the questions of the study: a table of estimates with intervals, and verdicts.

    Args:
        run_dir: Run with --rows full (the default) or --tallies study.
        null: Null runs of the same text: jaxlens run --null random-init --seed S, of several
            seeds, and --null shuffled. Takes all words after it.
        by: Field of the documents, kept with corpus.keep, within whose values the primaries are
            estimated too.
        over: Instead of RUN_DIR, runs of several checkpoints of one model, RUN or LABEL=RUN: each
            primary over training steps. Takes all words after it.
        labels: Training steps or names of the runs of --over, in their order; by default what
            the run records in the hub revision or the path of its model, or in its own name.
        out: Folder for results.parquet, .csv and .json; study in the run directory by default, for
            a run in an object store NAME-study in the current directory. Of --over for
            checkpoints.parquet, .csv, .json and .html; study-over by default.
        json: Print all numbers as JSON instead.
        output: What is printed.
    """
    options.begin(output)
    errors.require_package("scipy", "study", "studies")
    if over or labels:
        _require_series(run_dir, null, by, over)
        _over(over, labels, out or Path("study-over"), json)
        return
    if run_dir is None:
        hint = "jaxlens study RUN_DIR, or jaxlens study --over RUN RUN for several checkpoints"
        raise options.NoRunError("no run directory", hint)
    from jaxlens.study import study

    with sources.readable(run_dir, *null) as (run, *nulls):
        result = study.study(run, nulls, by)
        written = study.write(result, out or sources.beside(run_dir, "-study"))
    if json:
        terminal.print_json(study.document(result))
    else:
        study_output.show_study(result, written)


def _require_series(
    run_dir: Path | None, null: Sequence[Path], by: str | None, over: Sequence[str]
) -> None:
    """Refuses options that do not belong to a series of checkpoints."""
    if not over:
        raise errors.ConfigError("--labels without --over", "write --over RUN RUN before it")
    if run_dir is not None:
        raise errors.ConfigError(
            f"{run_dir} stands before --over, which takes all runs",
            shlex.join(["jaxlens", "study", "--over", str(run_dir), *over]),
        )
    for option, value in (("--null", null), ("--by", by)):
        if value:
            raise errors.ConfigError(
                f"{option} with --over", "leave it out; jaxlens study RUN takes it, for one run"
            )


def _over(words: Sequence[str], labels: Sequence[str], out: Path, json: bool) -> None:
    """The primaries over the checkpoints of a training run."""
    from jaxlens.study.checkpoints import study_checkpoints
    from jaxlens.study.report import checkpoints as page
    from jaxlens.view.figures import files

    files.require_library()
    outputs.require_own([out / page.NAME])
    named = [sources.labelled(word) for word in words]
    given = [label for label, _ in named]
    if labels and any(given):
        raise errors.ConfigError("labels in --labels and as LABEL=RUN", "write them in one place")
    with sources.readable(*(run for _, run in named)) as runs:
        result = study_checkpoints.study_checkpoints(runs, labels or given)
        written = [*study_checkpoints.write(result, out), page.write(result, out)]
        document = study_checkpoints.document(result) if json else {}
    if json:
        terminal.print_json(document)
    else:
        study_output.show_checkpoints(result, written)


def compare(
    run_dir: Path,
    other: Path,
    /,
    *,
    out: Path | None = None,
    figure: Path | None = None,
    json: bool = False,
    output: options.Shown = options.Output(),
) -> None:
    """Compare two runs over the same tokens: differences by layer, with intervals.

    The runs may differ in weights, decoder, precision or depth. Tokens are paired, and intervals
    are clustered by document; where only totals are stored, means are compared without intervals.

    Args:
        run_dir: Run; differences are this one minus the other.
        other: The other run.
        out: Folder for comparison.parquet, .csv and .json, and the figure comparison.svg.
        figure: File for the figure: .png, .svg or .pdf.
        json: Print all numbers as JSON instead.
        output: What is printed.
    """
    options.begin(output)
    errors.require_package("scipy", "study", "comparisons of runs")
    from jaxlens.study.comparison import compare
    from jaxlens.view.figures import files

    if figure is not None:
        files.require(figure)
    if out is not None:
        files.require_library()
        outputs.require_own([out / compare.PICTURE])
    with sources.readable(run_dir, other) as (one, two):
        result = compare.compare(one, two)
    written = [] if out is None else compare.write(result, out)
    for path in (figure, None if out is None else out / compare.PICTURE):
        if path is not None:
            from jaxlens.study.report import comparing
            from jaxlens.view.figures import svg

            svg.save(comparing.figure(result), path, own=path is not figure)
            written.append(path)
    if json:
        terminal.print_json(compare.document(result))
    else:
        comparison_output.show_runs(result, written)


def report(
    run_dir: Path,
    /,
    *,
    null: Annotated[tuple[Path, ...], Parameter(consume_multiple=1)] = (),
    variant: Annotated[tuple[Path, ...], Parameter(consume_multiple=1)] = (),
    out: Path | None = None,
    figures: Path | None = None,
    output: options.Shown = options.Output(),
) -> None:
    """Write one page with every figure of a run's study: intervals, nulls, verdicts, provenance.

    Args:
        run_dir: Run with --rows full (the default) or --tallies study; of any other run the page
            has the curves of its totals.
        null: Null runs of the same text, as for jaxlens study.
        variant: Runs that differ in lens.decoder alone, to be compared.
        out: File to write; report.html in the run directory by default, for a run in an object
            store NAME-report.html in the current directory.
        figures: Folder to which the figures are written too, as SVG.
        output: What is printed.
    """
    options.begin(output)
    errors.require_package("scipy", "study", "reports")
    from jaxlens.study.report import page

    target = out or sources.beside(run_dir, f"-{page.NAME}")
    with sources.readable(run_dir, *null, *variant) as (run, *others):
        nulls, variants = others[: len(null)], others[len(null) :]
        for path in page.write(run, nulls, variants, out=target, figures=figures):
            terminal.say(f"wrote {path}")
