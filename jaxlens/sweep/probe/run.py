"""A probe of a run: survey, moments, fit and evaluation, in passes over layers, resumable."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from jaxlens import config, errors
from jaxlens.config import RunConfig
from jaxlens.files import publish
from jaxlens.lens import numerics
from jaxlens.store import layout, mean_stream_file, probe_file
from jaxlens.sweep import preemption, prepare, reopen
from jaxlens.sweep import run as sweep
from jaxlens.sweep.job import Job
from jaxlens.sweep.probe import checkpoint, data, evaluate, mean_stream, passes, survey, work
from jaxlens.sweep.probe import spec as probe_spec
from jaxlens.sweep.probe.spec import Settings
from jaxlens.sweep.progress import Progress

logger = logging.getLogger("jaxlens")


Opened = contextlib.AbstractContextManager[work.Work]


@dataclass(frozen=True)
class Result:
    """What a probe did.

    Attributes:
        out: Run directory.
        probe: The result.
        positions_per_second: Training and held-out positions a second, survey and fits with them;
            None where nothing was computed.
    """

    out: str
    probe: probe_file.Probe
    positions_per_second: float | None


def of_run(
    run_dir: str | Path,
    config: RunConfig,
    settings: Settings = probe_spec.DEFAULTS,
    progress: Progress | None = None,
    stop: preemption.StopRequest | None = None,
    seconds: float = checkpoint.SECONDS,
) -> Result:
    """Probes a run that has begun; the same call resumes.

    Of a finished probe it makes again what is missing or damaged beside ``probe.h5``.

    Args:
        run_dir: Run; its spec says what is computed, its token file what is read.
        config: Where the model is.
        settings: What the probe takes.
        progress: Receives updates.
        stop: Checked before every step.
        seconds: Between two checkpoints.

    Raises:
        ConfigError: The model is not that of the run, or another probe has begun.
        DataError: The run or its token file is damaged, or the text is too short.
        InterruptedRun: A stop was requested.
        JaxlensError: See ``errors``; the last checkpoint stays.
    """
    settings.require()
    spec = layout.read_spec(run_dir)
    document = probe_spec.build(spec.document, settings)
    probe_spec.require_same(run_dir, document)
    finished = _finished(run_dir, document) if probe_file.exists(run_dir) else None
    lacking = [] if finished is None else _lacking(run_dir, finished.probe)
    if finished is not None and not lacking and mean_stream_file.is_whole(run_dir):
        return finished
    job = reopen.with_tokens(run_dir, config, "probe")
    stop = stop or preemption.StopRequest()
    opened = _opened(job, settings, document, progress, stop, seconds)
    if finished is None:
        finished = _run(job, document, opened)
    elif lacking:
        _make_directions(opened, lacking)
    mean_stream.write(job, document)
    return finished


def of_model(
    config: RunConfig,
    settings: Settings = probe_spec.DEFAULTS,
    progress: Progress | None = None,
    stop: preemption.StopRequest | None = None,
    seconds: float = checkpoint.SECONDS,
) -> Result:
    """Probes a model: begins a run in ``config.out``, without its shards, and probes that.

    Args:
        config: From ``config.load``, with ``out``.
        settings: See `of_run`.
        progress: See `of_run`.
        stop: See `of_run`.
        seconds: See `of_run`.

    Raises:
        JaxlensError: See `of_run`.
    """
    settings.require()
    job, _ = sweep.begin(config)
    return of_run(job.out, config, settings, progress, stop, seconds)


def _finished(run_dir: str | Path, document: dict[str, object]) -> Result:
    probe = probe_file.read(run_dir)
    if config.canonical(probe.spec) != config.canonical(document):
        path = probe_file.path(run_dir, probe_file.RESULT)
        raise errors.ConfigError(f"{path} is of another probe", f"remove {path.parent}")
    return Result(str(run_dir), probe, None)


def _lacking(run_dir: str | Path, probe: probe_file.Probe) -> list[int]:
    """Layers of a finished probe whose directions are missing, damaged, or of something else."""
    spec_hash = config.spec_hash(config.canonical(probe.spec))
    lacking = []
    for layer in range(len(probe.layer_names)):
        try:
            probe_file.check_directions(run_dir, layer, spec_hash)
        except (errors.MissingError, errors.DataError) as error:
            logger.warning("%s: the directions are computed again", error.message)
            lacking.append(layer)
    return lacking


@numerics.nan_is_missing()
def _make_directions(opened: Opened, lacking: list[int]) -> None:
    with opened as shared:
        passes.make_directions(shared, lacking)


@numerics.nan_is_missing()
def _run(job: Job, document: dict[str, object], opened: Opened) -> Result:
    began = time.perf_counter()
    with opened as shared:
        evaluation, done = passes.run(shared)
        elapsed = time.perf_counter() - began
    probe = probe_file.Probe(
        evaluation=evaluate.arranged(evaluation),
        outside=shared.survey.outside,
        class_token=shared.survey.class_token,
        class_count=shared.survey.class_count,
        layer_names=job.model.config.layer_names,
        counts=shared.survey.counts,
        spec=document,
    )
    publish.publish(probe_file.path(job.out, probe_file.RESULT), probe_file.image(probe))
    passes.remove_checkpoints(job.out)
    return Result(str(job.out), probe, done / elapsed)


@contextlib.contextmanager
def _opened(
    job: Job,
    settings: Settings,
    document: dict[str, object],
    progress: Progress | None,
    stop: preemption.StopRequest,
    seconds: float,
) -> Generator[work.Work]:
    """What all passes share, of a probe that has begun, while its tokens are open."""
    probe_spec.begin(job.out, document)
    with job.ingested.open() as tokens:
        prepare.check_identity(job, tokens)
        corpus = data.corpus(job, tokens, settings.seed)
        surveyed = survey.survey(corpus, settings.tokens, settings.held_out_tokens, settings.types)
        layers, workers = work.divide(job, surveyed, settings.memory)
        yield work.Work(
            corpus=corpus,
            survey=surveyed,
            workers=workers,
            layers_per_pass=layers,
            spec_hash=config.spec_hash(config.canonical(document)),
            progress=progress,
            stop=stop,
            interval=checkpoint.Interval(seconds),
        )
