"""One ablation: compute the parts that are missing, publish each, and merge them in the end."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxlens import config as run_config
from jaxlens import errors
from jaxlens.config import RunConfig
from jaxlens.corpus import token_file
from jaxlens.files import contained
from jaxlens.lens import numerics
from jaxlens.store import ablation_file, ablation_parts
from jaxlens.sweep import reopen
from jaxlens.sweep import run as sweep
from jaxlens.sweep.ablation import compute, design, directions, mean, passages
from jaxlens.sweep.ablation.design import Settings
from jaxlens.sweep.job import Job
from jaxlens.sweep.progress import Progress

logger = logging.getLogger("jaxlens")


@dataclass(frozen=True)
class Result:
    """What an ablation did.

    Attributes:
        folder: Where it is.
        ablation: The numbers.
        computed: Parts that this call computed.
        runs_per_second: Patched runs, of one sequence with one arm at one layer, a second; None
            where nothing was computed.
        tokens_per_second: Tokens of all runs a second, compilation included.
    """

    folder: Path
    ablation: ablation_file.Ablation
    computed: int
    runs_per_second: float | None = None
    tokens_per_second: float | None = None


@numerics.nan_is_missing()
def of_run(
    run_dir: str | Path,
    config: RunConfig,
    settings: Settings,
    progress: Progress | None = None,
    probe: directions.Directions | None = None,
) -> Result:
    """Ablates the model of a run over its corpus, into the folder ``ablation`` of the run.

    Args:
        run_dir: Run.
        config: Where the model is.
        settings: What to ablate.
        progress: Receives updates.
        probe: Directions of the own token, by default those of the run's probe, if it has one.

    Raises:
        JaxlensError: See ``errors``; parts that were published stay.
    """
    probe = probe or directions.Directions.of_run(run_dir)
    job = reopen.with_tokens(run_dir, config, "ablate", read_only=True)
    folder = contained.contained(run_dir, ablation_file.FOLDER, "any").parent
    return ablate(job, folder, settings, progress, probe)


def of_model(config: RunConfig, settings: Settings, progress: Progress | None = None) -> Result:
    """Ablates a model: begins a run in ``config.out``, without its shards, and ablates that.

    Args:
        config: From ``config.load``, with ``out``.
        settings: What to ablate.
        progress: Receives updates.

    Raises:
        JaxlensError: See `of_run`.
    """
    job, _ = sweep.begin(config)
    return of_run(job.out, config, settings, progress)


def ablate(
    job: Job,
    folder: Path,
    settings: Settings,
    progress: Progress | None = None,
    probe: directions.Directions | None = None,
) -> Result:
    """Computes an ablation; the same call resumes it.

    Args:
        job: Model, tokens and plan.
        folder: Where its files go.
        settings: What to ablate.
        progress: Receives updates.
        probe: Directions of a probe of the same model and corpus.

    Raises:
        ConfigError: The settings make no sense, or another ablation has begun in the folder.
        DataError: What has begun in the folder is damaged.
        StorageError: The disk refuses.
    """
    begun = ablation_parts.begun_settings(folder)
    if settings.arms is None and begun is not None:
        settings = dataclasses.replace(settings, arms=_begun_arms(begun, probe is not None))
    concrete = design.settings_of_spec(settings, job.model.config.layer_names, probe)
    spec_bytes = run_config.canonical(document(job, concrete))
    ablation_parts.begin(folder, spec_bytes)
    if ablation_file.is_finished(folder, run_config.spec_hash(spec_bytes)):
        ablation_parts.remove_parts(folder)
        return Result(folder, ablation_file.read(folder), 0)
    with job.ingested.open() as tokens:
        made = design.make(job, tokens, concrete, probe)
        return _finish(job, tokens, made, folder, spec_bytes, progress)


def _begun_arms(begun: Mapping[str, Any], probe: bool) -> tuple[str, ...] | None:
    """The arms of what has begun in a folder: it may have begun before there were as many."""
    arms = tuple(begun["arms"])
    return arms if arms and (probe or not ablation_file.OF_PROBE & set(arms)) else None


def document(job: Job, settings: dict[str, Any]) -> dict[str, Any]:
    """The spec of an ablation: what decides its numbers, and no path, device or batch.

    Args:
        job: Model, tokens and plan.
        settings: Of the ablation.
    """
    lens = job.spec["lens"]
    return {
        "format_version": ablation_file.VERSION,
        **{name: job.spec[name] for name in ("model", "tokenizer", "corpus", "null")},
        "plan": {name: job.spec["plan"][name] for name in ("length", "overlap")},
        "lens": {name: lens[name] for name in ("precision", "residuals")},
        "ablation": settings,
    }


def _finish(
    job: Job,
    tokens: token_file.TokenFile,
    made: design.Design,
    folder: Path,
    spec_bytes: bytes,
    progress: Progress | None,
) -> Result:
    """Computes what is missing, merges the parts, and removes them."""
    spec_hash = run_config.spec_hash(spec_bytes)
    parts = made.parts()
    values = {part.number: _stored(folder, part, made, spec_hash) for part in parts}
    missing = [part for part in parts if values[part.number] is None]
    total, left = (sum(map(made.n_tokens, which)) for which in (parts, missing))
    if progress is not None:
        progress.begin(total, total - left)
    if missing:
        logger.info("%s", _described(made, missing, left))
    engine = compute.engine(job)
    stream, positions = _mean(job, tokens, engine, folder, spec_hash, made.arms.seed)
    advance: Callable[[int], None] = (lambda count: None) if progress is None else progress.advance
    began = time.perf_counter()
    for part in missing:
        values[part.number] = value = compute.part(engine, part.sequences, made, stream, advance)
        name = ablation_parts.part_name(part.number)
        ablation_parts.write_arrays(folder, name, value, spec_hash)
    seconds = time.perf_counter() - began
    _merge(job, tokens, made, folder, spec_bytes, values, (stream, positions))
    rates = (sum(map(made.n_runs, missing)) / seconds, left / seconds) if missing else (None, None)
    return Result(folder, ablation_file.read(folder), len(missing), *rates)


def _described(made: design.Design, parts: Sequence[design.Part], n_tokens: int) -> str:
    """What is about to be computed, which may take hours."""
    sequences = errors.count(sum(len(part.sequences) for part in parts), "sequence")
    arms, layers = errors.count(len(made.names), "arm"), errors.count(len(made.layers), "layer")
    tokens = errors.count(n_tokens, "token")
    return f"ablating {sequences}: {arms} at {layers}, {tokens} through the model"


def _stored(
    folder: Path, part: design.Part, made: design.Design, spec_hash: str
) -> dict[str, np.ndarray] | None:
    name = ablation_parts.part_name(part.number)
    return ablation_parts.read_arrays(folder, name, spec_hash, made.shapes(part))


def _mean(
    job: Job,
    tokens: token_file.TokenFile,
    engine: compute.Engine,
    folder: Path,
    spec_hash: str,
    seed: int,
) -> tuple[Float[np.ndarray, "layer embed"], int]:
    """The mean stream, which is kept: all parts have the same one, to the last bit."""
    config = job.model.config
    shapes = {"mean": (config.n_layer + 1, config.n_embd), "positions": (1,)}
    stored = ablation_parts.read_arrays(folder, ablation_parts.MEAN, spec_hash, shapes)
    if stored is None:
        windows = passages.sampled(tokens, job.plan, seed, 2 * passages.MEAN_TOKENS)
        stream, count = mean.mean_stream(engine, windows, job.plan.length, passages.MEAN_TOKENS)
        stored = {"mean": stream, "positions": np.array([count])}
        ablation_parts.write_arrays(folder, ablation_parts.MEAN, stored, spec_hash)
    return stored["mean"], int(stored["positions"][0])


def _merge(
    job: Job,
    tokens: token_file.TokenFile,
    made: design.Design,
    folder: Path,
    spec_bytes: bytes,
    values: Mapping[int, dict[str, np.ndarray] | None],
    mean_stream: tuple[Float[np.ndarray, "layer embed"], int],
) -> None:
    found = {}
    for material, sequences in made.material.items():
        numbers = [part.number for part in made.parts() if part.material == material]
        own = [value for number in numbers if (value := values[number]) is not None]
        if own:
            index = tokens.index if material == "copies" else None
            found[material] = design.variables(sequences, own, index)
    stream, positions = mean_stream
    names = job.model.config.layer_names
    ablation_file.write(
        folder,
        spec_bytes,
        found,
        [names[layer] for layer in made.layers],
        stream[list(made.layers)],
        ablation_file.Notes(positions, design.left_out(made, found)),
    )
    ablation_parts.remove_parts(folder)
