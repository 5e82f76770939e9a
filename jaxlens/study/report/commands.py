"""The commands that make a run again, with its probe and its ablation, in the words of a shell.

Settings come from notes of the environment, which nobody vouches for; each word is quoted.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxlens import config, designs, errors
from jaxlens.store import ablation_file
from jaxlens.study import inputs
from jaxlens.study.report import measured
from jaxlens.view import printable

_FLAGS = {
    "model.path": "--model",
    "corpus.paths": "--corpus",
    "corpus.limit": "--limit",
    "out": "--out",
    "store.rows": "--rows",
    "store.tallies": "--tallies",
    "token_counts": "--token-counts",
    "lens.implementation": "--lens",
    "null": "--null",
    "seed": "--seed",
}
"""Keys that have an option of their own; others go through ``--set``."""

_WHERE = ("shard", "grace", "devices", "cache", "lens.tune")
"""Keys that decide where and how long a run computes, not what."""


def command(settings: Mapping[str, Any], changes: Mapping[str, Any] | None = None) -> str:
    """The command with these settings, in the words of a shell; empty where there are none.

    Args:
        settings: As notes of the environment hold them: sections with values.
        changes: Dotted keys that are to have other values.
    """
    flat = {key: value for key, value in _flat(settings) if value is not None}
    if not flat:
        return ""
    try:
        config_of_run = config.load(overrides=flat | dict(changes or {}))
    except errors.JaxlensError:  # nobody vouches for notes
        return ""
    usual = dict(_flat(dataclasses.asdict(config.RunConfig())))
    words = ["jaxlens", "run"]
    for key, value in _flat(dataclasses.asdict(config_of_run)):
        if key in _WHERE or value == usual[key]:
            continue
        if key in _FLAGS:
            many = value if isinstance(value, tuple) else (value,)
            words += [_FLAGS[key], *(str(one) for one in many)]
        else:
            written = value if isinstance(value, str) else json.dumps(value)
            words += ["--set", f"{key}={written}"]
    return printable.line(shlex.join(words))


def null_command(settings: Mapping[str, Any], kind: str, seed: int) -> str:
    """The command that makes a null of the run with these settings; see `command`.

    Args:
        settings: Of the run.
        kind: ``random-init`` or ``shuffled``.
        seed: Of the null.
    """
    out = settings.get("out")
    folder = f"{out if isinstance(out, str) else 'runs/null'}-{kind}-{seed}"
    # Temperatures are those of the run; a null fits its own.
    changes = {"null": kind, "seed": seed, "out": folder, "lens.temperatures": None}
    return command(settings, changes)


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def of_run(
    run_dir: str | Path, settings: Mapping[str, Any], found: measured.Measured
) -> tuple[str, ...]:
    """The commands of a run, in their order; that of the sweep is missing where no note holds it.

    Args:
        run_dir: Run directory.
        settings: Of the run, as a note has them; empty where there is none.
        found: Its probe and its ablation.
    """
    swept = command(settings)
    out = settings.get("out")
    folder = out if swept and isinstance(out, str) else str(run_dir)
    model = _model(settings)
    probed = _probe(folder, model, found)
    ablated = _ablate(folder, model, found)
    # Without the directions of a probe an ablation has other arms: it came first.
    later = (probed, ablated) if _is_probed(found.ablation) else (ablated, probed)
    return tuple(filter(None, (swept, *later)))


def _probe(folder: str, model: Sequence[str], found: measured.Measured) -> str:
    if found.probe is None:
        return ""
    settings = found.probe.spec["probe"]
    words = ["jaxlens", "probe", folder, *model]
    for name in ("tokens", "held_out_tokens", "types", "seed"):
        words += _option(name, settings.get(name))
    return printable.line(shlex.join(words))


def _ablate(folder: str, model: Sequence[str], found: measured.Measured) -> str:
    if found.ablation is None:
        return ""
    settings = found.ablation.spec["ablation"]
    probed = _is_probed(found.ablation)
    usual = [arm for arm in ablation_file.ARMS if probed or arm not in ablation_file.OF_PROBE]
    words = ["jaxlens", "ablate", folder, *model]
    if list(found.ablation.arms) != usual:
        words += ["--arms", *found.ablation.arms]
    words += ["--layers", *map(str, found.ablation.layers)]
    for name in ("blocks", "copies", "seed"):
        words += _option(name, settings.get(name))
    return printable.line(shlex.join(words))


def _is_probed(ablation: ablation_file.Ablation | None) -> bool:
    """Whether an ablation knew the directions of a probe."""
    return ablation is not None and ablation.spec["ablation"].get("probe_sha256") is not None


def _option(name: str, value: Any) -> list[str]:
    return [] if value is None else [f"--{name.replace('_', '-')}", str(value)]


def _model(settings: Mapping[str, Any]) -> list[str]:
    """Where the model is, which a run does not record: only its notes do."""
    section = settings.get("model")
    if not isinstance(section, Mapping):
        return []
    path, revision = (section.get(key) for key in ("path", "revision"))
    words = []
    if isinstance(path, str) and path != config.ModelConfig().path:
        words += ["--model", path]
    if isinstance(revision, str):
        words += ["--set", f"model.revision={revision}"]
    return words


def missing_nulls(
    run: inputs.RunInfo, nulls: Sequence[inputs.RunInfo], settings: Mapping[str, Any]
) -> list[tuple[str, str]]:
    """What cannot be said for want of a null run, and the command that makes one.

    Args:
        run: Trained run.
        nulls: Null runs that were given.
        settings: Of the run.
    """
    of_text = run.corpus not in designs.BINNED
    fresh = (
        "No run with fresh weights was given. What a figure shows may be due to the architecture "
        "alone"
    )
    kinds = {inputs.RANDOM_INIT: f"{fresh}."}
    if of_text:
        kinds[inputs.SHUFFLED] = (
            "No run over shuffled text was given. What a figure shows may be due to the tokens "
            "alone rather than to their context."
        )
    given = {null.kind for null in nulls}
    return [
        (words, null_command(settings, kind, 1))
        for kind, words in kinds.items()
        if kind not in given
    ]
