"""What runs must share to stand on one axis, and what must differ between them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from jaxlens import designs, errors
from jaxlens.files import fetching
from jaxlens.store import probe_file, reader
from jaxlens.study import fold, inputs
from jaxlens.study.checkpoints import steps
from jaxlens.study.comparison import pairing
from jaxlens.study.questions import ablation, probing

_ALIKE = ("dtype", "decoder", "precision", "residuals", "context length", "overlap")
"""Settings that decide the numbers; how and on what they are computed may differ."""


def require(run_dirs: Sequence[str | Path], labels: steps.Labels) -> list[inputs.RunInfo]:
    """Refuses runs that are not one measurement of several checkpoints, before anything is folded.

    Args:
        run_dirs: Runs.
        labels: Of them.

    Returns:
        What kind of run each is.

    Raises:
        MissingError: A run is not there or not finished.
        ConfigError: There are fewer than two runs, two have one weight hash or one label, one is a
            null run or lacks what the study needs, or one differs in more than its weights.
        DataError: A run is damaged.
    """
    if len(run_dirs) < 2:
        raise errors.ConfigError(
            f"{errors.count(len(run_dirs), 'run')}: a series needs at least two",
            "name the runs of several checkpoints; jaxlens study RUN is for one",
        )
    with contextlib.ExitStack() as stack:
        runs = [stack.enter_context(reader.open_run(folder)) for folder in run_dirs]
        infos = [inputs.run_info(run) for run in runs]
        for info in infos:
            inputs.require_trained(info)
        _require_other_weights(runs, labels)
        first = runs[0]
        for other in runs[1:]:
            _require_same_architecture(first, other)
            pairing.require(first, other)
            _require_same_settings(first, other)
            pairing.groups(first, other)
        steps.require_distinct(run_dirs, labels)
        for run, info in zip(runs, infos, strict=True):
            _require_primaries(run, info)
    _require_same_measurements(infos)
    return infos


def _require_other_weights(runs: Sequence[reader.Run], labels: steps.Labels) -> None:
    """Refuses two runs of the same weights; branches of a hub may well serve the same file."""
    seen: dict[str, int] = {}
    for i, run in enumerate(runs):
        digest = run.spec["model"]["sha256"]
        if (before := seen.setdefault(digest, i)) == i:
            continue
        one, other = runs[before], run
        if one.spec_hash == other.spec_hash:
            raise errors.ConfigError(
                f"{other.path} is the same run as {one.path}", "name each run once"
            )
        raise errors.ConfigError(
            f"{other.path} (labelled {labels.texts[i]}) has the same weights as {one.path} "
            f"(labelled {labels.texts[before]}): sha256 {digest[:12]}",
            "several branches of a hub may serve the final weights: leave out the run whose "
            "checkpoint is not the one that it is named after",
        )


def _require_same_architecture(one: reader.Run, other: reader.Run) -> None:
    ours, theirs = (run.spec["model"]["architecture"] for run in (one, other))
    differing = [key for key in sorted(ours | theirs) if ours.get(key) != theirs.get(key)]
    if differing:
        key = differing[0]
        more = f" and {len(differing) - 1} more" if len(differing) > 1 else ""
        raise errors.ConfigError(
            f"{other.path} is of another architecture than {one.path}: {key} is "
            f"{theirs.get(key)!s:.40}, not {ours.get(key)!s:.40}{more}",
            "name the checkpoints of one model",
        )


def _require_same_settings(one: reader.Run, other: reader.Run) -> None:
    differing = pairing.differing(one.spec, other.spec)
    tables = [(run.spec.get("token_counts") or {}).get("sha256") for run in (one, other)]
    if tables[0] != tables[1]:
        differing["table of token counts"] = (tables[0], tables[1])
    for what in (*_ALIKE, "table of token counts"):
        if what in differing:
            ours, theirs = differing[what]
            raise errors.ConfigError(
                f"{other.path} has another {what} than {one.path}: {theirs!s:.40}, not "
                f"{ours!s:.40}",
                "sweep all checkpoints with the same settings",
            )


def _require_primaries(run: reader.Run, info: inputs.RunInfo) -> None:
    """Refuses a run that has no primaries at all."""
    if info.corpus in designs.BINNED:
        raise errors.ConfigError(
            f"{run.path} is of {info.corpus}, which has no primaries", "name runs over a text"
        )
    fold.require(run)


def _require_same_measurements(infos: Sequence[inputs.RunInfo]) -> None:
    """Refuses probes, and ablations, that were made with different options."""
    probes = [(info, probe_file.read_of_run(info.path)) for info in infos]
    probed = [(info, probe) for info, probe in probes if probe is not None]
    for info, probe in probed[1:]:
        probing.require_same_settings(*probed[0], info, probe)
    ablations = [(info, ablation.load(info)) for info in infos]
    ablated = [(info, found) for info, found in ablations if found is not None]
    for info, found in ablated[1:]:
        ablation.require_same_settings(*ablated[0], info, found)


def differing(infos: Sequence[inputs.RunInfo]) -> Iterator[str]:
    """What the runs differ in that changes their random draws, in words."""
    seeds = [info.spec["seed"] for info in infos]
    if len(set(seeds)) > 1:
        other = next(i for i, seed in enumerate(seeds) if seed != seeds[0])
        yield (
            f"seeds differ, and with them the tokens of other documents that are drawn: "
            f"{seeds[0]} of {fetching.name_of(infos[0].path)}, {seeds[other]} of "
            f"{fetching.name_of(infos[other].path)}"
        )
