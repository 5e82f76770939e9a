"""From a configuration to a job: load, tokenise, resolve, fit, and fix the spec."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from jaxlens import config as run_config
from jaxlens import schema
from jaxlens.config import RunConfig
from jaxlens.corpus import plan, token_file, token_folder
from jaxlens.files import hash_memo, mounts
from jaxlens.lens import identity, numerics
from jaxlens.models import loading, tokenizer
from jaxlens.models.checkpoints.checkpoint import Checkpoint
from jaxlens.store import run_directory
from jaxlens.store.merged import sources
from jaxlens.sweep import (
    batch_size,
    cache,
    compilation_cache,
    devices,
    mesh_size,
    nulls,
    resolve,
    spec,
    step,
    temperatures,
    token_counts,
    tokens,
    type_means,
)
from jaxlens.sweep.job import Job


def prepare(
    config: RunConfig,
    temporary: Path,
    read_only: bool = False,
    ingested: token_folder.Ingested | None = None,
    fit: bool = True,
) -> Job:
    """Loads the model, tokenises the corpus if that is not done, and fixes the spec.

    Args:
        config: From ``config.load``.
        temporary: Folder for a token file that may not replace the run's.
        read_only: Whether to write nothing outside of it.
        ingested: The token file, where it is known.
        fit: Whether temperatures are fitted that neither the configuration nor a run that has
            begun gives. Without them the job costs the same, but its spec is not that of the run.

    Raises:
        JaxlensError: See ``errors``; nothing but the token file has been written then.
    """
    numerics.require_compilation()
    devices.offer_cores()
    numerics.require_precision(config.lens.precision)
    mounts.refuse_bucket(config.out or tokens.RUNS)
    if config.out is not None:
        sources.refuse(config.out, "use another --out")
        run_directory.refuse_other_files(config.out)
    cached = cache.folder(config.cache)
    hash_memo.enable(cached)
    programs = compilation_cache.enable(cached)
    checkpoint = nulls.checkpoint(config)
    architecture = checkpoint.architecture
    existing_spec = spec.read_existing(config.out)
    if config.out is not None and existing_spec is not None:
        of_model = spec.of_model(config, architecture)
        run_directory.require_same_model(config.out, existing_spec, of_model)
    resolved = mesh_size.resolve_mesh(config, architecture, existing_spec)
    group = devices.groups(resolved.config)[0]
    model = loading.from_checkpoint(checkpoint, config.model.dtype, group.devices)
    resolved = batch_size.fit_batch_to_memory(resolved, model.params)
    bos = tokens.with_bos(config, model, existing_spec).corpus.bos
    resolved = resolved.with_bos(bos)
    if ingested is None:
        ingested = tokens.read_or_make(resolved.config, model, temporary, read_only)
    # Beside a run that has begun all must be known, to say in what this one differs.
    if resolved.config.lens.temperatures is None and (fit or existing_spec is not None):
        with ingested.open() as token_file:
            fitted = temperatures.fit_temperatures(resolved, model, token_file)
        resolved = resolved.with_temperatures(fitted)
    words = tokenizer.word_tables(tokenizer.strings(model.tokenizer, architecture.vocab_size))
    version = spec.format_version(existing_spec, config.out)
    job = assemble(resolved, checkpoint, model, ingested, words, version)
    job = dataclasses.replace(job, programs=programs)
    job = token_counts.with_counts(job, existing_spec)
    return type_means.with_table(job, existing_spec, temporary)


def assemble(
    resolved: resolve.Resolved,
    checkpoint: Checkpoint,
    model: loading.Model,
    ingested: token_folder.Ingested,
    words: tuple[np.ndarray, np.ndarray],
    version: int = schema.FORMAT_VERSION,
) -> Job:
    """Fixes the plan and the spec of a model and a token file.

    Args:
        resolved: The configuration; temperatures that are not fitted are recorded as null.
        checkpoint: The model's origin.
        model: On the default device, or on those that share it.
        ingested: Token file.
        words: See ``tokenizer.word_tables``.
        version: Of the format; a run that has begun keeps its own.

    Raises:
        ConfigError: The plan makes no sense.
    """
    resolved = resolved.with_corpus(ingested.index.n_tokens)
    windows = plan.build(
        ingested.index.document_start,
        length=resolved.length,
        overlap=resolved.config.plan.overlap,
        step_sequences=resolved.step_sequences,
        shard_tokens=resolved.shard_tokens,
        bos_id=tokens.window_bos(resolved.config, model),
    )
    step_config = step.step_config(resolved)
    document = spec.build(resolved, checkpoint, model, ingested, windows, step_config, version)
    spec_bytes = run_config.canonical(document)
    spec_hash = run_config.spec_hash(spec_bytes)
    out = resolved.config.out
    unembed = step.unembed(resolved, model.params)
    return Job(
        resolved=resolved,
        out=tokens.RUNS / spec_hash[:8] if out is None else Path(out),
        model=model,
        unembed=unembed,
        tiles=step_config.tile_unembedding(unembed),
        ingested=ingested,
        plan=windows,
        words=words,
        step_config=step_config,
        spec=document,
        spec_bytes=spec_bytes,
        spec_hash=spec_hash,
    )


def check_identity(job: Job, tokens: token_file.TokenFile) -> float:
    """The identity gate on the corpus' own first tokens; the measured difference in nats.

    Raises:
        NumericalError: The lens does not reproduce the model.
    """
    length = min(identity.TOKENS, job.plan.length, tokens.index.n_tokens)
    lines = max(1, min(identity.TOKENS, tokens.index.n_tokens) // length)
    sample = tokens.read(0, lines * length).astype(np.int32).reshape(lines, length)
    return loading.check_identity(
        job.model,
        sample,
        implementation=job.step_config.implementation,
        decoder=job.config.lens.decoder,
        request=job.step_config.request,
        tiles=job.tiles,
    )
