"""A run that has begun, made a job again: what it computes comes from its spec.

Only the places of model and corpus come from the configuration. No path that a run names is
followed.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxlens import config as run_config
from jaxlens import errors
from jaxlens.config import RunConfig
from jaxlens.corpus import token_folder
from jaxlens.files import scratch
from jaxlens.store import layout, run_directory, worker_notes
from jaxlens.store.merged import sources
from jaxlens.sweep import prepare
from jaxlens.sweep.job import Job
from jaxlens.sweep.spec import restore_config


def reopen(
    run_dir: str | Path,
    spec: layout.Spec,
    config: RunConfig,
    temporary: Path,
    ingested: token_folder.Ingested | None,
    command: str,
    read_only: bool = False,
) -> Job:
    """The job of a run.

    Args:
        run_dir: Run.
        spec: Its spec.
        config: Where model and corpus are.
        temporary: Folder for a token file that may not replace the run's.
        ingested: The token file, where it is whole; else it is made from the corpus.
        command: That of the user, for the hint.
        read_only: Whether to write nothing outside of the temporary folder.

    Raises:
        ConfigError: The model or the corpus is not that of the run.
    """
    configured = restore_config(spec.document, config, run_dir)
    try:
        job = prepare.prepare(configured, temporary, read_only, ingested)
        run_directory.require_same_run(run_dir, job.spec_bytes)
    except run_directory.AnotherRun as error:
        # A command that takes no corpus of a run is given the run's own tokens.
        sections = _SECTIONS if command in _WITH_CORPUS else _SECTIONS[:1]
        hint = _remembered(run_dir, config, command, sections)
        raise errors.ConfigError(error.message, hint) from error
    return job


def with_tokens(
    run_dir: str | Path, config: RunConfig, command: str, *, read_only: bool = False
) -> Job:
    """The job of a run whose token file is whole, for what is computed beside the sweep.

    Args:
        run_dir: Run.
        config: Where the model is.
        command: See `reopen`.
        read_only: See `reopen`.

    Raises:
        ConfigError: The model is not that of the run, or one that several devices share; or the
            run is one of merged runs.
        DataError: The run, or its token file, is missing or damaged.
    """
    sources.refuse(run_dir, f"jaxlens {command} one of the runs that were merged")
    spec = layout.read_spec(run_dir)
    configured = restore_config(spec.document, config, run_dir)
    if (count := configured.mesh.model or 1) > 1:
        raise errors.ConfigError(
            f"{run_dir}: {count} devices share the model of this run, and jaxlens {command} reads "
            "models that one device holds",
            "name a run of mesh.model=1",
        )
    ingested = token_folder.find_whole(Path(run_dir) / layout.TOKENS, spec.document)
    if ingested is None:
        raise errors.DataError(
            f"{run_dir}: its token file is missing or damaged", "jaxlens repair makes it again"
        )
    with scratch.folder() as temporary:
        return reopen(run_dir, spec, config, temporary, ingested, command, read_only)


def _remembered(
    run_dir: str | Path, config: RunConfig, command: str, sections: Sequence[str]
) -> str:
    """A hint that names the recorded model and corpus, which are never opened by themselves."""
    what = " and ".join(sections)
    for note in worker_notes.read(run_dir):
        settings = note.get("settings")
        if isinstance(settings, dict):
            current = _named(dataclasses.asdict(config), sections)
            recorded = _named(settings, sections)
            if recorded == current:
                return (
                    f"{what} {'are' if len(sections) > 1 else 'is'} named as for the run, so what "
                    "is there has changed since: restore it"
                )
            whole = shlex.join(["jaxlens", command, str(run_dir), *recorded])
            if len(whole) <= _MAX_COMMAND:
                return f"name {what} as for the run: {whole}"
            return f"{what} of the run: see settings in {run_dir}/{layout.ENVIRONMENT}"
    flags = " and ".join(f"--{section}" for section in sections)
    return f"name {what} of the run with {flags}"


def _named(settings: Mapping[str, Any], sections: Sequence[str]) -> list[str]:
    """What decides which model and which tokens are read, as words of a command.

    Type and BOS come from the spec; what is as by default is left out.
    """
    words: list[str] = []
    defaults: dict[str, Any] = dataclasses.asdict(run_config.RunConfig())
    for section in sections:
        values = settings.get(section)
        for key, usual in defaults[section].items():
            usual = list(usual) if isinstance(usual, tuple) else usual  # as JSON has it
            value = values.get(key, usual) if isinstance(values, dict) else usual
            value = list(value) if isinstance(value, tuple) else value
            if f"{section}.{key}" in _FLAGS:
                if value not in (None, []):
                    words += [_FLAGS[f"{section}.{key}"], *_words(value)]
            elif value != usual and key not in _OF_SPEC:
                text = value if isinstance(value, str) else json.dumps(value)
                words += ["--set", f"{section}.{key}={text}"]
    return words


_SECTIONS = ("model", "corpus")
_WITH_CORPUS = frozenset({"repair"})
_FLAGS = {"model.path": "--model", "corpus.paths": "--corpus", "corpus.limit": "--limit"}
_OF_SPEC = frozenset({"dtype", "bos", "strict"})
_MAX_COMMAND = 8_000
"""Characters of a command that is worth printing."""


def _words(value: Any) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]
