"""What the commands of a run print: its summary, findings, repairs, tokens and cost."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from jaxlens import errors
from jaxlens.cli import streams, terminal
from jaxlens.store.objects import urls

if TYPE_CHECKING:
    from jaxlens.corpus import token_folder
    from jaxlens.export import order
    from jaxlens.store import verify
    from jaxlens.sweep import estimate, repair, run

logger = logging.getLogger("jaxlens")

REPAIR_OBJECTS = "remove the objects that jaxlens verify names, then run the same jaxlens run again"
"""What is done instead of a repair about a run in an object store."""

LAYER_COLUMNS = (
    ("median rank of input", "median_rank_input", "{:,.1f}"),
    ("median rank of final", "median_rank_final", "{:,.1f}"),
    ("mean KL(final‖layer)", "mean_kl_final", "{:.3f}"),
    ("mean KL(input‖layer)", "mean_kl_input", "{:.3f}"),
    ("mean entropy", "mean_entropy", "{:.3f}"),
)


def layer_table(summary: Mapping[str, Mapping[str, float]]) -> str:
    """Medians and means, one line a layer."""
    keys = {key for statistics in summary.values() for key in statistics}
    columns = [(title, key, form) for title, key, form in LAYER_COLUMNS if key in keys]
    lines = [["layer", *(title for title, _, _ in columns)]]
    for name, statistics in summary.items():
        lines.append([name, *(terminal.cell(statistics[key], form) for _, key, form in columns)])
    return terminal.aligned(lines)


def show_result(result: run.Result) -> None:
    """The closing summary: what was done, one line a layer, and how to open it."""
    skipped = sum(result.skipped.values())
    if skipped:
        why = ", ".join(f"{count:,} {reason}" for reason, count in sorted(result.skipped.items()))
        what = errors.count(skipped, "document or line", "documents or lines")
        where = f"{result.out}/tokens/TOKENS.json"
        logger.warning("skipped %s: %s; all of them: %s", what, why, where)
    tokens = errors.count(result.n_tokens, "token")
    if not result.finished:
        computed = errors.count(result.computed, "shard")
        terminal.say(f"{result.out}: computed {computed}; other workers' are missing yet")
        return
    if result.tokens_per_second is None:
        terminal.say(f"{result.out}: finished already, {tokens}")
    else:
        terminal.say(
            f"{result.out}: {tokens} in {errors.count(result.n_shards, 'shard')}, "
            f"{result.tokens_per_second:,.0f} tok/s, {result.fill:.0%} of the positions filled"
        )
    from jaxlens.store import reader
    from jaxlens.store import summary as summaries

    with reader.open_run(result.out) as opened:
        summary, has_rows = opened.summary(), bool(opened.names)
        clipped = summaries.clipped(opened.tally)
    streams.say(layer_table(summary))
    if any(key.startswith("median_") for statistics in summary.values() for key in statistics):
        terminal.say("median ranks are interpolated in bins of 10 %: they need not be whole")
    terminal.say(f"clipped in the sums: {clipped}")
    terminal.say(f"totals: {result.out}/summary.h5")
    if has_rows:
        terminal.say(f"rows of each token: {result.out}/shards/*.h5")
        terminal.say(f"open them: jaxlens.open_run({result.out!r})['rank_input'][:10]")
    if has_rows and not urls.is_url(result.out):
        terminal.say(f"       or: xarray.open_dataset({result.out + '/shards/part-00000.h5'!r})")


def show_verification(report: verify.Report, run_dir: object) -> None:
    """One line a finding.

    Raises:
        DataError: There are findings.
        InterruptedRun: There are none, but the run is not finished.
    """
    from jaxlens.store.merged import sources

    for name, what in report.damaged:
        terminal.say(f"{name}: {what}", always=True)
    present = f"{report.shards - report.missing:,} of {errors.count(report.shards, 'shard')}"
    if not report.sound:
        of_run = f"jaxlens repair {run_dir} recomputes what is damaged, and only that"
        if urls.is_url(str(run_dir)):
            of_run = REPAIR_OBJECTS
        elif sources.is_merged(str(run_dir)):
            of_run = (
                "jaxlens repair of a run that was merged recomputes what is damaged there; "
                f"jaxlens merge {run_dir} with the same runs makes the rest anew"
            )
        count = errors.count(len(report.damaged), "finding")
        going_on = "" if report.finished else f" in a run that is not finished ({present})"
        raise errors.DataError(
            f"{run_dir}: {count}{going_on}, the first in {report.damaged[0][0]}",
            _remedies(report.damaged, run_dir, of_run),
        )
    rows = errors.count(report.rows, "row")
    if not report.finished:
        raise errors.InterruptedRun(
            f"{run_dir}: not finished, {present} and {rows} are there; what is there is sound",
            "wait, or run the same jaxlens run command again: it goes on where it stopped",
        )
    terminal.say(f"{run_dir}: ok, {errors.count(report.shards, 'shard')}, {rows}")


def _remedies(damaged: Sequence[tuple[str, str]], run_dir: object, of_run: str) -> str:
    """What helps, in one hint.

    Args:
        damaged: Files, relative to the run, and what is wrong with each.
        run_dir: Run.
        of_run: What helps for the files of the run itself.
    """
    from jaxlens.store import layout, token_counts_file, type_means_file, verify_beside

    notes = "remove the notes that are named: no result depends on them"
    hints = []
    for name, _ in damaged:
        hint = verify_beside.remedy(name, run_dir) or of_run
        if name == layout.TYPE_MEANS:
            hint = f"{name}: {type_means_file.HINT}"
        elif name == layout.TOKEN_COUNTS:
            hint = f"{name}: {token_counts_file.HINT}"
        elif name.startswith(f"{layout.ENVIRONMENT}/"):
            hint = notes
        hints.append(hint)
    # A repair names the notes again, in its own words.
    chosen = [hint for hint in dict.fromkeys(hints) if hint != notes or set(hints) == {notes}]
    return "; ".join(chosen)


def show_repair(done: repair.Repaired, run_dir: object) -> None:
    """What was wrong, what was done about it, and what is left.

    Raises:
        DataError: Something is left.
    """
    for name, what in done.found:
        terminal.say(f"{name}: {what}")
    if done.other_bits:
        logger.warning("recomputed with other bits than before: shards %s", list(done.other_bits))
    if done.left:
        name, what = done.left[0]
        one = len(done.left) == 1
        raise errors.DataError(
            f"{run_dir}: {errors.count(len(done.left), 'finding')} {'is' if one else 'are'} left, "
            f"the first: {name} {what}",
            _remedies(
                done.left,
                run_dir,
                "the same jaxlens run again computes shards that are missing; files that belong to "
                "no run are yours to remove; jaxlens verify names them",
            ),
        )
    recomputed = errors.count(len(done.recomputed), "shard")
    what = f"repaired, {recomputed} recomputed; ok" if done.found else "ok, nothing to repair"
    if not done.finished:
        what += "; the run is not finished: run the same jaxlens run command again"
    terminal.say(f"{run_dir}: {what}")


def show_exports(done: Sequence[order.Exported]) -> None:
    """One line a file."""
    for one in done:
        what = f"{errors.count(one.records, 'record')} of {errors.count(one.columns, 'column')}"
        terminal.say(f"{one.path}: {what}, {_bytes(one.size)}")


def show_tokens(ingested: token_folder.Ingested) -> None:
    """What a token file holds."""
    verb = "made" if ingested.fresh else "found"
    tokens = errors.count(ingested.index.n_tokens, "token")
    documents = errors.count(ingested.index.n_documents, "document")
    terminal.say(f"{verb} {urls.shown(ingested.directory)}: {tokens}, {documents}")
    for reason, count in sorted(ingested.skipped.items()):
        streams.say(f"skipped {count:,}: {reason}")


def show_estimate(cost: estimate.Estimate) -> None:
    """What a run would cost."""
    lines = {
        "run directory": cost.out or "in runs, named after the temperatures that are fitted",
        "tokens (rows)": f"{cost.tokens:,} in {errors.count(cost.documents, 'document')}",
        "skipped": errors.count(cost.skipped, "document or line", "documents or lines"),
        "shards": f"{cost.shards:,}",
        "steps": f"{cost.steps:,}, {cost.fill:.0%} of the positions filled",
        "on disk": f"{_bytes(cost.disk_bytes)} at most "
        f"({errors.count(cost.row_bytes, 'byte')} a row)",
        "tallies": f"{_bytes(cost.tally_bytes)} in memory for each device",
        "means of types": f"{_bytes(cost.type_means_bytes)} on disk and for each device"
        if cost.type_means_bytes
        else "",
        "mesh": f"{cost.model_devices} devices share one copy of the model"
        if cost.model_devices > 1
        else "",
        "device memory": _bytes(cost.device_bytes),
        "temperatures": f"fitted first, to {errors.count(cost.fitted_tokens, 'token')} of "
        f"{errors.count(cost.fitted_documents, 'document')}, which the time below leaves out"
        if cost.fitted_tokens
        else "",
        "expected time": f"{cost.compile_seconds:.0f} s to compile, then "
        f"{cost.seconds:,.0f} s ({cost.tokens / cost.seconds:,.0f} tok/s)",
    }
    width = max(len(key) for key in lines)
    for key, value in lines.items():
        if value:
            terminal.say(f"{key:<{width}}  {value}", always=True)


def _bytes(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.3g} TiB"
