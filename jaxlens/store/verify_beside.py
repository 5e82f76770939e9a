"""Checking what was computed beside the shards of a run: its probe and its ablation."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from jaxlens import config, errors
from jaxlens.files import contained
from jaxlens.store import (
    ablation_file,
    ablation_parts,
    findings,
    layout,
    mean_stream_file,
    probe_file,
)

_OF_ANOTHER_RUN = "is of another run"


def check(problems: findings.Findings, spec_hash: str) -> None:
    """Checks the files of a finished probe or ablation, and the spec of what has begun.

    Parts and checkpoints of what is under way are not checked: the command that wrote them does
    that, and computes again what is damaged.

    Args:
        problems: Of the run, to which damaged files are added.
        spec_hash: Of the run.
    """
    _check_probe(problems, spec_hash)
    _check_ablation(problems)


def remedy(name: str, run_dir: object) -> str | None:
    """What helps where a file is damaged; None for files of the run itself.

    Args:
        name: Of the file, relative to the run.
        run_dir: Run.
    """
    folder, _, file = name.partition("/")
    command = {probe_file.FOLDER: "probe", ablation_file.FOLDER: "ablate"}.get(folder)
    if command is None:
        return None
    is_spec = file in (probe_file.SPEC, ablation_file.SPEC)
    what = folder if is_spec else f"what is named in {folder}"
    return f"remove {what}, then run the same jaxlens {command} {run_dir} again"


def _check_probe(problems: findings.Findings, spec_hash: str) -> None:
    probe = None
    result = f"{probe_file.FOLDER}/{probe_file.RESULT}"
    with problems.checking(result):
        if _exists(problems, result):
            probe = probe_file.read(problems.run_dir)
            if config.spec_hash(config.canonical(probe.spec["run"])) != spec_hash:
                problems.add(result, _OF_ANOTHER_RUN)
    begun = None if probe is None else probe.spec
    _check_spec(problems, f"{probe_file.FOLDER}/{probe_file.SPEC}", begun, probe_file.parse_spec)
    if probe is None:
        return
    mean_stream = f"{probe_file.FOLDER}/{mean_stream_file.NAME}"
    with problems.checking(mean_stream):
        if _exists(problems, mean_stream):  # probes of earlier versions have none
            mean_stream_file.read(problems.run_dir, probe)
    of_probe = config.spec_hash(config.canonical(probe.spec))
    for layer in range(len(probe.layer_names)):
        file = probe_file.directions_name(layer)
        with problems.checking(f"{probe_file.FOLDER}/{probe_file.DIRECTIONS}/{file}"):
            probe_file.check_directions(problems.run_dir, layer, of_probe)


def _check_ablation(problems: findings.Findings) -> None:
    found = None
    result = f"{ablation_file.FOLDER}/{ablation_file.RESULT}"
    with problems.checking(result):
        if _exists(problems, result):
            path = contained.contained(problems.run_dir, ablation_file.FOLDER, ablation_file.RESULT)
            found = ablation_file.read(path.parent).spec
    name = f"{ablation_file.FOLDER}/{ablation_file.SPEC}"
    _check_spec(problems, name, found, ablation_parts.parse_spec)


def _check_spec(
    problems: findings.Findings,
    name: str,
    finished: Any,
    parse: Callable[[bytes, str], dict[str, Any]],
) -> None:
    """Checks the spec of what has begun, beside that in the result where there is one."""
    with problems.checking(name):
        if not _exists(problems, name):
            return
        path = contained.contained(problems.run_dir, *name.split("/"))
        raw = contained.read(path, layout.LARGE)
        document = parse(raw, str(path))
        if config.canonical(document) != raw:
            raise errors.DataError(f"{path} is damaged: not the JSON that was written")
        if finished is not None and config.canonical(finished) != raw:
            problems.add(name, "is not that of the result beside it")


def _exists(problems: findings.Findings, name: str) -> bool:
    return os.path.lexists(os.path.join(problems.run_dir, name))
